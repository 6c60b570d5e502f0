import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// The random methods: what does not depend on the draws, and what the draws add up to.
@Suite(.serialized) struct RandomMethodTests {
    private static let all: [any MergeMethod.Type] = [DareLinear.self, DareTies.self, DellaLinear.self, Della.self]

    private func run(
        _ method: any MergeMethod.Type, deltas: [Float], shape: [Int]? = nil, density: Double, epsilon: Double = 0.1,
        rescale: Bool = false, key: UInt64 = 1
    ) throws -> [Double] {
        let base = TestTensor([Float](repeating: 0, count: deltas.count), shape: shape)
        var values: [String: ParameterValue] = ["weight": .number(1), "density": .number(density)]
        if method.parameters.contains(where: { $0.name == "epsilon" }) { values["epsilon"] = .number(epsilon) }
        return try Bench(sources: [base, TestTensor(deltas, shape: shape)], base: 0, randomKey: key).run(
            method, shared: ["rescale": .flag(rescale)], perInput: [[:], values]
        ).values
    }

    @Test(arguments: [0.05, 0.5, 0.9])
    func theShareThatStaysIsTheDensity(density: Double) throws {
        let count = 100_000, deltas = (0..<count).map { Float($0 % 997 + 1) }
        for method in Self.all {
            let found = try run(method, deltas: deltas, shape: [100, 1000], density: density, epsilon: 0.04)
            let kept = found.count { $0 != 0 }
            let sigma = (Double(count) * density * (1 - density)).squareRoot()
            #expect((Double(kept) - Double(count) * density).magnitude < 5 * sigma, "\(method.name): \(kept)")
            #expect(zip(found, deltas).allSatisfy { $0 == 0 || $0 == Double($1) })
        }
    }

    @Test func rescalingKeepsTheSumOfMagnitudes() throws {
        let deltas = (0..<50_000).map { Float($0 % 101) - 50 }, sum = deltas.reduce(0) { $0 + Double($1.magnitude) }
        for method in Self.all {
            let found = try run(method, deltas: deltas, shape: [50, 1000], density: 0.3, rescale: true)
            #expect((found.reduce(0) { $0 + $1.magnitude } / sum - 1).magnitude < 1e-6)
        }
    }

    /// The mean over many seeds of what stays, divided by the density, is the task vector.
    @Test func theExpectationIsTheTaskVector() throws {
        let count = 500, rounds = 100, density = 0.4, deltas = (0..<count).map { Float($0 % 7) - 3 }
        var mean = [Double](repeating: 0, count: count)
        for key in 0..<rounds {
            let found = try run(DareLinear.self, deltas: deltas, density: density, key: UInt64(key))
            for index in 0..<count { mean[index] += found[index] / density / Double(rounds) }
        }
        let sigma = ((1 - density) / density / Double(rounds)).squareRoot()
        #expect(zip(mean, deltas).allSatisfy { ($0 - Double($1)).magnitude <= 5 * sigma * Double($1.magnitude) })
    }

    /// Probabilities run from density − epsilon for the row's smallest magnitude to density + epsilon for its largest.
    @Test(arguments: [[1_000, 10], [10_000], [20, 10, 50]])
    func dellaKeepsLargeEntriesMoreOften(shape: [Int]) throws {
        let length = shape.count > 1 ? shape[1] : shape[0], stride = shape.dropFirst(2).reduce(1, *), count = shape.reduce(1, *)
        // Magnitudes run against the index within a row.
        let rank = { (index: Int) in length - 1 - index / stride % length }
        let deltas = (0..<count).map { Float(rank($0) + 1) * (($0 % 3) == 0 ? -1 : 1) }
        let density = 0.5, epsilon = 0.4, bins = min(length, 10)
        var kept = [Double](repeating: 0, count: bins), expected = kept, variance = kept
        for key in 0..<10 {
            let found = try run(
                DellaLinear.self, deltas: deltas, shape: shape, density: density, epsilon: epsilon, key: UInt64(key))
            for index in 0..<count {
                let bin = rank(index) * bins / length
                let p = density - epsilon + 2 * epsilon * Double(rank(index)) / Double(length - 1)
                kept[bin] += found[index] == 0 ? 0 : 1
                expected[bin] += p
                variance[bin] += p * (1 - p)
            }
        }
        for bin in 0..<bins { #expect((kept[bin] - expected[bin]).magnitude < 5 * variance[bin].squareRoot(), "bin \(bin)") }
    }

    /// DELLA against its definition, with the words it draws: rows in and across tiles, full of equal magnitudes, rows of one.
    @Test(arguments: [[12, 1_000], [5, 3_001], [2, 9_001], [20_000], [5, 40, 77], [100, 1], []], ["few", "zero", "spread"])
    func dellaIsItsDefinition(shape: [Int], kind: String) throws {
        let count = shape.reduce(1, *)
        var random = SplitMix(seed: 3)
        let deltas = (0..<count).map { _ -> Float in
            switch kind {
            case "few": Float(Int.random(in: -3...3, using: &random)) / 64
            case "zero": 0
            default: Float.random(in: -1...1, using: &random) * Float.random(in: -1...1, using: &random)
            }
        }
        let density = 0.4, epsilon = 0.3
        var words = [UInt32](repeating: 0, count: count)
        CounterRandom(key: 9, stream: 1).draw(first: 0, into: &words, count: count, kernels: .portable)
        let length = shape.count > 1 ? shape[1] : shape.first ?? 1, stride = shape.dropFirst(2).reduce(1, *)
        var expected = [Double](repeating: 0, count: count)
        for group in 0..<count / (length * stride) {
            for column in 0..<stride {
                let row = (0..<length).map { group * length * stride + $0 * stride + column }
                let order = row.sorted { (deltas[$0].magnitude, $0) < (deltas[$1].magnitude, $1) }
                for (rank, index) in order.enumerated() {
                    let q = length > 1 ? Double(rank) / Double(length - 1) : 0.5
                    if Double(words[index]) < ((density - epsilon + q * 2 * epsilon) * 0x1p32).rounded(.down) {
                        expected[index] = Double(deltas[index])
                    }
                }
            }
        }
        #expect(try run(DellaLinear.self, deltas: deltas, shape: shape, density: density, epsilon: epsilon, key: 9) == expected)
    }

    @Test func densitiesAtTheEndsDrawNothing() throws {
        let deltas = (0..<1_000).map { Float($0) + 1 }
        for method in Self.all {
            #expect(try run(method, deltas: deltas, density: 0, epsilon: 0.9).allSatisfy { $0 == 0 })
            #expect(try run(method, deltas: deltas, density: 1, epsilon: 0.9) == deltas.map(Double.init))
        }
    }

    @Test func keysAndSourcesHaveDrawsOfTheirOwn() throws {
        let deltas = [Float](repeating: 1, count: 10_000)
        for method in Self.all {
            let first = try run(method, deltas: deltas, density: 0.5), again = try run(method, deltas: deltas, density: 0.5)
            #expect(first == again)
            #expect(try run(method, deltas: deltas, density: 0.5, key: 2) != first)
        }
        // Two equal models that dropped the same entries would leave a quarter less variance.
        let tensor = TestTensor(deltas), base = TestTensor([Float](repeating: 0, count: 10_000))
        let values: [String: ParameterValue] = ["weight": .number(1), "density": .number(0.5)]
        let both = try Bench(sources: [base, tensor, tensor], base: 0).run(
            DareLinear.self, shared: ["rescale": .flag(false)], perInput: [[:], values, values])
        #expect((both.values.count { $0 == 1 } - 5_000).magnitude < 5 * 50)
    }

    @Test func dellaSaysWhichEpsilonFits() {
        let error = #expect(throws: TesseraError.self) {
            try run(Della.self, deltas: [1], density: 0.9, epsilon: 0.15)
        }
        #expect(error?.problem.contains("density 0.9 with epsilon 0.15") == true)
        #expect(error?.advice?.contains("below 0.1") == true || error?.advice?.contains("below 0.09") == true)
    }
}
