import Core
import Operators
import TestSupport
import Testing

/// The methods on directions and angles against their definitions.
@Suite(.serialized) struct VectorMethodTests {
    /// Rows shorter and longer than a tile, that do and do not divide it; one row, one column, no dimension at all.
    static let shapes: [[Int]] = [
        [], [1], [5], [8_193], [1, 7], [7, 1], [150, 64], [2, 9_000], [1, 17_000], [3_000, 3], [5, 7, 300],
    ]

    /// Unlike fine-tunes, these point in different directions, so that arcs are arcs.
    static func spread(_ shape: [Int], models: Int) -> [[Float]] {
        var random = SplitMix(seed: 7)
        return (0..<models).map { _ in (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) } }
    }

    private func run(
        _ method: any MergeMethod.Type, _ sources: [[Float]], shape: [Int], base: Int? = nil,
        shared: [String: ParameterValue] = [:], weights: [Double] = []
    ) throws -> TestTensor {
        try Bench(sources: sources.map { TestTensor($0, shape: shape) }, base: base).run(
            method, shared: shared, perInput: weights.map { ["weight": .number($0)] })
    }

    private func doubles(_ values: [[Float]]) -> [[Double]] { values.map { $0.map(Double.init) } }

    @Test(arguments: shapes, [0, 0.3, 1, 1.5])
    func slerp(shape: [Int], t: Double) throws {
        let far = Self.spread(shape, models: 2)
        let near = [far[0], zip(far[0], far[1]).map { $0 + 0.01 * $1 }]
        for sources in [far, near] {
            let found = try run(Slerp.self, sources, shape: shape, base: 0, shared: ["t": .number(t)])
            let x = doubles(sources)
            MethodTests.expect(found, Reference.slerp(x[0], x[1], t: t), "slerp")
        }
    }

    @Test(arguments: shapes, [Reference.Cut.flat, .last, .first])
    func nuslerp(shape: [Int], cut: Reference.Cut) throws {
        let sources = Self.spread(shape, models: 3), x = doubles(sources)
        let shared: [String: ParameterValue] = ["nuslerp_flatten": .flag(cut == .flat), "nuslerp_row_wise": .flag(cut == .first)]
        let plain = try run(NuSlerp.self, Array(sources[..<2]), shape: shape, shared: shared, weights: [0.3, 0.7])
        let expected = Reference.nuslerp(Array(x[..<2]), base: nil, weights: [0.3, 0.7], shape: shape, cut: cut)
        // Two numbers are colinear; where they point against each other the formula divides by about zero.
        let isDefined = expected.allSatisfy { $0.magnitude < 1e3 }
        if isDefined { MethodTests.expect(plain, expected, "nuslerp") }
        let based = try run(NuSlerp.self, sources, shape: shape, base: 1, shared: shared, weights: [0.3, 9, 0.7])
        let withBase = Reference.nuslerp([x[0], x[2]], base: x[1], weights: [0.3, 0.7], shape: shape, cut: cut)
        if withBase.allSatisfy({ $0.magnitude < 1e3 }) { MethodTests.expect(based, withBase, "nuslerp with a base") }
    }

    @Test(arguments: shapes, [true, false])
    func multislerp(shape: [Int], normalize: Bool) throws {
        let sources = Self.spread(shape, models: 4), x = doubles(sources), weights = [0.3, 0.5, 0.7]
        let shared: [String: ParameterValue] = ["normalize_weights": .flag(normalize), "eps": .number(1e-3)]
        let plain = try run(MultiSlerp.self, Array(sources[..<3]), shape: shape, shared: shared, weights: weights)
        MethodTests.expect(
            plain, Reference.multislerp(Array(x[..<3]), base: nil, weights: weights, normalize: normalize, eps: 1e-3), "plain")
        let based = try run(MultiSlerp.self, sources, shape: shape, base: 3, shared: shared, weights: weights)
        MethodTests.expect(
            based, Reference.multislerp(Array(x[..<3]), base: x[3], weights: weights, normalize: normalize, eps: 1e-3), "based")
    }

    @Test(arguments: shapes, [0, 1, 10])
    func karcher(shape: [Int], steps: Int) throws {
        let sources = Self.spread(shape, models: 3)
        let found = try run(Karcher.self, sources, shape: shape, shared: ["max_iter": .number(Double(steps))])
        if shape.reduce(1, *) > 1 {
            MethodTests.expect(found, Reference.karcher(doubles(sources), steps: steps, tolerance: 1e-5), "karcher")
        }
        let alone = try run(Karcher.self, [sources[0]], shape: shape)
        #expect(alone == TestTensor(sources[0], shape: shape))
    }

    @Test(arguments: shapes, [Reference.Cut.flat, .last])
    func modelStock(shape: [Int], cut: Reference.Cut) throws {
        let count = shape.reduce(1, *), (base, tunes) = MethodTests.family(count, models: 3, seed: 3)
        // A common direction, or else every cosine is about zero.
        let drift = Self.spread(shape, models: 1)[0].map { Float(bitPattern: ($0 * 0.05).bitPattern & 0xffff_0000) }
        let sources = [base] + tunes.map { zip($0, drift).map { $0 + $1 } }
        let found = try run(ModelStock.self, sources, shape: shape, base: 0, shared: ["filter_wise": .flag(cut == .last)])
        let x = doubles(sources)
        let expected = Reference.modelStock(base: x[0], Array(x[1...]), shape: shape, cut: cut)
        // Vectors of one number have cosines of 1 and -1, which may add up to the pole of t.
        if expected.allSatisfy({ $0.magnitude < 10 }) { MethodTests.expect(found, expected, "model stock") }
    }

    // MARK: Edges

    @Test func noChangeAtAllIsTheBase() throws {
        let base = Self.spread([40, 30], models: 1)[0], same = [base, base, base, base]
        for flag in [true, false] {
            let stock = try run(ModelStock.self, same, shape: [40, 30], base: 0, shared: ["filter_wise": .flag(flag)])
            #expect(stock.values == base.map(Double.init))
            let nu = try run(
                NuSlerp.self, [base, base, base], shape: [40, 30], base: 0, shared: ["nuslerp_flatten": .flag(flag)],
                weights: [1, 1, 1])
            #expect(nu.values == base.map(Double.init))
        }
        #expect(try run(MultiSlerp.self, same, shape: [40, 30], base: 0, weights: [1, 1, 1, 1]).values == base.map(Double.init))
    }

    @Test func oppositeDirectionsHaveNoMean() throws {
        let x = Self.spread([50], models: 1)[0], opposite = x.map { -$0 }
        let pair = try run(MultiSlerp.self, [x, opposite], shape: [50], weights: [0.5, 0.5])
        #expect(pair.values.allSatisfy { $0 == 0 })
        let zero = [Float](repeating: 0, count: 50)
        let error = #expect(throws: TesseraError.self) {
            try run(MultiSlerp.self, [x, opposite, zero], shape: [50], weights: [0.4, 0.4, 0.2])
        }
        #expect(error?.advice != nil)
        #expect(throws: TesseraError.self) { try run(MultiSlerp.self, [x, x], shape: [50], weights: [1, -1]) }
        #expect(try run(Karcher.self, [x, opposite], shape: [50]).values.allSatisfy(\.isFinite))
        #expect(try run(Karcher.self, [zero, zero], shape: [50]).values.allSatisfy { $0 == 0 })
    }
}
