import Core
import Synchronization
package import TensorKernels

/// Runs independent pieces of one tensor's work, possibly on several threads.
package protocol ParallelRunner: Sendable {
    /// How many calls can run at once.
    var threads: Int { get }

    /// - Throws: `CancellationError` once nobody wants the result any more.
    func checkCancellation() throws

    /// Calls `body` once with each index below `count`, in any order and at most `limit` at once; returns when all are done,
    /// throws what one of them threw.
    func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws
}

extension ParallelRunner {
    package func forEach(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        try forEach(count, atOnce: threads, body)
    }
}

/// Takes the blocks of one output tensor.
package protocol BlockSink: Sendable {
    /// Takes a block, `byteRange` of the tensor, `step` bytes after `step` bytes, so that each can be hashed while it is in
    /// cache.
    ///
    /// - Parameters:
    ///   - step: a power of two, at most that of a tile in the widest type; the last step may be shorter.
    ///   - fill: called with each step's range of the tensor's bytes, in order, and with the buffer that they belong into.
    func writeBlock(
        _ index: Int, byteRange: Range<Int>, step: Int, fill: (Range<Int>, UnsafeMutableRawPointer) throws -> Void) throws

    /// Takes a block that is there as a whole.
    func storeBlock(_ index: Int, offset: Int, _ bytes: UnsafeRawBufferPointer) throws
}

/// One output tensor at work: what a method sees of the machine.
///
/// Statistics passes read every source once and fold it into something small; `emit` computes the output. Each primitive gives
/// the same result for any number of threads: sums have the tile as their leaf and a fixed tree above it, other
/// folds must be exact, and an output element depends on nothing but its inputs and those results.
package struct TensorPasses: Sendable {
    package let shape: [Int]
    package let inputs: TensorInputs
    package let sources: [any ElementSource]
    package let kernels: Kernels
    package let runner: any ParallelRunner
    /// What is left of the memory, beside what the tensor needs.
    let memory: MemoryBudget
    /// What a merge stores its values with; an encoding of task vectors has its own ways.
    let codec: (any ElementCodec)?
    /// One for each output tensor.
    package let sinks: [any BlockSink]
    package let tiles: TilePool
    let matrices: MatrixAllowance
    let reported = ReportedStatistics()
    let readAhead: ReadAhead

    /// Tiles that a thread folds before it asks for more work.
    private static let tilesPerSpan = 128

    /// - Parameters:
    ///   - memory: what is left of it beside what the tensor needs.
    ///   - matrixElements: what the operation may hold in matrices, as its cost says.
    package init(
        shape: [Int], codec: (any ElementCodec)? = nil, sources: [any ElementSource], inputs: TensorInputs, kernels: Kernels,
        runner: any ParallelRunner, memory: MemoryBudget, matrixElements: Int = 0, sinks: [any BlockSink]
    ) {
        self.shape = shape
        self.codec = codec
        self.sources = sources
        self.inputs = inputs
        self.kernels = kernels
        self.runner = runner
        self.memory = memory
        self.sinks = sinks
        matrices = MatrixAllowance(elements: matrixElements)
        let readAhead = ReadAhead(sources, count: shape.reduce(1, *))
        self.readAhead = readAhead
        tiles = TilePool {
            Tile(shape: shape, sources: sources, inputs: inputs, readAhead: readAhead, kernels: kernels)
        }
    }

    package var count: Int { shape.reduce(1, *) }
    package var tileCount: Int { (count + FixedTree.tileElements - 1) / FixedTree.tileElements }

    // MARK: Statistics

    /// Folds every tile into a value of which each thread keeps one; `combine` joins them in no particular order, so the
    /// fold must be exact: integers, minima, maxima, histograms.
    ///
    /// - Parameters:
    ///   - partBytes: bytes of such a value, if they are many. The first value is part of what the tensor needs; as many more
    ///     threads take part as there is memory left for.
    ///   - isLast: whether the sources are released behind the pass, since no other follows.
    package func fold<Part: Sendable>(
        _ initial: Part, partBytes: Int = 0, isLast: Bool = false,
        _ body: @escaping @Sendable (inout Part, Tile) throws -> Void, combine: (inout Part, Part) -> Void
    ) throws -> Part {
        let more = max(0, min(runner.threads, spanCount) - 1), buffer = memory.reserve(upTo: more * partBytes)
        defer { buffer.giveBack() }
        let idle = Mutex<[Part]>([])
        try forEachSpan(atOnce: 1 + (partBytes > 0 ? buffer.byteCount / partBytes : more), isLast: isLast) { tile, ranges in
            var part = idle.withLock { $0.popLast() } ?? initial
            for range in ranges {
                tile.take(range)
                try body(&part, tile)
            }
            idle.withLock { $0.append(part) }
        }
        return idle.withLock { $0.reduce(into: initial, combine) }
    }

    /// Folds every span of tiles into a value of its own, tile by tile.
    ///
    /// - Returns: the values in the order of the spans.
    package func spans<Part: Sendable>(
        _ initial: Part, _ body: @escaping @Sendable (inout Part, Tile) throws -> Void
    ) throws -> [Part] {
        let parts = Mutex(Array(repeating: initial, count: spanCount))
        try runner.forEach(spanCount) { span in
            try tiles.with { tile in
                var part = initial
                for index in tiles(ofSpan: span) {
                    tile.take(tileRange(index))
                    try body(&part, tile)
                }
                parts.withLock { $0[span] = part }
            }
        }
        return parts.withLock { $0 }
    }

    /// Spans of tiles that a thread folds in one go.
    package var spanCount: Int { (tileCount + Self.tilesPerSpan - 1) / Self.tilesPerSpan }

    /// The indices of a span's tiles.
    package func tiles(ofSpan span: Int) -> Range<Int> {
        span * Self.tilesPerSpan..<min(tileCount, (span + 1) * Self.tilesPerSpan)
    }

    /// Adds up `terms` float64 quantities of every tile: `body` adds a tile's share to the zeros it is given.
    ///
    /// - Parameter isLast: as of `fold`.
    package func sums(
        _ terms: Int, isLast: Bool = false, _ body: @escaping @Sendable (Tile, inout [Double]) throws -> Void
    ) throws -> [Double] {
        try perTile(terms, zero: 0, isLast: isLast, body).map(FixedTree.sum)
    }

    /// Counts `terms` things in every tile; the result holds, for each, one count a tile.
    ///
    /// - Parameter isLast: as of `fold`.
    package func counts(
        _ terms: Int, isLast: Bool = false, _ body: @escaping @Sendable (Tile, inout [Int]) throws -> Void
    ) throws -> [[Int]] {
        try perTile(terms, zero: 0, isLast: isLast, body)
    }

    private func perTile<Value: Sendable>(
        _ terms: Int, zero: Value, isLast: Bool = false, _ body: @escaping @Sendable (Tile, inout [Value]) throws -> Void
    ) throws -> [[Value]] {
        let found = Mutex(Array(repeating: Array(repeating: zero, count: tileCount), count: terms))
        try forEachSpan(isLast: isLast) { tile, ranges in
            for range in ranges {
                tile.take(range)
                var share = Array(repeating: zero, count: terms)
                try body(tile, &share)
                let index = range.lowerBound / FixedTree.tileElements
                found.withLock { found in
                    for term in 0..<terms { found[term][index] = share[term] }
                }
            }
        }
        return found.withLock { $0 }
    }

    /// Adds up `terms` quantities of every tile like `sums`, but leaves them apart: one number a tile for each.
    package func shares(_ terms: Int, _ body: @escaping @Sendable (Tile, inout [Double]) throws -> Void) throws -> [[Double]] {
        try perTile(terms, zero: 0, body)
    }

    /// Folds every row of `length` consecutive elements into `width` float64 numbers.
    ///
    /// Tiles cut rows into pieces. `body` makes the numbers of a tile's pieces, one piece after the other; `join` takes a later
    /// piece's into those of the earlier ones, in order. As the tiles are fixed, so is the result to the last bit.
    ///
    /// - Returns: the rows' numbers, one row after the other.
    package func rowStatistics(
        length: Int, width: Int, _ body: @escaping @Sendable (Tile, RowPieces, UnsafeMutablePointer<Double>) throws -> Void,
        join: (UnsafeMutablePointer<Double>, UnsafePointer<Double>) -> Void
    ) throws -> [Double] {
        guard length > 0, count > 0 else { return [] }
        // A row begins in one tile; what later tiles hold of it waits beside them.
        let found = Mutex(
            (rows: Array(repeating: 0.0, count: count / length * width), rests: Array(repeating: [Double](), count: tileCount)))
        try forEachSpan { tile, ranges in
            for range in ranges {
                tile.take(range)
                let pieces = RowPieces(range, length: length)
                var values = Array(repeating: 0.0, count: pieces.count * width)
                try values.withUnsafeMutableBufferPointer { values in
                    guard let first = values.baseAddress else { return }
                    try body(tile, pieces, first)
                }
                let hasRest = range.lowerBound % length != 0
                found.withLock { found in
                    if hasRest { found.rests[range.lowerBound / FixedTree.tileElements] = Array(values.prefix(width)) }
                    let own = values.dropFirst(hasRest ? width : 0)
                    let start = (range.lowerBound + length - 1) / length * width
                    found.rows.replaceSubrange(start..<start + own.count, with: own)
                }
            }
        }
        return found.withLock { found in
            found.rows.withUnsafeMutableBufferPointer { rows in
                guard let first = rows.baseAddress else { return }
                for (index, rest) in found.rests.enumerated() where !rest.isEmpty {
                    join(first + index * FixedTree.tileElements / length * width, rest)
                }
            }
            return found.rows
        }
    }

    /// Adds up `terms` float64 quantities of every column, in a matrix of `width` columns.
    ///
    /// `body` adds a tile's pieces of rows, elementwise, to the sums of the columns they lie in; `sums` holds all columns of the
    /// first term, then those of the next. Runs of tiles have sums of their own, which are then added in order; how many there
    /// are depends on the shape alone.
    ///
    /// - Returns: for each term the sums of all columns, one term after the other.
    package func columnSums(
        width: Int, terms: Int,
        _ body: @escaping @Sendable (Tile, RowPieces, _ sums: UnsafeMutablePointer<Double>) throws -> Void
    ) throws -> [Double] {
        guard width > 0, count > 0 else { return [] }
        let runCount = max(1, min(tileCount, Self.columnRuns, Self.columnSumLimit / (width * terms)))
        let runs = Mutex<[[Double]]>(Array(repeating: [], count: runCount))
        try runner.forEach(runCount) { run in
            try tiles.with { tile in
                var sums = Array(repeating: 0.0, count: width * terms)
                for index in tileCount * run / runCount..<tileCount * (run + 1) / runCount {
                    tile.take(tileRange(index))
                    try sums.withUnsafeMutableBufferPointer { sums in
                        guard let first = sums.baseAddress else { return }
                        try body(tile, RowPieces(tile.range, length: width), first)
                    }
                }
                runs.withLock { $0[run] = sums }
            }
        }
        return runs.withLock { runs in
            runs.dropFirst().reduce(into: runs[0]) { total, sums in
                for index in total.indices { total[index] += sums[index] }
            }
        }
    }

    /// Bytes that `rowStatistics` or `columnSums` take for a tensor of `count` elements.
    static func rowStatisticsBytes(count: Int, length: Int, width: Int) -> Int {
        (count / max(1, length) + count / FixedTree.tileElements) * width * MemoryLayout<Double>.stride
    }

    static func columnSumsBytes(width: Int, terms: Int) -> Int {
        max(width * terms, min(columnRuns * width * terms, columnSumLimit)) * MemoryLayout<Double>.stride
    }

    /// Runs of tiles with column sums of their own, and numbers in all of them together.
    private static let columnRuns = 16
    private static let columnSumLimit = 1 << 22

    /// Visits one tile by its index, on the calling thread.
    package func visit<Result>(tile index: Int, _ body: (Tile) throws -> Result) throws -> Result {
        try tiles.with { tile in
            tile.take(tileRange(index))
            return try body(tile)
        }
    }

    private func forEachSpan(
        atOnce limit: Int = .max, isLast: Bool = false,
        _ body: @escaping @Sendable (Tile, LazyMapSequence<Range<Int>, Range<Int>>) throws -> Void
    ) throws {
        try runner.forEach(spanCount, atOnce: limit) { span in
            let indices = tiles(ofSpan: span)
            try tiles.with { try body($0, indices.lazy.map(tileRange)) }
            if isLast { release(tileRange(indices.lowerBound).lowerBound..<tileRange(indices.upperBound - 1).upperBound) }
        }
    }

    /// Unmaps elements of every source, which no pass reads again.
    package func release(_ elements: Range<Int>) {
        for source in sources { source.release(elements) }
    }

    package func tileRange(_ index: Int) -> Range<Int> {
        index * FixedTree.tileElements..<min(count, (index + 1) * FixedTree.tileElements)
    }
}

/// The part of a row that lies in a tile.
package struct RowPiece: Sendable, Hashable {
    package let row: Int
    /// Where in its row the piece begins.
    package let column: Int
    /// Where in the tile it begins.
    package let offset: Int
    package let count: Int
}

/// The pieces of a range of elements, row by row.
package struct RowPieces: Sequence, IteratorProtocol {
    private let range: Range<Int>
    private let length: Int
    private var position: Int

    package init(_ range: Range<Int>, length: Int) {
        self.range = range
        self.length = length
        position = range.lowerBound
    }

    package var count: Int { range.isEmpty ? 0 : (range.upperBound - 1) / length - range.lowerBound / length + 1 }

    package mutating func next() -> RowPiece? {
        guard position < range.upperBound else { return nil }
        let row = position / length, end = Swift.min(range.upperBound, (row + 1) * length)
        defer { position = end }
        return RowPiece(row: row, column: position - row * length, offset: position - range.lowerBound, count: end - position)
    }
}

/// Hands each thread a tile of its own, and keeps them for the tensor's next pass.
package final class TilePool: Sendable {
    private let make: @Sendable () -> Tile
    private let idle = Mutex<[TileBox]>([])

    /// A tile is used by one thread at a time: whoever took it from the pool.
    private struct TileBox: @unchecked Sendable {
        let tile: Tile
    }

    init(_ make: @escaping @Sendable () -> Tile) { self.make = make }

    package func with<Result>(_ body: (Tile) throws -> Result) rethrows -> Result {
        let box = idle.withLock { $0.popLast() } ?? TileBox(tile: make())
        defer { idle.withLock { $0.append(box) } }
        return try body(box.tile)
    }
}
