import Foundation
import TestSupport
import Testing

/// Methods that merge adapters by their factors, without the matrices that they change.
@Suite struct AdapterFactorTests {
    private static let rows = 40, columns = 24

    /// A base with two matrices and a bias, two adapters of rank 3, and the same models folded.
    private func write(_ directory: TemporaryDirectory) throws {
        var random = SplitMix(seed: 4)
        func tensor(_ shape: [Int]) -> TestTensor {
            TestTensor((0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) }, shape: shape)
        }
        var base = [("bias", tensor([5]))]
        for layer in 0..<2 { base.append(("layers.\(layer).proj.weight", tensor([Self.rows, Self.columns]))) }
        try TestTensor.writeCheckpoint("\(directory.path)/base", base)
        let rank = 3
        for name in ["a", "b"] {
            var factors: [(String, TestTensor)] = [], folded = [base[0]]
            for layer in 0..<2 {
                let a = tensor([rank, Self.columns]), b = tensor([Self.rows, rank])
                factors.append(("base_model.model.layers.\(layer).proj.lora_A.weight", a))
                factors.append(("base_model.model.layers.\(layer).proj.lora_B.weight", b))
                var values = base[layer + 1].1.values
                for row in 0..<Self.rows {
                    for column in 0..<Self.columns {
                        for k in 0..<rank {
                            values[row * Self.columns + column] +=
                                4 / Double(rank) * b.values[row * rank + k] * a.values[k * Self.columns + column]
                        }
                    }
                }
                folded.append((base[layer + 1].0, TestTensor(values.map { Float($0) }, shape: [Self.rows, Self.columns])))
            }
            try FileManager.default.createDirectory(
                atPath: "\(directory.path)/adapter-\(name)", withIntermediateDirectories: true)
            try Data(TestTensor.encode(factors)).write(
                to: URL(fileURLWithPath: "\(directory.path)/adapter-\(name)/adapter_model.safetensors"))
            _ = try directory.write(
                #"{"peft_type": "LORA", "r": \#(rank), "lora_alpha": 4}"#, to: "adapter-\(name)/adapter_config.json")
            try TestTensor.writeCheckpoint("\(directory.path)/folded-\(name)", folded)
        }
    }

    private static func recipe(_ directory: String, _ method: String, _ models: [String], _ parameters: String) -> String {
        "merge_method: \(method)\nbase_model: \(directory)/base\nmodels:\n"
            + models.map { "- model: '\($0)'\n" }.joined() + "parameters: {\(parameters)}\n"
    }

    /// The same as of the folded models, whose difference from the base is decomposed; and the same bytes on a cluster.
    @Test(arguments: [
        ("core_space", "density: 0.3"), ("core_space", "rule: sum, isotropic: true, rank: 3"),
        ("core_space", "rule: mean, lambda: 0.7, rank: 3"),
        ("knots", "density: 0.4"), ("doge", "steps: 5"),
    ])
    func factorsAndFoldedModelsMakeTheSame(method: String, parameters: String) async throws {
        let directory = try TemporaryDirectory(), path = directory.path
        try write(directory)
        func merged(_ models: [String], to name: String) async throws -> [String: TestTensor] {
            let recipe = try directory.write(Self.recipe(path, method, models, parameters), to: "\(name).yml")
            let outcome = try await Tessera.run(["run", recipe, "\(path)/\(name)"])
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
            return try TestTensor.read("\(path)/\(name)")
        }
        let adapted = try await merged(["a", "b"].map { "\(path)/base+\(path)/adapter-\($0)" }, to: "adapted")
        // The coordinates of a core, in which 'ties' trims, depend on the factors.
        if method != "core_space" || parameters.contains("rule") {
            let folded = try await merged(["a", "b"].map { "\(path)/folded-\($0)" }, to: "folded")
            // Folding rounds to float32, which may move single entries across a threshold.
            #expect(Comparison.differences(adapted, from: folded, rtol: 2e-4, allowedShare: 0.01) == [])
        }
        let base = try TestTensor.read("\(path)/base")
        #expect(adapted["bias"] == base["bias"] && adapted["layers.0.proj.weight"] != base["layers.0.proj.weight"])
        let cluster = try await Cluster(workers: 3)
        let outcome = try await cluster.submit("\(path)/adapted.yml", "\(path)/together", ["--wait", "--shard-size", "2kB"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try outputFiles("\(path)/adapted") == outputFiles("\(path)/together"))
    }

    /// A large matrix takes memory for the ranks of its adapters, not for decompositions of its task vectors.
    @Test func adaptersTakeLessMemoryThanModels() async throws {
        let directory = try TemporaryDirectory(), path = directory.path, size = 700
        let values = [Float](repeating: 1, count: size * size)
        for model in ["base", "tune"] {
            try TestTensor.writeCheckpoint(
                "\(path)/\(model)", [("layers.0.proj.weight", TestTensor(values, shape: [size, size]))])
        }
        try FileManager.default.createDirectory(atPath: "\(path)/adapter", withIntermediateDirectories: true)
        try Data(
            TestTensor.encode([
                (
                    "base_model.model.layers.0.proj.lora_A.weight",
                    TestTensor([Float](repeating: 1, count: size), shape: [1, size])
                ),
                (
                    "base_model.model.layers.0.proj.lora_B.weight",
                    TestTensor([Float](repeating: 1, count: size), shape: [size, 1])
                ),
            ])
        ).write(to: URL(fileURLWithPath: "\(path)/adapter/adapter_model.safetensors"))
        _ = try directory.write(#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1}"#, to: "adapter/adapter_config.json")
        func outcome(_ method: String, _ model: String) async throws -> Tessera.Outcome {
            let recipe = try directory.write(Self.recipe(path, method, [model], "lambda: 1"), to: "recipe.yml")
            return try await Tessera.run(
                ["run", recipe, "\(path)/out", "--overwrite", "--memory", "76MiB", "--threads", "1"])
        }
        for method in ["core_space", "knots"] {
            let adapted = try await outcome(method, "\(path)/base+\(path)/adapter")
            #expect(adapted.exitCode == 0, "\(method): \(adapted.errors)")
            let whole = try await outcome(method, "\(path)/tune")
            #expect(whole.exitCode == 64 && whole.errors.contains("the job needs"), "\(method): \(whole.errors)")
        }
    }
}
