import Core
import Operators
import Synchronization
import TensorKernels
import TestSupport
import Testing

/// Exact order statistics, whatever a sample of the numbers lets expect.
@Suite(.serialized) struct RankTests {
    enum Kind: CaseIterable {
        case spread, bfloat16, eightValues, oneValue, zeros, mostlyZeros, rows, extremes, subnormals, ascending
    }

    private static func values(_ kind: Kind, _ count: Int) -> [Float] {
        var random = SplitMix(seed: 21)
        func number() -> Float { Float.random(in: -1...1, using: &random) }
        func bfloat16(_ x: Float) -> Float { Float(bitPattern: x.bitPattern & 0xffff_0000) }
        return (0..<count).map { index in
            switch kind {
            case .spread: number()
            case .bfloat16:
                {
                    let base = bfloat16(number())
                    return bfloat16(base + 0.01 * number()) - base
                }()
            case .eightValues: Float(Int.random(in: -4...3, using: &random)) * 0.01237
            case .oneValue: index % 2 == 0 ? 0.3 : -0.3
            case .zeros: index % 2 == 0 ? 0 : -0
            case .mostlyZeros: Int.random(in: 0..<20, using: &random) == 0 ? number() : 0
            // Each of its own order of magnitude, and one column that is larger than all of them.
            case .rows: number() * Float([1e-6, 1e3, 1, 0.02, 40, 1e-3, 7][index / 896 % 7]) + (index % 896 == 5 ? 1e4 : 0)
            case .extremes:
                [.greatestFiniteMagnitude, -.infinity, .leastNonzeroMagnitude, 0, .leastNormalMagnitude, number()][
                    Int.random(in: 0..<6, using: &random)]
            case .subnormals: Float(bitPattern: UInt32.random(in: 0..<0x0080_0000, using: &random))
            case .ascending: Float(index)
            }
        }
    }

    private func passes(
        _ streams: [[Float]], _ kernels: Kernels = .best, _ runner: any ParallelRunner = InOrder(), memory: Int = 1 << 30
    )
        throws -> TensorPasses
    {
        let sources = try streams.map { values in
            try StoredTensor(Memory(bytes: TestTensor(values).bytes), offset: 0, dtype: .f32, count: values.count)
        }
        return TensorPasses(
            shape: [streams[0].count], sources: sources, inputs: TensorInputs(count: sources.count),
            kernels: kernels, runner: runner, memory: MemoryBudget(bytes: memory), sinks: [])
    }

    /// Holds what was found against the definition, tile by tile, and where equal ones end.
    private func expect(
        _ found: OrderStatistics.Found, isRank rank: Int, of values: [Float], in tensor: TensorPasses,
        _ entries: OrderStatistics.Entries, _ comment: String
    ) throws {
        let patterns = values.map { $0.bitPattern & 0x7fff_ffff }, pattern = found.pattern
        let above = patterns.count { $0 > pattern }
        let tiles = stride(from: 0, to: patterns.count, by: 8_192).map { start in
            patterns[start..<min(patterns.count, start + 8_192)].count { $0 == pattern }
        }
        #expect(found.rank == rank && found.above == above && found.equalByTile == tiles, "\(comment), rank \(rank)")
        #expect(above < rank && rank <= above + tiles.reduce(0, +), "\(comment), rank \(rank)")
        let equal = OrderStatistics.EqualEntries(stream: 0, to: found, kept: rank - above)
        let limit = try OrderStatistics.limit(of: equal, in: tensor, entries)
        #expect(patterns[..<limit].count { $0 == pattern } == rank - above, "\(comment), rank \(rank)")
    }

    private static let entries: OrderStatistics.Entries = { tile, stream in UnsafePointer(try tile.source(stream)) }

    @Test(arguments: Kind.allCases, [1, 2, 64, 8_193, 16_384, 16_385, 200_001])
    func elementsAreWhatSortingFinds(kind: Kind, count: Int) throws {
        let values = Self.values(kind, count)
        let ranks = Set([1, 2, count / 1_000, count / 3, count / 2, count - 1, count].filter { (1...count).contains($0) })
            .sorted()
        let sorted = values.map { $0.bitPattern & 0x7fff_ffff }.sorted(by: >)
        for (kernels, runner, memory) in [
            (Kernels.portable, InOrder() as any ParallelRunner, 1 << 30), (.best, AtOnce(), 1 << 30), (.best, AtOnce(), 0),
        ] {
            let tensor = try passes([values], kernels, runner, memory: memory)
            let found = try OrderStatistics.find(ranks.map { .init(stream: 0, rank: $0) }, in: tensor, Self.entries)
            for (rank, found) in zip(ranks, found) {
                #expect(found.pattern == sorted[rank - 1])
                try expect(found, isRank: rank, of: values, in: tensor, Self.entries, "\(kind), \(count)")
            }
        }
    }

    @Test(arguments: Kind.allCases, [1, 16_384, 200_000])
    func sharesOfWhatIsNotZero(kind: Kind, count: Int) throws {
        let values = Self.values(kind, count), nonzero = values.count { $0 != 0 }
        for share: Float in [0, 1e-9, 0.001, 0.5, 0.999, 1] {
            let tensor = try passes([values], .best, AtOnce())
            let found = try OrderStatistics.find([.init(stream: 0, rank: .share(share))], in: tensor, Self.entries)
            let kept = min(nonzero, Int(Float(nonzero) * share))
            #expect(found.map(\.rank) == [kept], "\(kind), \(share)")
            guard kept > 0 else { continue }
            try expect(found[0], isRank: kept, of: values, in: tensor, Self.entries, "\(kind), \(share)")
        }
    }

    /// Several elements of several streams at once; small and many spans.
    @Test func queriesOfSeveralStreams() throws {
        let count = 1_100_000, streams = [Kind.bfloat16, .eightValues, .rows].map { Self.values($0, count) }
        let queries = [(2, 5), (0, 500_000), (1, 500_000), (0, 110_000), (2, 950_000)].map {
            OrderStatistics.Query(stream: $0, rank: $1)
        }
        let tensor = try passes(streams, .best, AtOnce())
        #expect(tensor.spanCount == 2)
        for (query, found) in zip(queries, try OrderStatistics.find(queries, in: tensor, Self.entries)) {
            guard case .number(let rank) = query.rank else { continue }
            let own: OrderStatistics.Entries = { tile, _ in UnsafePointer(try tile.source(query.stream)) }
            try expect(found, isRank: rank, of: streams[query.stream], in: tensor, own, "stream \(query.stream)")
        }
    }

    // MARK: How much is read

    /// What `find` asks for.
    private final class Asked: Sendable {
        let ranges = Mutex<[Range<Int>]>([])

        var entries: OrderStatistics.Entries {
            { tile, stream in
                self.ranges.withLock { $0.append(tile.range) }
                return UnsafePointer(try tile.source(stream))
            }
        }

        /// Elements, of so many passes over a tensor.
        func passes(of count: Int) -> Double { ranges.withLock { Double($0.reduce(0) { $0 + $1.count }) / Double(count) } }
    }

    /// The ranges of a sample are shorter than a tile.
    private func sampled(_ count: Int) throws -> [Range<Int>] {
        let asked = Asked()
        _ = try OrderStatistics.find(
            [.init(stream: 0, rank: 1)], in: passes([Array(repeating: 0, count: count)]), asked.entries)
        return asked.ranges.withLock { $0.filter { $0.count < 8_192 } }
    }

    @Test(arguments: Kind.allCases, [0.0001, 0.5])
    func onePassAndASample(kind: Kind, share: Double) throws {
        let count = 64 * 8_192, asked = Asked()
        _ = try OrderStatistics.find(
            [.init(stream: 0, rank: Int(share * Double(count)))], in: passes([Self.values(kind, count)]), asked.entries)
        #expect(asked.passes(of: count) < 1.04)
    }

    @Test func samplesLieAllOver() throws {
        let count = 320 * 8_192, ranges = try sampled(count)
        #expect(ranges.reduce(0) { $0 + $1.count } == 1 << 14)
        #expect(Set(ranges).count == ranges.count && ranges.allSatisfy { $0.lowerBound / 8_192 == ($0.upperBound - 1) / 8_192 })
        #expect(Set(ranges.map { $0.lowerBound * 32 / count }).count == 32)
        // Not always the same columns of a matrix.
        #expect(Set(ranges.map { $0.lowerBound % 896 }).count == 14)
    }

    /// What was sampled is zero and nothing else is, or the other way round.
    @Test(arguments: [true, false])
    func misleadingSamples(isZero: Bool) throws {
        let count = 40 * 8_192, other = Self.values(.spread, count).map { $0 == 0 ? 1 : $0 }
        var values = isZero ? other : Array(repeating: 0, count: count)
        for range in try sampled(count) {
            for index in range { values[index] = isZero ? 0 : other[index] }
        }
        for rank in [OrderStatistics.Rank.number(count / 2), .share(0.4)] {
            let tensor = try passes([values], .best, AtOnce()), asked = Asked()
            let found = try OrderStatistics.find([.init(stream: 0, rank: rank)], in: tensor, asked.entries)
            let number = rank.number(of: count, zeros: values.count { $0 == 0 })
            try expect(found[0], isRank: number, of: values, in: tensor, Self.entries, "misled")
            #expect((asked.passes(of: count) > 4) == (rank == .number(count / 2)))
        }
    }

    /// All that was sampled is equal: the elements below it are not taken for more of them.
    @Test func oneValueInAllOfTheSample() throws {
        let count = 40 * 8_192
        var values = (0..<count).map { Float($0 % 1_000) / 4_000 }
        for range in try sampled(count) {
            for index in range { values[index] = index % 2 == 0 ? 0.5 : -0.5 }
        }
        let tensor = try passes([values])
        for rank in [1 << 14, (1 << 14) + 1, 20_000, 1 << 15, count] {
            let found = try OrderStatistics.find([.init(stream: 0, rank: rank)], in: tensor, Self.entries)
            try expect(found[0], isRank: rank, of: values, in: tensor, Self.entries, "one value")
        }
    }

    /// A window in which nearly all lie, although few of the sample do: there is no memory to note them.
    @Test func moreThanCanBeNoted() throws {
        let count = 5_000_000, ranges = try sampled(count)
        var random = SplitMix(seed: 8)
        var values = (0..<count).map { _ in 0.5 + Float.random(in: 0..<0.001, using: &random) }
        for range in ranges {
            for index in range { values[index] = Float(bitPattern: UInt32.random(in: 0...Float(1).bitPattern, using: &random)) }
        }
        for range in ranges { for index in range where index % 2 == 0 { values[index] = index % 4 == 0 ? 0.4999 : 0.502 } }
        let tensor = try passes([values], .best, AtOnce()), asked = Asked()
        let rank = count / 4
        let found = try OrderStatistics.find([.init(stream: 0, rank: rank)], in: tensor, asked.entries)
        #expect(found[0].pattern > Float(0.5).bitPattern && found[0].pattern < Float(0.501).bitPattern)
        try expect(found[0], isRank: rank, of: values, in: tensor, Self.entries, "overflow")
        #expect(asked.passes(of: count) > 4)
    }
}
