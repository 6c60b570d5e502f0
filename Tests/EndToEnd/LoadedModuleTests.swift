import Foundation
import TestSupport
import Testing

/// Adapters of modules that transformers cuts out of one tensor when it loads a model, or stacks of several.
@Suite struct LoadedModuleTests {
    private static func tensor(_ shape: [Int], _ random: inout SplitMix) -> TestTensor {
        TestTensor((0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) }, shape: shape)
    }

    private static func stack(_ tensors: [TestTensor]) -> TestTensor {
        TestTensor(
            tensors.flatMap { $0.values.map { Float($0) } },
            shape: [tensors.map { $0.shape[0] }.reduce(0, +)] + tensors[0].shape.dropFirst())
    }

    /// The rows of the folded tensor are those of the folded parts, to the bit.
    @Test(arguments: ["true", #""pissa""#])
    func partsOfOneTensor(initialisation: String) async throws {
        let directory = try TemporaryDirectory(), path = directory.path
        var random = SplitMix(seed: 5)
        let parts = ["q_proj", "k_proj", "v_proj"]
        var fused: [(String, TestTensor)] = [], apart: [(String, TestTensor)] = [], factors: [(String, TestTensor)] = []
        for layer in 0..<2 {
            let weights = parts.map { _ in Self.tensor([16, 24], &random) },
                biases = parts.map { _ in Self.tensor([16], &random) }
            let name = "new.encoder.layer.\(layer).attention.qkv_proj"
            fused += [("\(name).weight", Self.stack(weights)), ("\(name).bias", Self.stack(biases))]
            for (index, part) in parts.enumerated() {
                let module = "layers.\(layer).self_attn.\(part)"
                apart += [("\(module).weight", weights[index]), ("\(module).bias", biases[index])]
                guard part != "k_proj" || layer == 1 else { continue }
                factors += [
                    ("base_model.model.\(module).lora_A.weight", Self.tensor([3, 24], &random)),
                    ("base_model.model.\(module).lora_B.weight", Self.tensor([16, 3], &random)),
                    ("base_model.model.\(module).lora_B.bias", Self.tensor([16], &random)),
                    ("base_model.model.\(module).lora_magnitude_vector.weight", Self.tensor([16], &random)),
                ]
            }
        }
        try TestTensor.writeCheckpoint("\(path)/fused", fused)
        _ = try directory.write(#"{"architectures": ["GteModel"], "model_type": "gte"}"#, to: "fused/config.json")
        try TestTensor.writeCheckpoint("\(path)/apart", apart)
        try FileManager.default.createDirectory(atPath: "\(path)/adapter", withIntermediateDirectories: true)
        try Data(TestTensor.encode(factors)).write(to: URL(fileURLWithPath: "\(path)/adapter/adapter_model.safetensors"))
        _ = try directory.write(
            #"{"lora_alpha": 4, "use_dora": true, "init_lora_weights": \#(initialisation)}"#, to: "adapter/adapter_config.json")
        for model in ["fused", "apart"] {
            let recipe = try directory.write(
                "merge_method: passthrough\nmodels:\n- model: \(path)/\(model)+\(path)/adapter\n", to: "\(model).yml")
            let outcome = try await Tessera.run(["run", recipe, "\(path)/\(model)-out", "--threads", "2"])
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
        let found = try TestTensor.read("\(path)/fused-out"), expected = try TestTensor.read("\(path)/apart-out")
        for layer in 0..<2 {
            for leaf in ["weight", "bias"] {
                let own = found["new.encoder.layer.\(layer).attention.qkv_proj.\(leaf)"]
                #expect(own == Self.stack(parts.compactMap { expected["layers.\(layer).self_attn.\($0).\(leaf)"] }))
            }
        }
        #expect(found["new.encoder.layer.0.attention.qkv_proj.weight"] != fused[0].1)
    }

    @Test func severalTensorsInOne() async throws {
        let directory = try TemporaryDirectory(), path = directory.path
        var random = SplitMix(seed: 6)
        let parts = ["gate_proj", "up_proj"].map { ("l.0.\($0).weight", Self.tensor([16, 24], &random)) }
        try TestTensor.writeCheckpoint("\(path)/apart", parts)
        _ = try directory.write(#"{"model_type": "minimax_m3_vl"}"#, to: "apart/config.json")
        try TestTensor.writeCheckpoint("\(path)/fused", [("l.0.gate_up_proj.weight", Self.stack(parts.map(\.1)))])
        try FileManager.default.createDirectory(atPath: "\(path)/adapter", withIntermediateDirectories: true)
        let factors = [("lora_A", [3, 24]), ("lora_B", [32, 3]), ("lora_magnitude_vector", [32])].map {
            ("base_model.model.l.0.gate_up_proj.\($0).weight", Self.tensor($1, &random))
        }
        try Data(TestTensor.encode(factors)).write(to: URL(fileURLWithPath: "\(path)/adapter/adapter_model.safetensors"))
        _ = try directory.write(#"{"lora_alpha": 4, "use_dora": true}"#, to: "adapter/adapter_config.json")
        for model in ["fused", "apart"] {
            let recipe = try directory.write(
                "merge_method: passthrough\nmodels:\n- model: \(path)/\(model)+\(path)/adapter\n", to: "\(model).yml")
            let outcome = try await Tessera.run(["run", recipe, "\(path)/\(model)-out", "--threads", "2"])
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
        let found = try TestTensor.read("\(path)/apart-out")
        #expect(
            try TestTensor.read("\(path)/fused-out")["l.0.gate_up_proj.weight"] == Self.stack(parts.compactMap { found[$0.0] }))
    }
}
