import Core
import Operators
import TestSupport
import Testing

/// The methods that decide entry by entry, or by order statistics, against their definitions.
@Suite(.serialized) struct EntryMethodTests {
    private static let sizes = [1, 5, 1_000, 8_193]

    private func doubles(_ values: [Float]) -> [Double] { values.map(Double.init) }

    @Test(arguments: sizes)
    func nearswap(size: Int) throws {
        let (base, tunes) = MethodTests.family(size, models: 1)
        let found = try Bench(sources: [tunes[0], base].map { TestTensor($0) }, base: 1).run(
            Nearswap.self, shared: ["t": .number(0.01)])
        MethodTests.expect(found, Reference.nearswap(doubles(base), doubles(tunes[0]), t: Double(Float(0.01))), "nearswap")
    }

    struct Crumbs: Sendable {
        var density = 0.5
        var gamma = 0.1
        var rescale = false
    }

    @Test(
        arguments: sizes,
        [
            Crumbs(), Crumbs(density: 0.9, gamma: 0.3), Crumbs(density: 0), Crumbs(density: 1, gamma: 0.5), Crumbs(gamma: 0),
            Crumbs(density: 0.3, gamma: 1), Crumbs(rescale: true), Crumbs(density: 0.0004, gamma: 0.0004),
        ])
    func breadcrumbs(size: Int, crumbs: Crumbs) throws {
        // Few distinct values: every threshold cuts through equal entries.
        for isCoarse in [false, true] {
            let (base, tunes) =
                isCoarse
                ? ([Float](repeating: 0, count: size), (0..<2).map { m in (0..<size).map { Float(($0 * 7 + m) % 5) - 2 } })
                : MethodTests.family(size, models: 2, seed: 4)
            let deltas = tunes.map { Reference.difference(doubles($0), doubles(base)) }
            let sparse = deltas.map { Reference.breadcrumbs($0, density: crumbs.density, gamma: crumbs.gamma) }
            for method in [Breadcrumbs.self, BreadcrumbsTies.self] as [any MergeMethod.Type] {
                let values: [String: ParameterValue] = [
                    "weight": .number(0.6), "density": .number(crumbs.density), "gamma": .number(crumbs.gamma),
                ]
                let found = try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0).run(
                    method, shared: ["rescale": .flag(crumbs.rescale)], perInput: [[:], values, values])
                let expected = Reference.combine(
                    base: doubles(base), before: deltas, sparse, weights: [0.6, 0.6], normalize: false, rescale: crumbs.rescale,
                    consensus: method == BreadcrumbsTies.self)
                MethodTests.expect(found, expected, "\(method.name), coarse \(isCoarse)")
            }
        }
    }

    @Test(arguments: sizes, [0, 0.001, 0.3, 0.5, 0.999, 1])
    func sce(size: Int, share: Double) throws {
        for scale in [Float(1), 0.001] {
            let (base, tunes) = MethodTests.family(size, models: 3, seed: 5)
            let scaled = tunes.map {
                zip($0, base).map { Float(bitPattern: ($1 + scale * ($0 - $1)).bitPattern & 0xffff_ff00) }
            }
            let all = [base] + scaled
            let found = try Bench(sources: all.map { TestTensor($0) }, base: 0).run(
                SCE.self, shared: ["select_topk": .number(share)])
            let expected = Reference.sce(base: doubles(base), all.dropFirst().map(doubles), share: share)
            MethodTests.expect(found, share == 0 ? doubles(base) : expected, "sce \(scale)")
        }
    }

    /// Thousands of entries vary as much as the last that is kept: the first of them stay, across tiles.
    @Test(arguments: [1, 8_192, 8_193, 19_999])
    func sceKeepsTheFirstOfEqualEntries(kept: Int) throws {
        let count = 20_000, base = [Float](repeating: 0, count: count)
        let tunes = [[Float](repeating: 1, count: count), [Float](repeating: 3, count: count)]
        let share = (Double(kept) + 0.5) / Double(count)
        let found = try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0).run(
            SCE.self, shared: ["select_topk": .number(share)])
        MethodTests.expect(found, Reference.sce(base: doubles(base), tunes.map(doubles), share: share), "sce")
        #expect(found.values.count { $0 != 0 } == kept)
    }

    @Test(arguments: sizes, [0.0, 1e-5, 0.02])
    func ram(size: Int, epsilon: Double) throws {
        let (base, tunes) = MethodTests.family(size, models: 3, seed: 6)
        let bench = Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0)
        let threshold = Double(Float(epsilon)), models = tunes.map(doubles)
        MethodTests.expect(
            try bench.run(RAM.self, shared: ["epsilon": .number(epsilon)]),
            Reference.ram(base: doubles(base), models, epsilon: threshold), "ram")
        MethodTests.expect(
            try bench.run(RAMPlus.self, shared: ["epsilon": .number(epsilon), "r": .number(0.5), "alpha": .number(1.5)]),
            Reference.ram(base: doubles(base), models, epsilon: threshold, growth: 0.5, largest: 1.5), "ramplus")
    }

    @Test(arguments: VectorMethodTests.shapes)
    func arceeFusion(shape: [Int]) throws {
        let (base, tunes) = MethodTests.family(shape.reduce(1, *), models: 1, seed: 8)
        let found = try Bench(sources: [base, tunes[0]].map { TestTensor($0, shape: shape) }, base: 0).run(ArceeFusion.self)
        let expected = Reference.arceeFusion(base: doubles(base), doubles(tunes[0]), shape: shape)
        // The divergences are float64 sums in another order; an entry on the threshold may fall on its other side.
        let misses = zip(found.values, expected).count { ($0 - $1).magnitude > 1e-6 }
        #expect(misses <= 1, "\(misses) of \(expected.count)")
    }

    // MARK: Edges

    private static let baseMethods: [any MergeMethod.Type] = MergeMethods.all.filter { $0.inputs.base == .required }

    private func values(_ method: any MergeMethod.Type) -> (shared: [String: ParameterValue], model: [String: ParameterValue]) {
        let (shared, required) = method.testValues(0.5)
        var model = required
        if method.parameters.contains(where: { $0.name == "density" && $0.scope != .shared }) { model["density"] = .number(0.5) }
        return (shared, model)
    }

    /// Every method that has a base gives it back where no model changed anything, and has an answer for tensors of any size.
    @Test(arguments: [[0], [3, 0], [0, 3], [], [1], [1, 1], [2, 3], [1, 9_000]])
    func tensorsOfAnySizeWithoutChange(shape: [Int]) throws {
        let base = TestTensor((0..<shape.reduce(1, *)).map { Float($0 % 13) / 8 }, shape: shape)
        // Some methods on whole matrices take the square of the columns, which is too much here.
        for method in Self.baseMethods where !method.usesLinearAlgebra || shape.allSatisfy({ $0 < 1_000 }) {
            let models = method.inputs.models.upperBound == 1 ? 1 : 2
            let (shared, model) = values(method)
            let found = try Bench(sources: Array(repeating: base, count: models + 1), base: 0, randomKey: 5).run(
                method, shared: shared, perInput: [[:]] + Array(repeating: model, count: models))
            #expect(found == base, "\(method.name)")
        }
    }

    /// Their numbers about the whole model must be finite.
    private static let measuring = ["metagpt", "pcb", "emr", "prism"]

    /// NaN is data like any other: it may spread, it must not stop anything but methods on whole matrices (`MatrixMethodTests`).
    @Test func notANumberStopsNothing() throws {
        let shape = [30, 500]
        let (base, tunes) = MethodTests.family(15_000, models: 2)
        var odd = tunes[0]
        for index in stride(from: 0, to: odd.count, by: 701) { odd[index] = index % 2 == 0 ? .nan : .infinity }
        for method in MergeMethods.all where !method.usesLinearAlgebra {
            let (shared, model) = values(method)
            let least = max(1, method.inputs.models.lowerBound), hasBase = method.inputs.givesBaseARole
            let all = [odd, tunes[1]].prefix(least) + (hasBase ? [base] : [])
            for sources in [Array(all), Array(all.reversed())] {
                let position = sources.firstIndex { hasBase && $0 == base }
                let bench = Bench(sources: sources.map { TestTensor($0, shape: shape) }, base: position, randomKey: 5)
                func run() throws -> TestTensor {
                    try bench.run(method, shared: shared, perInput: sources.map { _ in model })
                }
                if Self.measuring.contains(method.name) {
                    #expect(throws: TesseraError.self, "\(method.name)") { try run() }
                } else {
                    #expect(try run().values.count == 15_000)
                }
            }
        }
    }

    @Test func modelsMayBeAbsentWhereTheContractAllowsIt() throws {
        let base = TestTensor([1, -2, 3])
        for method in Self.baseMethods where method.inputs.models.lowerBound == 0 {
            #expect(try Bench(sources: [base], base: 0).run(method) == base, "\(method.name)")
        }
    }
}
