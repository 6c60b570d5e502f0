import Foundation
import TestSupport
import Testing

/// What PEFT's merge makes of adapters of every kind, and what transformers makes of names with and without a wrapper. The models
/// are cut down to the tensors that matter.
@Suite struct AdapterGoldenTests {
    private static let folder = "\(Repository.golden)/adapters"
    private static let cases = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()

    @Test func thereAreCases() { #expect(Self.cases.count >= 9) }

    private static func config(_ output: String) throws -> NSDictionary? {
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(output)/config.json"))
        return try JSONSerialization.jsonObject(with: data) as? NSDictionary
    }

    @Test(arguments: cases)
    func isFoldedAsByPEFT(name: String) async throws {
        let directory = try TemporaryDirectory(), output = "\(directory.path)/out"
        let outcome = try await Tessera.run(["run", "recipe.yml", output], in: "\(Self.folder)/\(name)")
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        // The buffers of one of the models are no weights.
        let found = try TestTensor.read(output).filter { !$0.key.hasSuffix(".attn.bias") }
        let expected = try TestTensor.read("\(Self.folder)/\(name)/expected.safetensors")
        #expect(Comparison.differences(found, from: expected, rtol: 1e-5) == [])
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        let config = try Self.config(output)
        if name.hasPrefix("tied") { #expect(config?["tie_word_embeddings"] as? Bool == false) }
        guard name == "added-tokens" else { return }
        #expect(config?["vocab_size"] as? Int == 100)
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let own = try Data(contentsOf: URL(fileURLWithPath: "\(Self.folder)/\(name)/ad100/\(file)"))
            #expect(try Data(contentsOf: URL(fileURLWithPath: "\(output)/\(file)")) == own, "\(file)")
        }
    }

    /// Through a coordinator and workers, in shards of another size: the same bytes.
    @Test func theSameBytesThroughWorkers() async throws {
        let directory = try TemporaryDirectory()
        let cluster = try await Cluster(workers: 3)
        for name in ["dora", "experts", "pissa", "trainable-tokens"] {
            let recipe = "merge_method: passthrough\nmodels:\n- model: \(Self.folder)/\(name)/base+\(Self.folder)/\(name)/ad\n"
            let path = try directory.write(recipe, to: "recipe.yml")
            let alone = "\(directory.path)/alone", together = "\(directory.path)/together"
            #expect(try await Tessera.run(["run", path, alone]).exitCode == 0)
            let outcome = try await cluster.submit(path, together, ["--wait", "--shard-size", "10kB"])
            #expect(outcome.exitCode == 0, "\(name): \(outcome.errors)")
            #expect(try outputFiles(alone) == outputFiles(together), "\(name)")
            for output in [alone, together] { try FileManager.default.removeItem(atPath: output) }
        }
    }
}
