import Core
import Foundation
import TestSupport
import Testing

/// The recipes in docs/examples, on a small family whose tensors are called and layered as Llama's are.
@Suite(.serialized) struct ExampleTests {
    private static let folder = "\(Repository.root)/docs/examples"
    private static let examples = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [])
        .filter { $0.hasSuffix(".yml") }.sorted()
    private static let layers = 4

    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for (seed, model) in ["base", "tune-0", "tune-1"].enumerated() {
            try TestTensor.writeCheckpoint("\(directory.path)/\(model)", Self.tensors(seed: UInt64(seed)))
            try write(
                #"{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": \#(Self.layers), "#
                    + #""vocab_size": 6, "torch_dtype": "bfloat16"}"#,
                to: "\(model)/config.json")
        }
        try writeAdapter()
    }

    private func write(_ text: String, to name: String) throws { try directory.write(text, to: name) }

    /// The same base for all; what differs grows with the seed, so that the base is base.
    private static func tensors(seed: UInt64) -> [(String, TestTensor)] {
        var common = SplitMix(seed: 40), own = SplitMix(seed: seed)
        func tensor(_ name: String, _ shape: [Int]) -> (String, TestTensor) {
            let values = (0..<shape.reduce(1, *)).map { _ in
                let value = Float.random(in: -1...1, using: &common), change = Float.random(in: -0.1...0.1, using: &own)
                return Float(bitPattern: (seed == 0 ? value : value + change).bitPattern & 0xffff_0000)
            }
            return (name, TestTensor(bfloat16: values, shape: shape))
        }
        return [tensor("model.embed_tokens.weight", [6, 8])]
            + (0..<layers).flatMap { layer in
                let prefix = "model.layers.\(layer)"
                return ["q", "k", "v", "o"].map { tensor("\(prefix).self_attn.\($0)_proj.weight", [8, 8]) }
                    + ["gate", "up"].map { tensor("\(prefix).mlp.\($0)_proj.weight", [12, 8]) } + [
                        tensor("\(prefix).mlp.down_proj.weight", [8, 12]), tensor("\(prefix).input_layernorm.weight", [8]),
                        tensor("\(prefix).post_attention_layernorm.weight", [8]),
                    ]
            } + [tensor("model.norm.weight", [8]), tensor("lm_head.weight", [6, 8])]
    }

    private func writeAdapter() throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/adapter", withIntermediateDirectories: true)
        try write(#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4}"#, to: "adapter/adapter_config.json")
        let name = "base_model.model.model.layers.1.self_attn.q_proj"
        let factors = [("\(name).lora_A.weight", [2, 8]), ("\(name).lora_B.weight", [8, 2])].map {
            ($0.0, TestTensor([Float](repeating: 0.25, count: 16), shape: $0.1))
        }
        try Data(TestTensor.encode(factors)).write(
            to: URL(fileURLWithPath: "\(directory.path)/adapter/adapter_model.safetensors"))
    }

    /// Every model has a token that the others lack.
    private func writeTokenizers() throws {
        for (model, own) in [("base", "x"), ("tune-0", "y"), ("tune-1", "<tool>")] {
            let vocabulary = (["<s>", "a", "b", "c", "d"] + [own]).enumerated().map { #""\#($1)": \#($0)"# }
            try write(
                #"{"version": "1.0", "added_tokens": [], "#
                    + #""model": {"type": "BPE", "vocab": {\#(vocabulary.joined(separator: ", "))}, "merges": []}}"#,
                to: "\(model)/tokenizer.json")
        }
    }

    private func run(_ example: String) async throws -> [String: TestTensor] {
        let recipe = "\(Self.folder)/\(example)"
        let outcome = try await Tessera.run(["run", recipe, "out", "--strict"], in: directory.path)
        try #require(outcome.exitCode == 0, "\(example): \(outcome.errors)")
        #expect(try await Tessera.run(["verify", "out"], in: directory.path).exitCode == 0)
        return try TestTensor.read("\(directory.path)/out")
    }

    private func config(_ key: String) throws -> Int? {
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/out/config.json"))
        return (try JSONSerialization.jsonObject(with: data) as? [String: Any])?[key] as? Int
    }

    @Test func thereAreExamples() { #expect(Self.examples.count >= 10) }

    @Test(arguments: examples)
    func runs(example: String) async throws {
        if example == "vocabulary-union.yml" { try writeTokenizers() }
        let tensors = try await run(example), base = try TestTensor.read("\(directory.path)/base")
        #expect(tensors.values.allSatisfy { $0.dtype == .bf16 && $0.values.allSatisfy(\.isFinite) })
        #expect(tensors != base)
        if example != "frankenmerge.yml" {
            #expect(Set(tensors.keys) == Set(base.keys))
            #expect(try config("num_hidden_layers") == Self.layers)
        }
    }

    @Test func aFrankenmergeHasMoreLayers() async throws {
        let tensors = try await run("frankenmerge.yml")
        #expect(try config("num_hidden_layers") == 6)
        let lower = try TestTensor.read("\(directory.path)/tune-0"), upper = try TestTensor.read("\(directory.path)/tune-1")
        for layer in 0..<6 {
            let name = "self_attn.q_proj.weight"
            let source = layer < 3 ? lower["model.layers.\(layer).\(name)"] : upper["model.layers.\(layer - 2).\(name)"]
            #expect(tensors["model.layers.\(layer).\(name)"] == source)
        }
    }

    @Test func aUnionKnowsEveryToken() async throws {
        try writeTokenizers()
        let tensors = try await run("vocabulary-union.yml")
        // Eight tokens: five of all, and one of each model.
        #expect(tensors["model.embed_tokens.weight"]?.shape == [8, 8])
        #expect(try config("vocab_size") == 8)
    }

    @Test func anAdapterChangesWhatItIsFor() async throws {
        let tensors = try await run("lora.yml")
        let base = try TestTensor.read("\(directory.path)/base"), tune = try TestTensor.read("\(directory.path)/tune-0")
        for name in ["model.layers.1.self_attn.q_proj.weight", "model.layers.2.self_attn.q_proj.weight"] {
            // Two ranks of 1/4 times 1/4, times alpha over rank.
            let update = name.contains("layers.1") ? 0.25 : 0
            let found = try #require(tensors[name]).values, start = try #require(base[name]).values
            let other = try #require(tune[name]).values
            for index in start.indices {
                let expected = start[index] + 0.8 * update + 0.4 * (other[index] - start[index])
                #expect((found[index] - expected).magnitude <= 0.004 * max(1, expected.magnitude))
            }
        }
    }
}
