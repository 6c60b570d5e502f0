import Operators
import TestSupport
import Testing

/// Small results of mergekit 0.1.5 in float32, to seven digits.
@Suite struct MergekitVectorTests {
    private static let base: [Float] = [0.5, -1.0, 0.25, 2.0, 1.5, -0.75, -0.125, 0.0625]
    private static let deltas: [[Float]] = [
        [0.1, -0.2, 0.3, -0.05, 0.02, 0.4, -0.15, 0.25], [-0.3, -0.1, 0.2, 0.15, 0.08, -0.35, -0.45, 0.5],
        [0.05, 0.12, -0.07, 0.22, -0.31, 0.18, 0.27, -0.09],
    ]

    struct Case: Sendable, CustomTestStringConvertible {
        let method: any MergeMethod.Type
        var models: Int
        var base: Bool
        var weights: [Double] = []
        var model: [String: ParameterValue] = [:]
        var shared: [String: ParameterValue] = [:]
        let expected: [Double]
        var testDescription: String { "\(method.name) \(shared)" }
    }

    static let cases: [Case] = [
        Case(
            method: Linear.self, models: 2, base: false, weights: [0.3, 0.7],
            expected: [0.32, -1.13, 0.48, 2.09, 1.562, -0.875, -0.485, 0.4875]),
        Case(
            method: Slerp.self, models: 1, base: true, shared: ["t": .number(0.3)],
            expected: [0.532653, -1.065306, 0.3418557, 1.994659, 1.513366, -0.6328151, -0.1709279, 0.1383344]),
        Case(
            method: NuSlerp.self, models: 2, base: false, weights: [0.3, 0.7],
            expected: [0.3235609, -1.140901, 0.4847037, 2.10967, 1.576815, -0.8823854, -0.4892412, 0.4918288]),
        Case(
            method: NuSlerp.self, models: 2, base: true, weights: [0.3, 0.7],
            expected: [0.2890918, -1.166372, 0.541572, 2.105454, 1.575456, -0.8794037, -0.5648804, 0.5855666]),
        Case(
            method: MultiSlerp.self, models: 3, base: false, weights: [0.3, 0.5, 0.7],
            expected: [0.4642777, -1.035793, 0.3451079, 2.195, 1.408244, -0.7032582, -0.1630726, 0.2262553]),
        Case(
            method: Karcher.self, models: 3, base: false,
            expected: [0.469991, -1.079785, 0.3968765, 2.155015, 1.453627, -0.6730848, -0.2229871, 0.2746775]),
        Case(
            method: ModelStock.self, models: 3, base: true,
            expected: [0.5423757, -0.9491492, 0.1285231, 1.909599, 1.559326, -0.8149761, -0.03177349, -0.123953]),
        Case(
            method: ModelStock.self, models: 3, base: true, shared: ["filter_wise": .flag(true)],
            expected: [0.5191835, -0.9769797, 0.1950073, 1.959075, 1.564916, -0.8210984, -0.02298915, -0.1415217]),
        Case(
            method: Nearswap.self, models: 1, base: true, shared: ["t": .number(0.1)],
            expected: [0.6, -1.1, 0.35, 1.95, 1.52, -0.65, -0.225, 0.1625]),
        Case(
            method: SCE.self, models: 3, base: true,
            expected: [0.2, -1.134273, 0.4842728, 2.169128, 1.19, -0.442172, -0.4721815, 0.4768179]),
        Case(
            method: SCE.self, models: 3, base: true, shared: ["select_topk": .number(0.5)],
            expected: [0.2, -1, 0.25, 2, 1.5, -0.4187463, -0.4918478, 0.4932065]),
        Case(
            method: RAM.self, models: 3, base: true, shared: ["epsilon": .number(0.1)],
            expected: [0.4, -1.06, 0.5, 2.185, 1.19, -0.6733333, -0.235, 0.4375]),
        Case(
            method: RAMPlus.self, models: 3, base: true, shared: ["epsilon": .number(0.1)],
            expected: [0.4, -1.06, 0.5, 2.185, 1.1838, -0.6733333, -0.235, 0.4375]),
        Case(
            method: TaskArithmetic.self, models: 2, base: true, weights: [0.5, 0.6], shared: ["lambda": .number(0.8)],
            expected: [0.396, -1.128, 0.466, 2.052, 1.5464, -0.758, -0.401, 0.4025]),
        Case(
            method: Ties.self, models: 3, base: true, weights: [0.5, 0.6, 0.7], model: ["density": .number(0.5)],
            expected: [0.2, -1.2, 0.55, 2.22, 1.19, -0.4783334, -0.575, 0.4488636]),
        Case(
            method: Breadcrumbs.self, models: 2, base: true, weights: [0.5, 0.6],
            model: ["density": .number(0.5), "gamma": .number(0.125)],
            expected: [0.32, -1.1, 0.52, 2, 1.5, -0.96, -0.47, 0.1875]),
    ]

    @Test(arguments: cases)
    func matches(_ example: Case) throws {
        let models = Self.deltas.prefix(example.models).map { zip(Self.base, $0).map { $0 + $1 } }
        let sources = (example.base ? [Self.base] : []) + models
        var values = (0..<example.models).map { index in
            example.model.merging(example.weights.isEmpty ? [:] : ["weight": .number(example.weights[index])]) { $1 }
        }
        if example.base { values.insert([:], at: 0) }
        let found = try Bench(sources: sources.map { TestTensor($0, shape: [2, 4]) }, base: example.base ? 0 : nil).run(
            example.method, shared: example.shared, perInput: values
        ).values
        #expect(zip(found, example.expected).allSatisfy { ($0 - $1).magnitude <= 6e-7 * max(1, $1.magnitude) }, "\(found)")
    }
}
