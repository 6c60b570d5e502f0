import Checkpoints
import TensorKernels

/// Exact order statistics of float32 magnitudes that are computed grain by grain, in two passes and without sorting.
///
/// A stream is a row of numbers as long as the tensor: a task vector, a variance, an importance.
struct OrderStatistics: Sendable {
    /// The numbers of a stream for the grain in hand.
    typealias Entries = @Sendable (Grain, _ stream: Int) throws -> UnsafePointer<Float>

    /// Asks for the element of a stream that has this rank, 1 being the largest magnitude.
    struct Query: Sendable, Hashable {
        let stream: Int
        let rank: Int
    }

    struct Found: Sendable, Hashable {
        /// The magnitude as a bit pattern.
        let pattern: UInt32
        /// How many elements are larger, and how many are equal.
        let above: Int
        let equal: Int
        /// Where elements near it lie, if they were few enough to note.
        /// By span.
        let hits: [NearHits]
    }

    /// The elements of one span of the tensor that share the high bits of a found one.
    struct NearHits: Sendable, Hashable {
        /// How many have low bits of zero: where differences of 16-bit numbers tend to lie.
        var zeros = 0
        /// The low bits of the others, in order; `nil` where there are too many to note.
        var others: [UInt16]? = []

        /// How many have these low bits.
        func count(of low: UInt16) -> Int? { low == 0 ? zeros : others.map { $0.count { $0 == low } } }
    }

    /// Bytes of statistics that each thread keeps.
    static func statisticsBytes(streams: Int, queries: Int) -> Int { max(streams, queries) * MagnitudeHistogram.byteCount }

    /// Reads the sources twice.
    static func find(_ queries: [Query], in tensor: TensorPasses, _ entries: @escaping Entries) throws -> [Found] {
        guard !queries.isEmpty else { return [] }
        let streams = Set(queries.map(\.stream)).sorted()
        let coarse = try count(streams.map { ($0, .coarse()) }, in: tensor, entries)
        return try find(queries, coarse: Dictionary(uniqueKeysWithValues: zip(streams, coarse)), in: tensor, entries)
    }

    /// Finds the smallest of the `⌊share · z⌋` largest elements of one stream, `z` being how many are not zero; the product is
    /// taken in float32 (mergekit-compatible). Reads the sources twice.
    ///
    /// - Returns: the element, and how many there are; `nil` when there are none.
    static func find(
        largest share: Float, ofNonzeroIn stream: Int, of tensor: TensorPasses, _ entries: @escaping Entries
    ) throws -> (Found, kept: Int)? {
        let (coarse, zeros) = try tensor.fold((MagnitudeHistogram.coarse(), 0)) { part, grain in
            let values = try entries(grain, stream)
            part.0.add(values, count: grain.count, kernels: grain.kernels)
            part.1 += grain.kernels.countEqual(values, pattern: 0, count: grain.count)
        } combine: { total, part in
            total.0.add(part.0)
            total.1 += part.1
        }
        let nonzero = tensor.count - zeros
        let kept = min(nonzero, Int(Float(nonzero) * share))
        guard kept > 0 else { return nil }
        return try find([Query(stream: stream, rank: kept)], coarse: [stream: coarse], in: tensor, entries).first.map {
            ($0, kept)
        }
    }

    private static func find(
        _ queries: [Query], coarse: [Int: MagnitudeHistogram], in tensor: TensorPasses, _ entries: @escaping Entries
    ) throws -> [Found] {
        guard tensor.count <= MagnitudeHistogram.countLimit else {
            throw TesseraError(
                .badData, "has \(tensor.count) elements, more than the \(MagnitudeHistogram.countLimit) that can be ranked")
        }
        let bins = try queries.map { query in
            guard let place = coarse[query.stream]?.place(ofLargest: query.rank) else { throw changed }
            return place
        }
        // Queries that fall into one bin of one stream share its second round.
        var rounds: [(stream: Int, histogram: MagnitudeHistogram)] = []
        var roundOfQuery: [Int] = []
        for (query, bin) in zip(queries, bins) {
            let known = roundOfQuery.indices.first { queries[$0].stream == query.stream && bins[$0].bin == bin.bin }
            roundOfQuery.append(known.map { roundOfQuery[$0] } ?? rounds.count)
            if known == nil { rounds.append((query.stream, .fine(inBin: bin.bin))) }
        }
        let fine = try countNear(rounds, in: tensor, entries)
        return try queries.indices.map { index in
            let (histogram, hits) = fine[roundOfQuery[index]]
            guard let place = histogram.place(ofLargest: queries[index].rank - bins[index].above) else {
                throw changed
            }
            return Found(
                pattern: bins[index].bin << 16 | place.bin, above: bins[index].above + place.above, equal: place.inside,
                hits: hits)
        }
    }

    private static var changed: TesseraError {
        TesseraError(.badData, "changed while it was read", advice: "make sure that nobody writes the inputs during a merge")
    }

    private static func count(
        _ rounds: [(stream: Int, histogram: MagnitudeHistogram)], in tensor: TensorPasses, _ entries: @escaping Entries
    ) throws -> [MagnitudeHistogram] {
        let streams = rounds.map(\.stream)
        return try tensor.fold(rounds.map(\.histogram)) { histograms, grain in
            var current: (stream: Int, entries: UnsafePointer<Float>)?
            for (index, stream) in streams.enumerated() {
                let values = try current.flatMap { $0.stream == stream ? $0.entries : nil } ?? entries(grain, stream)
                current = (stream, values)
                histograms[index].add(values, count: grain.count, kernels: grain.kernels)
            }
        } combine: { total, part in
            for index in total.indices { total[index].add(part[index]) }
        }
    }

    /// Bytes of hits that are noted for a tensor at most; where there are more, equal entries are looked for in another pass.
    private static let hitBytes = 16 << 20

    /// The second round, which also notes what it counts.
    private static func countNear(
        _ rounds: [(stream: Int, histogram: MagnitudeHistogram)], in tensor: TensorPasses, _ entries: @escaping Entries
    ) throws -> [(histogram: MagnitudeHistogram, hits: [NearHits])] {
        let streams = rounds.map(\.stream)
        let room = hitBytes / MemoryLayout<UInt16>.stride / max(1, rounds.count * tensor.spanCount)
        let empty = Array(repeating: NearHits(), count: rounds.count)
        let (histograms, spans) = try tensor.fold(rounds.map(\.histogram), recording: empty) { histograms, hits, grain in
            var current: (stream: Int, entries: UnsafePointer<Float>)?
            for (index, stream) in streams.enumerated() {
                let values = try current.flatMap { $0.stream == stream ? $0.entries : nil } ?? entries(grain, stream)
                current = (stream, values)
                hits[index].note(room: room) {
                    histograms[index].add(values, count: grain.count, hits: $0, kernels: grain.kernels)
                }
            }
        } combine: { total, part in
            for index in total.indices { total[index].add(part[index]) }
        }
        return histograms.enumerated().map { index, histogram in (histogram, spans.map { $0[index] }) }
    }

    // MARK: Equal entries

    /// Asks where the first `kept` of the elements of a stream that equal `pattern` end.
    struct EqualEntries: Sendable {
        let stream: Int
        let pattern: UInt32
        let kept: Int
        /// By span; none for an element that was not found by `find`.
        let hits: [NearHits]
    }

    /// For each, the flat index below which exactly `kept` of the equal entries lie. Reads a span of the sources where equal entries were noted,
    /// else all of them.
    static func limits(of cut: [EqualEntries], in tensor: TensorPasses, _ entries: @escaping Entries) throws -> [Int] {
        let noted = cut.map { equal in equal.hits.map { $0.count(of: UInt16(truncatingIfNeeded: equal.pattern)) } }
        let isNoted = noted.map { !$0.isEmpty && $0.allSatisfy { $0 != nil } }
        var counted = try countedLimits(of: zip(cut, isNoted).filter { !$0.1 }.map(\.0), in: tensor, entries)[...]
        return try cut.indices.map { index in
            guard isNoted[index] else { return counted.popFirst() ?? tensor.count }
            return try limit(of: cut[index], counts: noted[index].compactMap(\.self), in: tensor, entries)
        }
    }

    /// - Parameter counts: of the equal entries, by span.
    private static func limit(
        of equal: EqualEntries, counts: [Int], in tensor: TensorPasses, _ entries: Entries
    ) throws -> Int {
        var left = equal.kept
        for (span, count) in counts.enumerated() {
            guard left < count else {
                left -= count
                continue
            }
            for index in tensor.grains(ofSpan: span) {
                let inGrain = try tensor.visit(grain: index) { grain in
                    grain.kernels.countEqual(try entries(grain, equal.stream), pattern: equal.pattern, count: grain.count)
                }
                if left < inGrain { return try limit(of: equal, inGrain: index, keeping: left, in: tensor, entries) }
                left -= inGrain
            }
            throw changed
        }
        return tensor.count
    }

    private static func countedLimits(of cut: [EqualEntries], in tensor: TensorPasses, _ entries: @escaping Entries) throws
        -> [Int]
    {
        guard !cut.isEmpty else { return [] }
        let counts = try tensor.counts(cut.count) { grain, counts in
            var current: (stream: Int, entries: UnsafePointer<Float>)?
            for (index, equal) in cut.enumerated() {
                let values = try current.flatMap { $0.stream == equal.stream ? $0.entries : nil } ?? entries(grain, equal.stream)
                current = (equal.stream, values)
                counts[index] = grain.kernels.countEqual(values, pattern: equal.pattern, count: grain.count)
            }
        }
        return try zip(cut, counts).map { equal, counts in
            var left = equal.kept
            for (index, count) in counts.enumerated() {
                if left < count { return try limit(of: equal, inGrain: index, keeping: left, in: tensor, entries) }
                left -= count
            }
            return tensor.count
        }
    }

    /// The flat index of the equal entry of grain `index` that `kept` others precede in it.
    static func limit(
        of equal: EqualEntries, inGrain index: Int, keeping kept: Int, in tensor: TensorPasses, _ entries: Entries
    ) throws -> Int {
        try tensor.visit(grain: index) { grain in
            let values = try entries(grain, equal.stream)
            var left = kept
            for position in 0..<grain.count where values[position].magnitude.bitPattern == equal.pattern {
                if left == 0 { return grain.range.lowerBound + position }
                left -= 1
            }
            return grain.range.upperBound
        }
    }
}

/// One end of a range of magnitudes: those equal to `pattern` belong to it at flat indices below `limit`.
struct MagnitudeEdge: Sendable, Hashable {
    let pattern: UInt32
    let limit: Int
}

extension OrderStatistics.NearHits {
    /// Adds what `count` finds; a list without room for all of it is given up.
    fileprivate mutating func note(room: Int, _ count: (UnsafeMutableBufferPointer<UInt16>) -> (hits: Int, zeros: Int)) {
        let left = others.map { min(FixedTree.blockElements, room - $0.count) } ?? 0
        withUnsafeTemporaryAllocation(of: UInt16.self, capacity: max(1, left)) { buffer in
            let target = UnsafeMutableBufferPointer(rebasing: buffer[..<left])
            let found = count(target)
            zeros += found.zeros
            if found.hits <= left { others?.append(contentsOf: target[..<found.hits]) } else { others = nil }
        }
    }
}
