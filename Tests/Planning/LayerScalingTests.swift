import Checkpoints
import Core
import Operators
import Planning
import TestSupport
import Testing
import Work

/// LiNeS, `lines: {alpha, beta}`, and what a sweep's plan has in common.
@Suite struct LayerScalingTests {
    private let family = MemoryFamily()

    init() {
        for (model, value) in [("base", Float(0)), ("a", 1), ("b", 2)] {
            family.write(model, MemoryFamily.tensors(value, layers: 3))
        }
    }

    private func plan(_ method: String, _ parameters: String, strict: Bool = true) throws -> Plan {
        var request = family.request(
            "merge_method: \(method)\nbase_model: base\nmodels:\n- model: a\n- model: b\nparameters: {\(parameters)}\n")
        request.strict = strict
        return try Planner.plan(request)
    }

    private func scales(_ plan: Plan, _ name: String) -> [String: ParameterValue?] {
        Dictionary(uniqueKeysWithValues: plan.tensors.map { ($0.name, $0.values.shared[name]) })
    }

    @Test(arguments: [
        ("ties", "weight: 1", "lambda", 1.0), ("tsv", "lambda: 2", "lambda", 2), ("magmax", "lambda: 0.5", "lambda", 0.5),
        ("svc", "lambda: 3", "lambda", 3), ("self_positioning", "weight: 1, size: 4", "size", 4),
    ])
    func theScaleGrowsWithDepth(method: String, parameters: String, name: String, scale: Double) throws {
        let found = scales(try plan(method, "\(parameters), lines: {alpha: 0.25, beta: 0.5}"), name)
        #expect(found["model.embed_tokens.weight"] == .number(0.25 * scale))
        #expect(found["model.norm.weight"] == .number(0.25 * scale))
        for layer in 0..<3 {
            #expect(found["model.layers.\(layer).mlp.weight"] == .number((0.25 + 0.25 * Double(layer)) * scale))
        }
    }

    /// The factors are parameters like others: with filters, gradients and sweeps.
    @Test func factorsMayBeFilteredAndSwept() throws {
        let plan = try plan(
            "ties", "weight: 1, lines: {alpha: [{filter: norm, value: 4}, {value: 1}], beta: {sweep: [0, 2]}}")
        let found = scales(plan, "lambda")
        #expect(found["model.norm.weight"] == .numbers([4, 4]))
        #expect(found["model.layers.2.mlp.weight"] == .numbers([1, 3]))
        #expect(plan.swept.map(\.folder) == ["lines.beta=0", "lines.beta=2"])
    }

    @Test(arguments: [
        ("ties", "weight: 1, lines: {alpha: 1}", "only one of 'alpha' and 'beta'"),
        ("ties", "weight: 1, lines: {beta: 1}", "only one of 'alpha' and 'beta'"),
        ("ties", "weight: 1, lines: {alpha: x, beta: 1}", "'lines.alpha' is 'x'; it must be a number"),
        ("ties", "weight: 1, lines: {alpha: 1, beta: 1, gamma: 1}", "no parameter 'lines.gamma'"),
        ("svc", "lines: {alpha: 1, beta: 1}", "multiplies 'lambda', which has no single default in the method 'svc'"),
        ("sce", "lines: {alpha: 1, beta: 1}", "the method 'sce' has no parameter 'lines.alpha'"),
    ])
    func otherFactorsAreRefused(method: String, parameters: String, complaint: String) {
        #expect {
            _ = try plan(method, parameters)
        } throws: { error in
            (error as? Problems)?.all.contains { $0.problem.contains(complaint) && $0.line == 6 } ?? false
        }
    }

    // MARK: Sweeps

    @Test func pointsThatDifferInTheScaleAreOneMerge() throws {
        let plan = try plan("ties", "weight: 1, density: {sweep: [0.5, 1]}, lambda: {sweep: [1, 2, 3]}")
        let single = try self.plan("ties", "weight: 1, density: 0.5, lambda: 1")
        #expect(plan.swept.count == 6)
        #expect(plan.layout.parts.map(\.fileName) == plan.swept.map { "\($0.folder)/model.safetensors" })
        #expect(plan.layout.parts.allSatisfy { $0.header == single.layout.parts[0].header })
        #expect(plan.tensors.count == 2 * single.tensors.count)
        for tensor in plan.tensors {
            #expect(tensor.values.shared["lambda"] == .numbers([1, 2, 3]))
            let parts = tensor.outputs.map(\.part)
            #expect(parts == (tensor.values.perInput[0]["density"] == .number(0.5) ? [0, 1, 2] : [3, 4, 5]))
        }
        // Every byte of every checkpoint is written once.
        for part in plan.layout.parts.indices {
            let outputs = plan.tensors.flatMap(\.outputs).filter { $0.part == part }
            #expect(Set(outputs.map(\.offset)) == Set(single.tensors.flatMap(\.outputs).map(\.offset)))
            #expect(outputs.count == single.tensors.count)
        }
        #expect(plan.bytesRead < 3 * single.bytesRead)
    }

    /// Where a filter leaves a tensor out of the sweep, it is merged once too.
    @Test func tensorsThatTheSweepLeavesAloneAreMergedOnce() throws {
        let plan = try plan("tsv", "lambda: [{filter: norm, value: {sweep: [1, 2]}}, {value: 3}]")
        let found = scales(plan, "lambda")
        #expect(found["model.norm.weight"] == .numbers([1, 2]))
        #expect(found["model.embed_tokens.weight"] == .numbers([3, 3]))
    }

    @Test func tooManyTensorsAreRefused() {
        for model in ["base", "a", "b"] {
            family.write(model, (0..<2_001).map { ("t.\($0)", TestTensor([1])) })
        }
        let values = (1...100).map { "\($0)" }.joined(separator: ", ")
        #expect {
            _ = try plan("ties", "weight: 1, lambda: {sweep: [\(values)]}")
        } throws: { "\($0)".contains("makes 100 checkpoints of 2001 tensors, and at most 200000") }
    }

    @Test func foldersAreAPartOfThePlansIdentity() throws {
        let one = try plan("ties", "weight: 1, lambda: {sweep: [1, 2]}")
        let other = try plan("ties", "weight: 1, lambda: {sweep: [1.0, 2.0]}")
        #expect(one.swept.map(\.folder) != other.swept.map(\.folder) && one.digest != other.digest)
        let again = try plan("ties", "weight: 1, lambda: {sweep: [1, 2]}")
        #expect(again.digest == one.digest)
    }
}
