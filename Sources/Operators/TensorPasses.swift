import Core
import LinearAlgebra
import Synchronization
package import TensorKernels

/// Runs independent pieces of one tensor's work, possibly on several threads.
package protocol ParallelRunner: Sendable {
    /// The number of calls that can run at the same time.
    var threads: Int { get }

    /// - Throws: `CancellationError` if the work was cancelled.
    func checkCancellation() throws

    /// Calls `body` once with each index below `count`, in any order, with at most `limit` calls at the same time. Returns when
    /// all calls have returned.
    ///
    /// - Throws: the error of one of the calls, or `CancellationError`.
    func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws
}

extension ParallelRunner {
    package func forEach(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        try forEach(count, atOnce: threads, body)
    }
}

/// The passes over one tensor: what a merge method or an encoding sees of the machine.
///
/// A statistics pass reads every source once and reduces it to something small; `emit` computes the output. Each pass gives the
/// same result for any number of threads: sums are taken over tiles and then in a fixed tree, other folds must be exact, and an
/// output element depends only on the sources and on the results of earlier passes.
package struct TensorPasses: Sendable {
    package let shape: [Int]
    package let inputs: TensorInputs
    package let sources: [any ElementSource]
    /// What the recipe gives beside the sources, in the order of `TensorInputs.given`.
    let given: [GivenTensor]
    package let kernels: Kernels
    package let runner: any ParallelRunner
    /// Memory beyond what was reserved for the tensor.
    let memory: MemoryBudget
    /// How a merge stores its values; `nil` for encodings of task vectors, which write their outputs themselves.
    let codec: (any ElementCodec)?
    /// One for each output tensor.
    package internal(set) var sinks: [any BlockSink]
    package let tiles: TilePool
    let matrices: MatrixSpace
    let reported = ReportedStatistics()
    let readAhead: ReadAhead
    /// What passes read tile by tile: the sources, and given tensors of the same shape.
    private let streamed: [any ElementSource]

    /// The number of tiles that a thread takes at a time.
    private static let tilesPerSpan = 128

    /// - Parameters:
    ///   - memory: what the tensor may use beyond what was reserved for it.
    ///   - matrixElements: as in the operation's cost.
    package init(
        shape: [Int], codec: (any ElementCodec)? = nil, sources: [any ElementSource], given: [GivenTensor] = [],
        inputs: TensorInputs, kernels: Kernels, runner: any ParallelRunner, memory: MemoryBudget, matrixElements: Int = 0,
        sinks: [any BlockSink]
    ) {
        self.shape = shape
        self.given = given
        self.codec = codec
        self.sources = sources
        self.inputs = inputs
        self.kernels = kernels
        self.runner = runner
        self.memory = memory
        self.sinks = sinks
        matrices = MatrixSpace(elements: matrixElements)
        let count = Shape.count(shape)
        streamed = sources + given.map(\.tensor).filter { $0.count == count }
        let readAhead = ReadAhead(streamed, count: count)
        self.readAhead = readAhead
        tiles = TilePool {
            Tile(shape: shape, sources: sources, given: given, inputs: inputs, readAhead: readAhead, kernels: kernels)
        }
    }

    /// The same passes with other outputs.
    package func with(sinks: [any BlockSink]) -> TensorPasses {
        var passes = self
        passes.sinks = sinks
        return passes
    }

    package var count: Int { Shape.count(shape) }
    package var tileCount: Int { (count + FixedTree.tileElements - 1) / FixedTree.tileElements }

    // MARK: Statistics

    /// Folds every tile into a value. Each thread has a value of its own, and `combine` joins them in any order. The fold must
    /// therefore be exact: integers, minima, maxima, histograms.
    ///
    /// - Parameters:
    ///   - partBytes: the size of a value, if it is large. One value is part of the operation's cost; the number of further
    ///     threads is limited by the memory that is free.
    ///   - isLast: whether this is the last pass, which releases the sources.
    package func fold<Part: Sendable>(
        _ initial: Part, partBytes: Int = 0, isLast: Bool = false,
        _ body: @escaping @Sendable (inout Part, Tile) throws -> Void, combine: (inout Part, Part) -> Void
    ) throws -> Part {
        let more = max(0, min(runner.threads, spanCount) - 1), buffer = memory.reserve(upTo: more * partBytes)
        defer { buffer.release() }
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

    /// Folds each span of tiles into a value of its own.
    ///
    /// - Parameter isLast: as of `fold`.
    /// - Returns: the values, in the order of the spans.
    package func spans<Part: Sendable>(
        _ initial: Part, isLast: Bool = false, _ body: @escaping @Sendable (inout Part, Tile) throws -> Void
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
            if isLast { release(elements(ofSpan: span)) }
        }
        return parts.withLock { $0 }
    }

    /// The number of spans. A span is what a thread takes at a time.
    package var spanCount: Int { (tileCount + Self.tilesPerSpan - 1) / Self.tilesPerSpan }

    /// The indices of a span's tiles.
    package func tiles(ofSpan span: Int) -> Range<Int> {
        span * Self.tilesPerSpan..<min(tileCount, (span + 1) * Self.tilesPerSpan)
    }

    /// The sums of `terms` float64 quantities over all tiles. `body` gets zeros and adds the tile's quantities.
    ///
    /// - Parameter isLast: as of `fold`.
    package func sums(
        _ terms: Int, isLast: Bool = false, _ body: @escaping @Sendable (Tile, inout [Double]) throws -> Void
    ) throws -> [Double] {
        try perTile(terms, zero: 0, isLast: isLast, body).map(FixedTree.sum)
    }

    /// Counts of `terms` things in each tile: for each thing, one count per tile.
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

    /// Like `sums`, but not added up: for each quantity, one number per tile.
    package func shares(_ terms: Int, _ body: @escaping @Sendable (Tile, inout [Double]) throws -> Void) throws -> [[Double]] {
        try perTile(terms, zero: 0, body)
    }

    /// Folds every row of `length` consecutive elements into `width` float64 numbers.
    ///
    /// Tiles cut rows into pieces. `body` computes the numbers of each piece in the tile; `join` adds those of a later piece to
    /// those of the earlier ones, in order. The result is the same to the last bit for any number of threads, because the tiles
    /// are.
    ///
    /// - Returns: the rows' numbers, one row after the other.
    package func rowStatistics(
        length: Int, width: Int, _ body: @escaping @Sendable (Tile, RowPieces, UnsafeMutablePointer<Double>) throws -> Void,
        join: (UnsafeMutablePointer<Double>, UnsafePointer<Double>) -> Void
    ) throws -> [Double] {
        guard length > 0, count > 0 else { return [] }
        // A row belongs to the tile that it begins in. The numbers of its pieces in later tiles are kept apart until the end.
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
    /// `body` adds each piece of a row to the sums of its columns; `sums` has all columns of the first term, then those of the
    /// next. Sections of tiles have sums of their own, which are then added in order. The number of sections depends on the shape
    /// only.
    ///
    /// - Returns: for each term the sums of all columns, one term after the other.
    package func columnSums(
        width: Int, terms: Int,
        _ body: @escaping @Sendable (Tile, RowPieces, _ sums: UnsafeMutablePointer<Double>) throws -> Void
    ) throws -> [Double] {
        guard width > 0, count > 0 else { return [] }
        let sectionCount = max(1, min(tileCount, Self.columnSections, Self.columnSumLimit / (width * terms)))
        let sections = Mutex<[[Double]]>(Array(repeating: [], count: sectionCount))
        try runner.forEach(sectionCount) { section in
            try tiles.with { tile in
                var sums = Array(repeating: 0.0, count: width * terms)
                for index in tileCount * section / sectionCount..<tileCount * (section + 1) / sectionCount {
                    tile.take(tileRange(index))
                    try sums.withUnsafeMutableBufferPointer { sums in
                        guard let first = sums.baseAddress else { return }
                        try body(tile, RowPieces(tile.range, length: width), first)
                    }
                }
                sections.withLock { $0[section] = sums }
            }
        }
        return sections.withLock { sections in
            sections.dropFirst().reduce(into: sections[0]) { total, sums in
                for index in total.indices { total[index] += sums[index] }
            }
        }
    }

    /// Bytes of the result of `rowStatistics` for a tensor of `count` elements.
    package static func rowStatisticsBytes(count: Int, length: Int, width: Int) -> Int {
        (count / max(1, length) + count / FixedTree.tileElements) * width * MemoryLayout<Double>.stride
    }

    /// Bytes of the sums of `columnSums`.
    package static func columnSumsBytes(width: Int, terms: Int) -> Int {
        max(width * terms, min(columnSections * width * terms, columnSumLimit)) * MemoryLayout<Double>.stride
    }

    /// The largest number of sections, and of float64 numbers in all sections together.
    private static let columnSections = 16
    private static let columnSumLimit = 1 << 22

    /// Calls `body` with one tile, on the calling thread.
    package func visit<Result>(tile index: Int, _ body: (Tile) throws -> Result) throws -> Result {
        try tiles.with { tile in
            tile.take(tileRange(index))
            return try body(tile)
        }
    }

    private func elements(ofSpan span: Int) -> Range<Int> {
        let tiles = tiles(ofSpan: span)
        return tileRange(tiles.lowerBound).lowerBound..<tileRange(tiles.upperBound - 1).upperBound
    }

    private func forEachSpan(
        atOnce limit: Int = .max, isLast: Bool = false,
        _ body: @escaping @Sendable (Tile, LazyMapSequence<Range<Int>, Range<Int>>) throws -> Void
    ) throws {
        try runner.forEach(spanCount, atOnce: limit) { span in
            let indices = tiles(ofSpan: span)
            try tiles.with { try body($0, indices.lazy.map(tileRange)) }
            if isLast { release(elements(ofSpan: span)) }
        }
    }

    /// Releases elements of every source, which no pass reads again.
    package func release(_ elements: Range<Int>) {
        for source in streamed { source.release(elements) }
    }

    package func tileRange(_ index: Int) -> Range<Int> {
        index * FixedTree.tileElements..<min(count, (index + 1) * FixedTree.tileElements)
    }
}

/// The part of a row that lies in a tile.
package struct RowPiece: Sendable, Hashable {
    package let row: Int
    /// The first column.
    package let column: Int
    /// The first element, counted from the beginning of the tile.
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

/// Gives each thread a tile of its own, and keeps the tiles for the next pass.
package final class TilePool: Sendable {
    private let make: @Sendable () -> Tile
    private let idle = Mutex<[TileBox]>([])

    /// Unchecked: a tile is used only by the thread that took it from the pool.
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
