import Core
import Foundation
import TestSupport
import Testing

/// The recipes in docs/examples, on a small family whose tensors are called and layered as Llama's are.
@Suite(.serialized) struct ExampleTests {
    private static let folder = "\(Repository.root)/docs/examples"
    private static let examples = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [])
        .filter { $0.hasSuffix(".yml") }.sorted()

    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for (seed, model) in ["base", "tune-0", "tune-1"].enumerated() {
            try SmallFamily.write(model, seed: UInt64(seed), in: directory)
        }
        try SmallFamily.writeAdapter("adapter", in: directory)
    }

    private func write(_ text: String, to name: String) throws { try directory.write(text, to: name) }

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
            #expect(try config("num_hidden_layers") == SmallFamily.layers)
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
