import Core
import Operators
import TestSupport
import Testing

/// The methods that mask task vectors, against their definitions.
@Suite struct MaskMethodTests {
    private static let sizes = [1, 5, 1_000, 9_001]

    private func expect(_ found: TestTensor, _ expected: [Double], _ what: String) {
        let worst = zip(found.values, expected).reduce(0) { max($0, ($1.0 - $1.1).magnitude) }
        #expect(found.values.count == expected.count && worst <= 1e-6, "\(what): \(worst)")
    }

    private func run(
        _ method: any MergeMethod.Type, _ base: [Float], _ models: [[Float]], _ shared: [String: ParameterValue] = [:],
        own: [[String: ParameterValue]]? = nil
    ) throws -> TestTensor {
        try Bench(sources: ([base] + models).map { TestTensor($0) }, base: 0).run(
            method, shared: shared, perInput: [[:]] + (own ?? models.map { _ in [:] }))
    }

    private func vectors(_ base: [Float], _ models: [[Float]]) -> [[Float]] {
        models.map { zip($0, base).map { $0 - $1 } }
    }

    private static func sum(_ vectors: [[Float]], at index: Int) -> Double { vectors.reduce(0) { $0 + Double($1[index]) } }

    // MARK: CABS

    /// The flags of each task, by the definition.
    private func flags(_ vectors: [[Float]], n: Int, m: Int, prorates: Bool) -> [[Bool]] {
        let count = vectors[0].count
        var taken = [Bool](repeating: false, count: count)
        return vectors.map { vector in
            var keep = [Bool](repeating: false, count: count)
            for start in stride(from: 0, to: count, by: m) {
                let end = min(count, start + m)
                let quota = end - start == m ? n : prorates ? (n * (end - start) + m - 1) / m : 0
                let ranked = (start..<end).filter { vector[$0] != 0 }.sorted {
                    (taken[$0] ? 1 : 0, -vector[$0].magnitude, $0) < (taken[$1] ? 1 : 0, -vector[$1].magnitude, $1)
                }
                for index in ranked.prefix(quota) { keep[index] = true }
            }
            for index in 0..<count where keep[index] { taken[index] = true }
            return keep
        }
    }

    /// Blocks that lie across tiles, tails, and tasks that have to share.
    @Test(arguments: sizes, [(4, 16), (5, 24), (1, 3), (700, 1_000), (7, 7)])
    func cabs(size: Int, block: (n: Int, m: Int)) throws {
        let (base, models) = MethodTests.family(size, models: 3), vectors = vectors(base, models)
        let weights = [1.2, -0.8, 0.6]
        for prorates in [false, true] {
            let flags = flags(vectors, n: block.n, m: block.m, prorates: prorates)
            for averages in [false, true] {
                let expected = (0..<size).map { index in
                    let claims = (0..<3).filter { flags[$0][index] }.map { weights[$0] * Double(vectors[$0][index]) }
                    let sum = claims.reduce(0, +), agreeing = claims.filter { $0 * sum > 0 }
                    let average = agreeing.isEmpty ? 0 : agreeing.reduce(0, +) / Double(agreeing.count)
                    return Double(base[index]) + (averages ? average : sum)
                }
                let found = try run(
                    CABS.self, base, models,
                    [
                        "n": .number(Double(block.n)), "m": .number(Double(block.m)),
                        "tail": .text(prorates ? "prorate" : "drop"),
                        "overlap": .text(averages ? "average" : "sum"),
                    ], own: weights.map { ["weight": .number($0)] })
                expect(found, expected, "\(block), prorates \(prorates), averages \(averages)")
            }
        }
    }

    /// Tasks that do not have to share an entry do not, so the squared norms of what they keep add up.
    @Test func cabsMasksAreDisjoint() throws {
        let (base, models) = MethodTests.family(16_384, models: 4), zero = base.map { _ in Float(0) }
        let vectors = vectors(base, models), shared: [String: ParameterValue] = ["n": .number(2), "m": .number(8)]
        var kept = 0, energy = 0.0
        for task in 0..<4 {
            let own = try run(
                CABS.self, zero, vectors, shared, own: (0..<4).map { ["weight": .number($0 == task ? 1 : 0)] }
            ).values
            kept += own.count { $0 != 0 }
            energy += own.reduce(0) { $0 + $1 * $1 }
        }
        let all = try run(CABS.self, zero, vectors, shared).values
        #expect(kept == 16_384 && all.allSatisfy { $0 != 0 })
        #expect((all.reduce(0) { $0 + $1 * $1 } / energy - 1).magnitude < 1e-9)
    }

    @Test func blocksThatCannotBeAreRefused() {
        let error = #expect(throws: TesseraError.self) {
            try run(CABS.self, [0], [[1]], ["n": .number(5), "m": .number(4)])
        }
        #expect(error?.problem == "'n' is 5 and 'm' is 4")
    }

    // MARK: Masks

    @Test(arguments: sizes, [0.2, 0.4, 1.5])
    func tall(size: Int, lambda: Double) throws {
        let (base, models) = MethodTests.family(size, models: 3), vectors = vectors(base, models)
        for task in 0..<3 {
            let found = try run(
                TallMask.self, base, models, ["task": .number(Double(task + 1)), "mask_lambda": .number(lambda)]
            ).values
            let misses = (0..<size).count { index in
                let sum = Self.sum(vectors, at: index), own = Double(vectors[task][index])
                let isKept = own.magnitude > lambda * (sum - own).magnitude
                return (found[index] - Double(base[index]) - (isKept ? sum : 0)).magnitude > 1e-6
            }
            // The comparison is made in float32.
            #expect(misses <= size / 1_000, "\(misses) of \(size)")
        }
    }

    /// One task is its own sum; a larger λ keeps a subset.
    @Test func tallReturnsALoneModelAndLargerFactorsKeepLess() throws {
        let (base, models) = MethodTests.family(5_000, models: 3)
        expect(try run(TallMask.self, base, [models[0]], ["task": .number(1)]), models[0].map(Double.init), "alone")
        var earlier = Set(0..<5_000)
        for lambda in [0, 0.2, 0.4, 0.6, 2] {
            let found = try run(TallMask.self, base, models, ["task": .number(2), "mask_lambda": .number(lambda)]).values
            let kept = Set((0..<5_000).filter { found[$0] != Double(base[$0]) })
            #expect(kept.isSubset(of: earlier) && !kept.isEmpty)
            earlier = kept
        }
    }

    @Test(arguments: sizes, ["means", "sums"])
    func emr(size: Int, rescale: String) throws {
        let (base, models) = MethodTests.family(size, models: 3), vectors = vectors(base, models)
        let own: [[String: ParameterValue]] = (0..<3).map { model in
            [
                "mean_magnitude": .number(Double(model + 1)), "mean_masked_magnitude": .number(2),
                "magnitude": .number(Double(model + 2)), "masked_magnitude": .number(4),
            ]
        }
        for task in 0..<3 {
            let factor = rescale == "means" ? Double(task + 1) / 2 : Double(task + 2) / 4
            let expected = (0..<size).map { index in
                let isPlus = Self.sum(vectors, at: index) > 0
                let agreeing = vectors.map { Double($0[index]) }.filter { isPlus ? $0 > 0 : $0 < 0 }
                let unified = agreeing.max { $0.magnitude < $1.magnitude } ?? 0
                return Double(base[index]) + (Double(vectors[task][index]) * unified > 0 ? factor * unified : 0)
            }
            let found = try run(
                EMR.self, base, models, ["task": .number(Double(task + 1)), "rescale": .text(rescale)], own: own)
            let misses = zip(found.values, expected).count { ($0 - $1).magnitude > 1e-6 }
            #expect(misses <= size / 1_000, "\(misses) of \(size)")
        }
    }

    @Test func aTaskThatIsNotThereIsRefused() {
        for method in [TallMask.self, EMR.self] as [any MergeMethod.Type] {
            let error = #expect(throws: TesseraError.self) {
                try run(
                    method, [0], [[1], [2]], ["task": .number(3)],
                    own: Array(repeating: method.testValues(1).model, count: 2))
            }
            #expect(error?.problem == "'task' is 3, and there are 2 models")
        }
    }

    // MARK: LwPTV

    @Test(arguments: sizes, [0, 0.3, 1])
    func lwptv(size: Int, density: Double) throws {
        let (base, models) = MethodTests.family(size, models: 3), vectors = vectors(base, models)
        for saliency in ["deviation", "magnitude"] {
            let kept = Int((density * Double(size)).rounded(.up))
            var expected = base.map(Double.init)
            for vector in vectors {
                let scores = (0..<size).map { index in
                    let mean = saliency == "deviation" ? Self.sum(vectors, at: index) / 3 : 0
                    return Float(Double(vector[index]) - mean).magnitude
                }
                let ranked = (0..<size).sorted { (-scores[$0], $0) < (-scores[$1], $1) }
                for index in ranked.prefix(kept) { expected[index] += 0.3 * Double(vector[index]) }
            }
            expect(
                try run(LwPTV.self, base, models, ["density": .number(density), "saliency": .text(saliency)]), expected,
                "\(saliency) \(density)")
        }
    }
}
