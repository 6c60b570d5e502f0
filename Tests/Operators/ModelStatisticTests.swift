import Core
import Foundation
import Operators
import TensorKernels
import TestSupport
import Testing

/// Numbers about whole models: how they are folded, and the methods that depend on them, against their definitions.
@Suite struct ModelStatisticTests {
    // MARK: Folding

    private static func parts(
        _ rank: @escaping ModelStatistic.Rank, second: ModelStatistic.Rank? = nil
    ) -> [ModelFold.Part] {
        [("a", [2, 2], rank), ("b", [3], second ?? rank)].map { name, shape, rank in
            ModelFold.Part(
                name: name, shape: shape, models: [4, 7], base: 0,
                statistics: [
                    ModelStatistic("x", .magnitude(rank)), ModelStatistic("sum", .sum), ModelStatistic("most", .greatest),
                ])
        }
    }

    private static func counts(_ bins: [UInt32: Int]) -> [MagnitudeCounts] {
        [
            MagnitudeCounts([]),
            MagnitudeCounts(bins.sorted { $0.key < $1.key }.map { MagnitudeCount(bin: $0.key, count: $0.value) }),
        ]
    }

    /// Magnitudes 1, 2, 2 and 2 in the first tensor, 1.5 three times in the second.
    private static let first = [
        "a": MergeStatistics(["sum": [0, 1], "most": [0, -3]], counts: ["x": counts([0x3f80: 1, 0x4000: 3])]),
        "b": MergeStatistics(["sum": [0, 2], "most": [0, -2]], counts: ["x": counts([0x3fc0: 3])]),
    ]

    @Test(arguments: [(1, 2), (3, 2), (4, 1.5), (6, 1.5), (7, 1), (-3, 2), (99, 1)] as [(Int, Double)])
    func magnitudesOfARankAreFoundOverAllTensors(rank: Int, expected: Double) throws {
        let parts = Self.parts { source, count in source == 1 && count == 7 ? rank : 0 }
        var fold = ModelFold(round: 2, parts)
        #expect(
            fold.stage(of: parts[0]) == ModelStage(round: 2, width: 15, prefixes: ["x": [nil, 0]]))
        try fold.fold { Self.first[$0] }
        let bin: UInt32 = expected == 2 ? 0x4000 : expected == 1 ? 0x3f80 : 0x3fc0
        #expect(
            fold.stage(of: parts[1]) == ModelStage(round: 2, known: 15, width: 16, prefixes: ["x": [nil, bin]]))
        try fold.fold { name in
            let count = Self.first[name]?.counts["x"]?[1].entries.first { $0.bin == bin }?.count
            return MergeStatistics([:], counts: ["x": Self.counts(count.map { [0: $0] } ?? [:])])
        }
        #expect(fold.stage(of: parts[0]) == nil)
        let found: [[String: ParameterValue]] = [
            ["sum": .number(0), "most": .number(0)], ["x": .number(expected), "sum": .number(3), "most": .number(-2)],
        ]
        for part in parts {
            #expect(fold.values(of: part).map { $0.filter { $0.value != .number(0) || $0.key != "x" } } == found)
        }
    }

    /// Each layer of a stack has numbers of its own, and every tensor gets those of all layers of its stack, in their order.
    @Test func statisticsOfLayersAreFoundLayerByLayer() throws {
        func part(_ name: String, _ stack: String, _ index: Int) -> ModelFold.Part {
            ModelFold.Part(
                name: name, shape: [2], models: [4, 7], base: 0, layer: ModelFold.Layer(stack: ExactText(stack), index: index),
                statistics: [
                    ModelStatistic("sum", .sum, over: .layers), ModelStatistic("x", .magnitude { _, _ in 2 }, over: .layers),
                    ModelStatistic("all", .sum),
                ])
        }
        let parts = [part("d", "a", 10), part("b", "a", 2), part("c", "a", 2), part("e", "b", 0)]
        var fold = ModelFold(round: 0, parts)
        // Of two magnitudes with the same high bits, the second largest has the lower bits 3; alone, the only one has 5.
        let low: [String: [UInt32]] = ["d": [3, 5], "b": [9], "c": [3], "e": [5]]
        try fold.fold { name in
            let count = low[name]?.count ?? 0
            return MergeStatistics(
                ["sum": [0, name == "d" ? 1 : 2], "all": [1, 0]], counts: ["x": Self.counts([0x3f80: count])])
        }
        try fold.fold { name in
            MergeStatistics([:], counts: ["x": Self.counts(Dictionary(uniqueKeysWithValues: (low[name] ?? []).map { ($0, 1) }))])
        }
        let one = 0x3f80_0000 as UInt32
        func number(_ bits: UInt32) -> Double { Double(Float(bitPattern: one | bits)) }
        for (index, part) in parts.enumerated() {
            let own = fold.values(of: part)[1], isFirst = part.name != "e"
            #expect(own["sum"] == .numbers(isFirst ? [4, 1] : [2]))
            #expect(own["x"] == .numbers(isFirst ? [number(3), number(3)] : [number(5)]))
            #expect(fold.values(of: part)[0]["all"] == .number(4))
            #expect(fold.place(of: part) == [1, 0, 0, 0][index])
        }
    }

    /// What a worker says is bounded before it is added up.
    @Test(arguments: [
        MergeStatistics(["sum": [0, 1], "most": [0, 1]], counts: ["x": counts([1: 4])]),
        MergeStatistics(["sum": [0, 1], "most": [0, 1]], counts: ["x": counts([1: 1, 2: .max])]),
        MergeStatistics(["sum": [0, -1], "most": [0, 1]], counts: ["x": counts([1: 1])]),
        MergeStatistics(["sum": [0, 1], "most": [0, .nan]], counts: ["x": counts([1: 1])]),
        MergeStatistics(["sum": [1], "most": [0, 1]], counts: ["x": counts([1: 1])]),
        MergeStatistics(["sum": [0, 1], "most": [0, 1]]), MergeStatistics([:]),
    ])
    func impossibleResultsAreRefused(found: MergeStatistics) {
        for found in [found, nil] {
            var fold = ModelFold(round: 0, Self.parts { _, _ in 1 })
            let error = #expect(throws: TesseraError.self) { try fold.fold { $0 == "b" ? found : Self.first[$0] } }
            #expect(error?.code == .internal && error?.tensor == "b")
        }
    }

    @Test func inputsThatChangeBetweenStagesAreNoticed() throws {
        var fold = ModelFold(round: 0, Self.parts { _, _ in 1 })
        try fold.fold { Self.first[$0] }
        let error = #expect(throws: TesseraError.self) {
            try fold.fold { _ in MergeStatistics([:], counts: ["x": Self.counts([0: 1])]) }
        }
        #expect(error?.code == .badData && error?.problem.contains("changed") == true)
    }

    @Test func tensorsMustAskForTheSameShare() {
        var fold = ModelFold(round: 0, Self.parts({ _, _ in 1 }, second: { _, _ in 2 }))
        let error = #expect(throws: TesseraError.self) { try fold.fold { Self.first[$0] } }
        #expect(error?.code == .badData && error?.tensor == "b")
    }

    @Test func magnitudesThatAreNotFiniteAreRefused() throws {
        var fold = ModelFold(round: 0, Self.parts { _, _ in 1 })
        try fold.fold {
            $0 == "a"
                ? Self.first[$0] : MergeStatistics(["sum": [0, 0], "most": [0, 0]], counts: ["x": Self.counts([0x7f80: 1])])
        }
        let error = #expect(throws: TesseraError.self) {
            try fold.fold { MergeStatistics([:], counts: ["x": Self.counts($0 == "b" ? [0: 1] : [:])]) }
        }
        #expect(error?.code == .badData)
    }

    @Test(arguments: ["[0]", "[-1,2]", "[65536,1]", "[65535,1,0,1]", "[0,-1]", "[9223372036854775807,1]"])
    func histogramsOfPeersAreBounded(text: String) {
        #expect(throws: (any Error).self) { try CountsText.counts(text) }
    }

    @Test func histogramsAreReadAsTheyWereWritten() throws {
        let bins: [(UInt32, Int)] = [(0, 3), (1, 1), (65_535, 1 << 40)]
        let counts = MagnitudeCounts(bins.map { MagnitudeCount(bin: $0, count: $1) })
        #expect(try CountsText.text(counts) == "[0,3,0,1,65533,1099511627776]")
        #expect(try CountsText.counts(CountsText.text(counts)) == counts)
    }

    // MARK: Methods

    private func doubles(_ values: [Float]) -> [Double] { values.map(Double.init) }

    /// The number of models decides how many stages find the threshold.
    @Test(arguments: [1, 2, 6, 7, 12, 13, 40])
    func tiesOfTheWholeModel(models: Int) throws {
        let (base, tunes) = MethodTests.family(2_000, models: models, seed: 3)
        let weights = (0..<models).map { 0.25 + 0.125 * Double($0 % 5) }
        let densities = (0..<models).map { $0 == 0 ? 0.2 : [0.5, 1, 0, 0.013][$0 % 4] }
        for (normalize, rescale) in [(true, false), (false, true)] {
            let found = try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0, runner: AtOnce()).run(
                Ties.self,
                shared: [
                    "trim": .text("model"), "normalize": .flag(normalize), "rescale": .flag(rescale), "lambda": .number(0.5),
                ],
                perInput: [[:]] + zip(weights, densities).map { ["weight": .number($0), "density": .number($1)] })
            let expected = Reference.modelTies(
                base: doubles(base), tunes.map(doubles), weights: weights, densities: densities, lambda: 0.5,
                normalize: normalize, rescale: rescale)
            MethodTests.expect(found, expected, "ties of \(models)")
        }
    }

    /// `consensus` and `tall` with what TIES makes of the task vectors in place of their sum.
    @Test(arguments: [1, 2, 3])
    func masksOfTies(models: Int) throws {
        let (base, tunes) = MethodTests.family(2_000, models: models, seed: 5), ones = tunes.map { _ in 1.0 }
        let zero = base.map { _ in 0.0 }, vectors = tunes.map { zip($0, base).map { Double($0 - $1) } }
        let update = Reference.modelTies(
            base: zero, vectors, weights: ones, densities: ones.map { _ in 0.2 }, lambda: 1, normalize: false, rescale: false)
        let masks = vectors.map { zip($0, update).map { $0.magnitude > 0.4 * ($1 - $0).magnitude } }
        func found(_ method: any MergeMethod.Type, _ shared: [String: ParameterValue]) throws -> TestTensor {
            try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0, runner: AtOnce()).run(
                method, shared: shared.merging(["of": .text("ties")]) { $1 })
        }
        for agreement in 0...models {
            let expected = base.indices.map { index in
                Double(base[index]) + (masks.count { $0[index] } >= agreement ? 0.3 * update[index] : 0)
            }
            MethodTests.expect(
                try found(Consensus.self, ["agreement": .number(Double(agreement))]), expected, "consensus of \(agreement)")
        }
        for task in 0..<models {
            let expected = base.indices.map { Double(base[$0]) + (masks[task][$0] ? update[$0] : 0) }
            MethodTests.expect(try found(TallMask.self, ["task": .number(Double(task + 1))]), expected, "tall, \(task)")
        }
    }

    /// Where two entries cancel, the sign of most other entries counts; in a tensor alone that is always plus.
    @Test(arguments: [1, -1] as [Float])
    func anEntryThatCancelsFollowsTheModel(sign: Float) throws {
        let tunes: [[Float]] = [[1, 2, 3, -4, 4], [1, 2, 3, 4, 4]].map { $0.map { $0 * sign } }
        let base = [Float](repeating: 0, count: 5), own: [String: ParameterValue] = ["weight": .number(1), "density": .number(1)]
        func merged(_ trim: String) throws -> [Double] {
            try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0).run(
                Ties.self, shared: ["trim": .text(trim)], perInput: [[:], own, own]
            ).values
        }
        #expect(try merged("model") == [1, 2, 3, 4, 4].map { $0 * Double(sign) })
        #expect(try merged("tensor")[3] == 4)
    }

    @Test(arguments: [1, 2, 5], [0, 0.1, 0.6, 1])
    func competitionBalancing(models: Int, density: Double) throws {
        let (base, tunes) = MethodTests.family(3_000, models: models, seed: 9)
        // So far apart that scores do not all look alike.
        let moved = tunes.map { tune in zip(tune, base).map { $1 + 30 * ($0 - $1) } }
        let found = try Bench(sources: ([base] + moved).map { TestTensor($0) }, base: 0, runner: AtOnce()).run(
            PCB.self, shared: ["density": .number(density), "lambda": .number(0.8)])
        let expected = Reference.competitionBalancing(
            base: doubles(base), moved.map(doubles), density: density, lambda: 0.8)
        // An entry whose weights are all but zero has the quotient of two rounding errors.
        let misses = zip(found.values, expected).count { ($0 - $1).magnitude > 1e-5 * max(1, $1.magnitude) }
        #expect(misses <= 3, "\(misses) of \(expected.count)")
        #expect((found.values != doubles(base)) == (density > 0))
    }
}

/// JSON of one value.
private enum CountsText {
    static func counts(_ text: String) throws -> MagnitudeCounts {
        try JSONDecoder().decode(MagnitudeCounts.self, from: Data(text.utf8))
    }

    static func text(_ counts: MagnitudeCounts) throws -> String {
        String(decoding: try JSONEncoder().encode(counts), as: UTF8.self)
    }
}
