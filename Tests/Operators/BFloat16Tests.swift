import Core
import Foundation
import Operators
import TestSupport
import Testing

/// Merges from bfloat16 into bfloat16 are rounded once: every element is one of the two numbers that enclose the float64
/// reference, and the nearer one unless the reference lies between them to within float32's own rounding.
///
/// `Tests/Golden/bfloat16_errors.py` holds the same family against formulas in numpy and against mergekit.
@Suite struct BFloat16Tests {
    struct Case: Sendable, CustomTestStringConvertible {
        let method: any MergeMethod.Type
        let models: Int
        var hasBase = true
        var isWeighted = false
        var model: [String: ParameterValue] = [:]
        var shared: [String: ParameterValue] = [:]
        /// Share of a tensor's elements that an entry at a threshold may push to the other side.
        var allowedShare = 0.0
        let reference: @Sendable (_ base: [Double], _ models: [[Double]], _ shape: [Int]) -> [Double]
        var testDescription: String { "\(method.name) \(model) \(shared) \(hasBase ? "with base" : "")" }
    }

    /// Exact in float32, so that votes that cancel do so here as there.
    private static let weights = [0.5, 0.25, 0.75]

    /// The methods on task vectors, with nothing dropped.
    private static func whole(
        _ method: any MergeMethod.Type, normalize: Bool = false, consensus: Bool
    ) -> Case {
        Case(method: method, models: 3, isWeighted: true, model: ["density": .number(1)]) { base, models, _ in
            let deltas = models.map { Reference.difference($0, base) }
            return Reference.combine(
                base: base, before: deltas, deltas, weights: weights, normalize: normalize, rescale: false, consensus: consensus)
        }
    }

    private static func breadcrumbs(_ method: any MergeMethod.Type, density: Double, gamma: Double) -> Case {
        Case(
            method: method, models: 3, isWeighted: true, model: ["density": .number(density), "gamma": .number(gamma)]
        ) { base, models, _ in
            let deltas = models.map { Reference.difference($0, base) }
            return Reference.combine(
                base: base, before: deltas, deltas.map { Reference.breadcrumbs($0, density: density, gamma: gamma) },
                weights: weights, normalize: false, rescale: false, consensus: method == BreadcrumbsTies.self)
        }
    }

    static let cases: [Case] = [
        Case(method: Linear.self, models: 3, hasBase: false, isWeighted: true) { _, models, _ in
            Reference.linear(models, weights: weights, normalize: true)
        },
        Case(method: Slerp.self, models: 1, shared: ["t": .number(0.35)]) { base, models, _ in
            Reference.slerp(base, models[0], t: 0.35)
        },
        Case(method: NuSlerp.self, models: 2, hasBase: false, isWeighted: true) { _, models, shape in
            Reference.nuslerp(models, base: nil, weights: weights, shape: shape, cut: .flat)
        },
        Case(
            method: NuSlerp.self, models: 2, hasBase: false, isWeighted: true, shared: ["nuslerp_flatten": .flag(false)]
        ) { _, models, shape in Reference.nuslerp(models, base: nil, weights: weights, shape: shape, cut: .last) },
        Case(method: NuSlerp.self, models: 2, isWeighted: true) { base, models, shape in
            Reference.nuslerp(models, base: base, weights: weights, shape: shape, cut: .flat)
        },
        Case(method: MultiSlerp.self, models: 3, hasBase: false, isWeighted: true) { _, models, _ in
            Reference.multislerp(models, base: nil, weights: weights, normalize: true, eps: 1e-8)
        },
        Case(method: MultiSlerp.self, models: 3, isWeighted: true) { base, models, _ in
            Reference.multislerp(models, base: base, weights: weights, normalize: true, eps: 1e-8)
        },
        Case(method: Karcher.self, models: 3, hasBase: false) { _, models, _ in
            Reference.karcher(models, steps: 10, tolerance: 1e-5)
        },
        Case(method: TaskArithmetic.self, models: 3, isWeighted: true, shared: ["lambda": .number(0.8)]) { base, models, _ in
            Reference.taskArithmetic(base: base, models, weights: weights, lambda: 0.8, normalize: false)
        },
        Case(method: Ties.self, models: 3, isWeighted: true, model: ["density": .number(0.5)]) { base, models, _ in
            Reference.ties(
                base: base, models, weights: weights, densities: [0.5, 0.5, 0.5], lambda: 1, normalize: true, rescale: false)
        },
        breadcrumbs(Breadcrumbs.self, density: 0.8, gamma: 0.05),
        breadcrumbs(BreadcrumbsTies.self, density: 0.7, gamma: 0.02),
        whole(DareLinear.self, consensus: false), whole(DareTies.self, consensus: true),
        whole(DellaLinear.self, consensus: false), whole(Della.self, normalize: true, consensus: true),
        Case(method: ModelStock.self, models: 3) { base, models, shape in
            Reference.modelStock(base: base, models, shape: shape, cut: .flat)
        },
        Case(method: ModelStock.self, models: 3, shared: ["filter_wise": .flag(true)]) { base, models, shape in
            Reference.modelStock(base: base, models, shape: shape, cut: .last)
        },
        Case(method: Nearswap.self, models: 1, shared: ["t": .number(0.001)]) { base, models, _ in
            Reference.nearswap(base, models[0], t: 0.001)
        },
        // Divergences are sums in another order here than there.
        Case(method: ArceeFusion.self, models: 1, allowedShare: 0.002) { base, models, shape in
            Reference.arceeFusion(base: base, models[0], shape: shape)
        },
        Case(method: SCE.self, models: 3) { base, models, _ in Reference.sce(base: base, models, share: 1) },
        Case(method: SCE.self, models: 3, shared: ["select_topk": .number(0.5)], allowedShare: 0.002) { base, models, _ in
            Reference.sce(base: base, models, share: 0.5)
        },
        Case(method: RAM.self, models: 3) { base, models, _ in Reference.ram(base: base, models, epsilon: Double(Float(1e-5))) },
        Case(method: RAMPlus.self, models: 3) { base, models, _ in
            Reference.ram(base: base, models, epsilon: Double(Float(1e-5)), growth: 0.1, largest: 0.2)
        },
        Case(method: MetaGPT.self, models: 3, model: ["squared_norm": .number(2)]) { base, models, _ in
            Reference.taskArithmetic(base: base, models, weights: [1, 1, 1], lambda: 1, normalize: true)
        },
        Case(method: MagMax.self, models: 3, shared: ["lambda": .number(0.8)]) { base, models, _ in
            base.indices.map { index in
                let entries = models.map { $0[index] - base[index] }
                return base[index] + 0.8 * entries.reduce(0) { $1.magnitude >= $0.magnitude ? $1 : $0 }
            }
        },
        Case(method: Consensus.self, models: 3, shared: ["mask_lambda": .number(0.5)], allowedShare: 0.002) { base, models, _ in
            base.indices.map { index in
                let entries = models.map { $0[index] - base[index] }, sum = entries.reduce(0, +)
                let users = entries.count { $0.magnitude > 0.5 * (sum - $0).magnitude }
                return base[index] + (users >= 2 ? 0.3 * sum : 0)
            }
        },
        Case(
            method: SelfPositioning.self, models: 3, model: ["weight": .number(0.5)], shared: ["size": .number(2)]
        ) { base, models, _ in
            Reference.taskArithmetic(base: base, models, weights: [1, 1, 1], lambda: 2, normalize: true)
        },
        Case(method: Passthrough.self, models: 1, hasBase: false, model: ["scale": .number(0.7)]) { _, models, _ in
            models[0].map { 0.7 * $0 }
        },
    ]

    /// The methods of papers have their golden results in float32; `tall` and `emr` share theirs with stores.
    @Test func everyMethodIsThere() throws {
        let golden = "\(Repository.golden)/seed-cases"
        let named = try FileManager.default.contentsOfDirectory(atPath: golden).compactMap { name -> String? in
            let recipe = try String(contentsOfFile: "\(golden)/\(name)/recipe.yml", encoding: .utf8)
            let line = recipe.split(separator: "\n").first { $0.hasPrefix("merge_method:") }
            return line?.split(separator: " ").dropFirst().first.map(String.init)
        }
        let methods = Set(MergeMethods.all.filter { !$0.usesLinearAlgebra }.map { $0.name })
        #expect(methods.subtracting(Self.cases.map { $0.method.name }).subtracting(named) == ["tall", "emr"])
    }

    @Test(arguments: cases)
    func isRoundedOnce(_ example: Case) throws {
        let names = ["base"] + (0..<example.models).map { "tune-\($0)" }
        let family = try names.map { try TestTensor.read("\(Repository.golden)/models/bf16/\($0)") }
        #expect(family[0].count > 20)
        var own = Array(repeating: example.model, count: example.models)
        if example.isWeighted { for index in own.indices { own[index]["weight"] = .number(Self.weights[index]) } }
        for name in family[0].keys.sorted() {
            let tensors = try family.map { try #require($0[name]) }, shape = tensors[0].shape
            let found = try Bench(
                sources: example.hasBase ? tensors : Array(tensors.dropFirst()), base: example.hasBase ? 0 : nil, output: .bf16
            ).run(example.method, shared: example.shared, perInput: (example.hasBase ? [[:]] : []) + own).values
            let values = tensors.map(\.values)
            let expected = example.reference(values[0], Array(values.dropFirst()), shape)
            let misses = expected.indices.count { index in
                let largest = values.reduce(expected[index].magnitude) { max($0, $1[index].magnitude) }
                let half = max(Self.unit(found[index]), Self.unit(expected[index])) / 2
                return !((found[index] - expected[index]).magnitude <= half + 0x1p-20 * largest)
            }
            #expect(
                Double(misses) <= example.allowedShare * Double(expected.count),
                "\(name): \(misses) of \(expected.count) elements are not rounded correctly")
        }
    }

    /// The distance of neighbours in bfloat16 about a value: seven bits behind the leading one.
    private static func unit(_ value: Double) -> Double { value == 0 ? 0x1p-133 : max(0x1p-133, value.ulp * 0x1p45) }
}
