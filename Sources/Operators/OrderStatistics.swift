import Core
import Synchronization
import TensorKernels

/// Exact order statistics of float32 magnitudes that are computed tile by tile, without sorting.
///
/// A stream is a sequence of numbers as long as the tensor: a task vector, a variance, an importance. A sample of the stream
/// gives a window of magnitudes in which the wanted element will probably lie (`MagnitudeSample`). One pass then counts the
/// elements above the window and at its ends, and notes those inside, among which the element is found. If the window turns out
/// wrong, two passes of counting find the element (`MagnitudeHistogram`), and a third counts around it.
package struct OrderStatistics: Sendable {
    /// The numbers of a stream in the current tile.
    package typealias Entries = @Sendable (Tile, _ stream: Int) throws -> UnsafePointer<Float>

    /// The rank of an element; 1 is the largest magnitude.
    package enum Rank: Sendable, Hashable {
        case number(Int)
        /// Rank `⌊share · z⌋`, where `z` is the number of elements that are not zero; the product is float32
        /// (mergekit-compatible).
        case share(Float)

        /// The rank as a number; 0 if a share is less than one element.
        package func number(of count: Int, zeros: Int) -> Int {
            switch self {
            case .number(let number): number
            case .share(let share): min(count - zeros, Int(Float(count - zeros) * share))
            }
        }
    }

    /// A request for the element of a given rank in a stream.
    package struct Query: Sendable, Hashable {
        package let stream: Int
        package let rank: Rank

        package init(stream: Int, rank: Rank) {
            self.stream = stream
            self.rank = rank
        }

        package init(stream: Int, rank: Int) { self.init(stream: stream, rank: .number(rank)) }
    }

    package struct Found: Sendable, Hashable {
        /// From 1. If 0, the share was less than one element, and the other properties are undefined.
        package let rank: Int
        /// The bit pattern of the magnitude.
        package let pattern: UInt32
        /// The number of larger elements.
        package let above: Int
        /// The number of equal elements in each tile.
        package let equalByTile: [Int]

        var equal: Int { equalByTile.reduce(0, +) }
    }

    /// The largest number of patterns noted for a tensor, and bytes per pattern: an array's capacity is up to twice its count.
    private static let noteLimit = 1 << 22, noteBytes = 2 * MemoryLayout<UInt32>.stride

    /// Memory for the histograms, and for a sample with a copy of its largest class. Notes, and the histograms of further
    /// threads, use memory that happens to be free.
    static func memory(queries: Int, count: Int) -> MemoryNeed {
        MemoryNeed(
            shared: queries * MagnitudeHistogram.byteCount
                + 2 * MagnitudeSample.size(of: count) * MemoryLayout<UInt32>.stride)
    }

    /// Takes one pass, and three more if a window turns out wrong.
    package static func find(_ queries: [Query], in tensor: TensorPasses, _ entries: @escaping Entries) throws -> [Found] {
        guard !queries.isEmpty else { return [] }
        guard tensor.count <= MagnitudeHistogram.countLimit else {
            throw tooMany(tensor.count)
        }
        let noteBuffer = tensor.memory.reserve(upTo: Self.noteBytes * min(noteLimit, queries.count * tensor.count))
        defer { noteBuffer.release() }
        let noteLimit = noteBuffer.byteCount / Self.noteBytes
        var windows = [ClosedRange<UInt32>](repeating: 0...0, count: queries.count)
        for (stream, indices) in byStream(queries) {
            let sample = try MagnitudeSample(of: stream, in: tensor, entries)
            for index in indices {
                windows[index] = sample.window(around: queries[index].rank, noting: noteLimit / queries.count)
            }
        }
        let counts = try count(queries, around: windows, noting: noteLimit, in: tensor, entries)
        let ranks = zip(queries, counts).map { query, spans in
            query.rank.number(of: tensor.count, zeros: spans.reduce(0) { $0 + $1.zeros })
        }
        var found = queries.indices.map { element(ranks[$0], windows[$0], counts[$0].map(\.window)) }
        let missed = queries.indices.filter { found[$0] == nil }
        if !missed.isEmpty {
            let queries = missed.map { Query(stream: queries[$0].stream, rank: ranks[$0]) }
            let windows = try exactWindows(queries, in: tensor, entries)
            let counts = try count(queries, around: windows, noting: noteLimit, in: tensor, entries)
            for (position, index) in missed.enumerated() {
                found[index] = element(ranks[index], windows[position], counts[position].map(\.window))
            }
        }
        return try found.map { found in
            guard let found else { throw changed }
            return found
        }
    }

    static func tooMany(_ count: Int) -> TesseraError {
        TesseraError(.badData, "has \(count) elements; at most \(MagnitudeHistogram.countLimit) can be ranked")
    }

    private static var changed: TesseraError {
        TesseraError(
            .badData, "changed while it was being read", advice: "make sure that nothing writes to the inputs during a merge")
    }

    /// The indices of the queries on each stream.
    private static func byStream(_ queries: [Query]) -> [Int: [Int]] {
        Dictionary(grouping: queries.indices) { queries[$0].stream }
    }

    // MARK: Windows

    /// The counts of one span for one query.
    private struct SpanCount: Sendable {
        var window = WindowCount()
        /// Counted only if the rank depends on it.
        var zeros = 0
    }

    /// - Returns: for each query, the counts of each span.
    private static func count(
        _ queries: [Query], around windows: [ClosedRange<UInt32>], noting noteLimit: Int, in tensor: TensorPasses,
        _ entries: @escaping Entries
    ) throws -> [[SpanCount]] {
        let streams = byStream(queries), noted = Atomic(0)
        let spans = try tensor.spans(Array(repeating: SpanCount(), count: queries.count)) { counts, tile in
            for (stream, indices) in streams {
                let values = try entries(tile, stream)
                for index in indices {
                    counts[index].window.add(values, count: tile.count, around: windows[index], kernels: tile.kernels) {
                        noted.wrappingAdd($0, ordering: .relaxed).newValue <= noteLimit
                    }
                    guard case .share = queries[index].rank else { continue }
                    counts[index].zeros += tile.kernels.countEqual(values, pattern: 0, count: tile.count)
                }
            }
        }
        return queries.indices.map { index in spans.map { $0[index] } }
    }

    /// The element of a rank, if it lies in the window and everything in the window was noted.
    private static func element(_ rank: Int, _ window: ClosedRange<UInt32>, _ spans: [WindowCount]) -> Found? {
        var above = spans.reduce(0) { $0 + $1.above }
        guard rank > 0 else { return Found(rank: 0, pattern: window.upperBound, above: above, equalByTile: []) }
        func found(_ pattern: UInt32, _ equal: (WindowCount) -> [Int]) -> Found? {
            let equal = spans.flatMap(equal), count = equal.reduce(0, +)
            defer { above += count }
            return rank > above && rank <= above + count
                ? Found(rank: rank, pattern: pattern, above: above, equalByTile: equal) : nil
        }
        if let found = found(window.upperBound, \.atHigh) { return found }
        let notes = spans.compactMap(\.between)
        guard rank > above, notes.count == spans.count else { return nil }
        if let pattern = notes.largest(rank - above, in: window) {
            above += notes.reduce(0) { $0 + $1.count { $0 > pattern } }
            return found(pattern) { $0.equal(to: pattern) ?? [] }
        }
        above += notes.reduce(0) { $0 + $1.count }
        return window.lowerBound < window.upperBound ? found(window.lowerBound, \.atLow) : nil
    }

    // MARK: Counting everything

    /// Windows that hold only the pattern of the wanted element. Takes two passes.
    private static func exactWindows(
        _ queries: [Query], in tensor: TensorPasses, _ entries: @escaping Entries
    ) throws -> [ClosedRange<UInt32>] {
        func places(_ histograms: [MagnitudeHistogram], below above: [Int]) throws -> [MagnitudeHistogram.Place] {
            let streams = byStream(queries)
            let partBytes = histograms.count * MagnitudeHistogram.byteCount
            let histograms = try tensor.fold(histograms, partBytes: partBytes) { histograms, tile in
                for (stream, indices) in streams {
                    let values = try entries(tile, stream)
                    for index in indices { histograms[index].add(values, count: tile.count, kernels: tile.kernels) }
                }
            } combine: { total, part in
                for index in total.indices { total[index].add(part[index]) }
            }
            return try queries.indices.map { index in
                let rank = queries[index].rank.number(of: tensor.count, zeros: 0) - above[index]
                guard let place = histograms[index].place(ofLargest: rank) else { throw changed }
                return place
            }
        }
        let high = try places(queries.map { _ in .coarse() }, below: queries.map { _ in 0 })
        let low = try places(high.map { .fine(inBin: $0.bin) }, below: high.map(\.above))
        return zip(high, low).map { high, low in
            let pattern = high.bin << 16 | low.bin
            return pattern...pattern
        }
    }

    // MARK: Equal entries

    /// A request for the place where the first `kept` of the elements equal to `pattern` end.
    package struct EqualEntries: Sendable {
        package let stream: Int
        package let pattern: UInt32
        package let kept: Int
        /// The number of such elements in each tile.
        package let byTile: [Int]

        /// - Parameter found: the element that the others are equal to.
        package init(stream: Int, to found: Found, kept: Int) {
            self.stream = stream
            self.kept = kept
            pattern = found.pattern
            byTile = found.equalByTile
        }
    }

    /// The flat index below which exactly `kept` of the equal entries lie. Reads one tile.
    package static func limit(of equal: EqualEntries, in tensor: TensorPasses, _ entries: Entries) throws -> Int {
        var left = equal.kept
        for (index, count) in equal.byTile.enumerated() {
            guard left < count else {
                left -= count
                continue
            }
            return try tensor.visit(tile: index) { tile in
                let values = try entries(tile, equal.stream)
                for position in 0..<tile.count where values[position].magnitude.bitPattern == equal.pattern {
                    if left == 0 { return tile.range.lowerBound + position }
                    left -= 1
                }
                throw changed
            }
        }
        return tensor.count
    }
}

/// One end of a range of magnitudes. Elements equal to `pattern` belong to the range if their flat index is below `limit`.
struct MagnitudeEdge: Sendable, Hashable {
    let pattern: UInt32
    let limit: Int

    /// The lowest pattern, for the element at a flat index, of the range that begins at this edge.
    func lowest(at index: Int) -> UInt32 { index < limit ? pattern : min(pattern + 1, .largestMagnitude) }

    /// The parts of the tile, counted from its beginning, before and behind the limit, each with its lowest pattern.
    func segments(of tile: Tile) -> [(Range<Int>, UInt32)] {
        let cut = min(tile.count, max(0, limit - tile.range.lowerBound))
        return [0..<cut, cut..<tile.count].filter { !$0.isEmpty }.map { ($0, lowest(at: tile.range.lowerBound + $0.lowerBound)) }
    }
}
