import Core
import Foundation
import TestSupport
import Testing

/// Merges whose output is an adapter, which is folded again and compared with the merged checkpoint.
@Suite struct AdapterOutputTests {
    /// What the adapters change: a linear layer in two layers, one that is stored transposed, an embedding, and one that only the
    /// second adapter changes, which has rank 2 instead of 3.
    private static let shapes: [(name: String, shape: [Int], isTransposed: Bool, isEmbedding: Bool, isOfSecondAlone: Bool)] = [
        ("layers.0.proj", [12, 20], false, false, false), ("layers.1.proj", [12, 20], false, false, false),
        ("embed_tokens", [15, 8], true, true, false), ("layers.1.down", [20, 12], false, false, true),
    ]

    private struct Family {
        let directory: TemporaryDirectory
        var path: String { directory.path }

        init(transposing: Bool = false, config: String = "") throws {
            directory = try TemporaryDirectory()
            var random = SplitMix(seed: 8)
            func tensor(_ shape: [Int]) -> TestTensor {
                TestTensor((0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) }, shape: shape)
            }
            let modules = transposing ? AdapterOutputTests.shapes.filter { !$0.isEmbedding } : AdapterOutputTests.shapes
            try TestTensor.writeCheckpoint(
                "\(path)/base",
                [("bias", tensor([5])), ("norm.weight", tensor([3, 4]))] + modules.map { ("\($0.name).weight", tensor($0.shape)) }
            )
            for (name, rank) in [("a", 3), ("b", 2)] {
                var factors: [(String, TestTensor)] = []
                for module in modules where name == "b" || !module.isOfSecondAlone {
                    let isTransposed = module.isTransposed || transposing
                    let inputs = isTransposed ? module.shape[0] : module.shape[1]
                    let outputs = isTransposed ? module.shape[1] : module.shape[0]
                    let (a, b) =
                        module.isEmbedding ? ("lora_embedding_A", "lora_embedding_B") : ("lora_A.weight", "lora_B.weight")
                    factors.append(("base_model.model.\(module.name).\(a)", tensor([rank, inputs])))
                    factors.append(("base_model.model.\(module.name).\(b)", tensor([outputs, rank])))
                }
                try write(factors, as: name)
                _ = try directory.write(
                    #"{"base_model_name_or_path": "org/base", "peft_type": "LORA", "r": \#(rank), "lora_alpha": 4, "#
                        + #""use_rslora": \#(name == "b"), "task_type": "CAUSAL_LM", "#
                        + #""fan_in_fan_out": \#(transposing)\#(config)}"#,
                    to: "\(name)/adapter_config.json")
            }
        }

        func write(_ factors: [(String, TestTensor)], as name: String) throws {
            try FileManager.default.createDirectory(atPath: "\(path)/\(name)", withIntermediateDirectories: true)
            try Data(TestTensor.encode(factors)).write(to: URL(fileURLWithPath: "\(path)/\(name)/adapter_model.safetensors"))
        }

        func recipe(_ method: String, _ parameters: String, models: [String]? = nil, _ more: String = "") throws -> String {
            let models = models ?? ["a", "b"].map { "\(path)/base+\(path)/\($0)" }
            let weights = method == "lora_sum" ? [0.25, -1.5] : []
            let listed = models.enumerated().map { index, model in
                "- {model: '\(model)'\(weights.isEmpty ? "" : ", parameters: {weight: \(weights[index])}")}\n"
            }
            return
                "merge_method: \(method)\nbase_model: \(path)/base\nmodels:\n\(listed.joined())"
                + "parameters: {\(parameters)}\n\(more)"
        }

        func run(_ recipe: String, to name: String) async throws -> Tessera.Outcome {
            let file = try directory.write(recipe, to: "\(name).yml")
            return try await Tessera.run(["run", file, "\(path)/\(name)", "--strict"])
        }

        func config(_ name: String) throws -> [String: Any] {
            let data = try Data(contentsOf: URL(fileURLWithPath: "\(path)/\(name)/adapter_config.json"))
            return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        }
    }

    /// Folding the adapter gives the merged checkpoint.
    @Test(arguments: [
        ("core_space", "density: 0.3, lambda: 0.7"), ("core_space", "rule: sum, isotropic: true"),
        ("core_space", "rule: mean, mean_only: [proj]"), ("core_space", "exclude: [embed], others: base"),
        ("knots", "density: 0.4"), ("knots", "rule: dare_ties, drop: 0.5"), ("lora_sum", "lambda: 0.5"),
    ])
    func theAdapterIsTheMerge(method: String, parameters: String) async throws {
        let family = try Family(), path = family.path
        for (name, more) in [("whole", ""), ("adapter", "output: adapter\n")] {
            let outcome = try await family.run(family.recipe(method, parameters, more), to: name)
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
        let names = try outputFiles("\(path)/adapter").keys.sorted()
        #expect(
            names == ["README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.yml", "tessera.manifest.json"])
        #expect(try await Tessera.run(["verify", "\(path)/adapter"]).exitCode == 0)
        let folded = try await family.run(
            "merge_method: passthrough\nmodels:\n- model: '\(path)/base+\(path)/adapter'\n", to: "folded")
        #expect(folded.exitCode == 0, "\(folded.errors)")
        let expected = try TestTensor.read("\(path)/whole")
        #expect(Comparison.differences(try TestTensor.read("\(path)/folded"), from: expected, rtol: 1e-5) == [])
        #expect(try expected["layers.0.proj.weight"] != TestTensor.read("\(path)/base")["layers.0.proj.weight"])
        let cluster = try await Cluster(workers: 3)
        let together = try await cluster.submit("\(path)/adapter.yml", "\(path)/together", ["--wait", "--shard-size", "1kB"])
        #expect(together.exitCode == 0, "\(together.errors)")
        #expect(try outputFiles("\(path)/adapter") == outputFiles("\(path)/together"))
    }

    /// Ranks add up module by module, and the scale of each is 1.
    @Test func theConfigIsTheFirstAdaptersWithWhatTheMergeChanges() async throws {
        let family = try Family(config: #", "layers_to_transform": [0, 1], "bias": "none", "lora_dropout": 0.1"#)
        let outcome = try await family.run(family.recipe("lora_sum", "lambda: 1", "output: adapter\n"), to: "out")
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(outcome.errors.contains("with 4 modules of rank 2 to 5"), "\(outcome.errors)")
        let config = try family.config("out")
        #expect(config["r"] as? Int == 5 && config["lora_alpha"] as? Int == 5)
        #expect(config["rank_pattern"] as? [String: Int] == ["layers.1.down": 2])
        #expect(config["alpha_pattern"] as? [String: Int] == ["layers.1.down": 2])
        #expect(config["target_modules"] as? [String] == ["embed_tokens", "layers.0.proj", "layers.1.down", "layers.1.proj"])
        #expect(config["base_model_name_or_path"] as? String == "org/base" && config["task_type"] as? String == "CAUSAL_LM")
        #expect(config["layers_to_transform"] is NSNull && config["use_rslora"] as? Bool == false)
        #expect(config["fan_in_fan_out"] as? Bool == false && config["lora_dropout"] as? Double == 0.1)
        let tensors = try TestTensor.read("\(family.path)/out")
        #expect(tensors["base_model.model.layers.0.proj.lora_A.weight"]?.shape == [5, 20])
        #expect(tensors["base_model.model.layers.0.proj.lora_B.weight"]?.shape == [12, 5])
        #expect(tensors["base_model.model.embed_tokens.lora_embedding_A"]?.shape == [5, 15])
        #expect(tensors["base_model.model.embed_tokens.lora_embedding_B"]?.shape == [8, 5])
        #expect(tensors["base_model.model.layers.1.down.lora_A.weight"]?.shape == [2, 12] && tensors.count == 8)
        let card = try String(contentsOfFile: "\(family.path)/out/README.md", encoding: .utf8)
        #expect(card.contains("library_name: peft"))
    }

    /// Matrices that the model stores transposed, as GPT-2 does, in half the bits.
    @Test func transposedMatricesHaveTransposedFactors() async throws {
        let family = try Family(transposing: true), path = family.path
        for (name, more) in [("whole", ""), ("adapter", "output: adapter\nout_dtype: float16\n")] {
            let outcome = try await family.run(family.recipe("core_space", "rule: sum", more), to: name)
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
        #expect(try family.config("adapter")["fan_in_fan_out"] as? Bool == true)
        let factor = try TestTensor.read("\(path)/adapter")["base_model.model.layers.0.proj.lora_A.weight"]
        #expect(factor?.shape == [5, 12] && factor?.dtype == .f16)
        let folded = try await family.run(
            "merge_method: passthrough\nmodels:\n- model: '\(path)/base+\(path)/adapter'\n", to: "folded")
        #expect(folded.exitCode == 0, "\(folded.errors)")
        #expect(
            Comparison.differences(
                try TestTensor.read("\(path)/folded"), from: try TestTensor.read("\(path)/whole"), rtol: 1e-2) == [])
    }

    @Test func aSweepMakesAnAdapterForEachValue() async throws {
        let family = try Family(), path = family.path
        let outcome = try await family.run(
            family.recipe("lora_sum", "lambda: {sweep: [0.5, 1]}", "output: adapter\n"), to: "out")
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let half = try TestTensor.read("\(path)/out/lambda=0.5"), whole = try TestTensor.read("\(path)/out/lambda=1")
        let (a, b) = ("base_model.model.layers.0.proj.lora_A.weight", "base_model.model.layers.0.proj.lora_B.weight")
        #expect(half[a] == whole[a] && half[b]?.values.map { 2 * $0 } == whole[b]?.values)
        #expect(FileManager.default.fileExists(atPath: "\(path)/out/lambda=1/adapter_config.json"))
    }

    // MARK: Refusals

    private func refusal(_ family: Family, _ recipe: String) async throws -> String {
        let outcome = try await family.run(recipe, to: "out")
        #expect(outcome.exitCode == 65)
        #expect(!FileManager.default.fileExists(atPath: "\(family.path)/out"))
        return outcome.errors
    }

    @Test func whatIsNoAdapterIsRefused() async throws {
        let family = try Family(), path = family.path, adapter = "output: adapter\n"
        let method = try await refusal(family, family.recipe("tsv", "lambda: 1", adapter))
        #expect(method.contains("which 'tsv' does not find") && method.contains("core_space, knots"), "\(method)")
        try FileManager.default.copyItem(atPath: "\(path)/base", toPath: "\(path)/tune")
        let whole = try await refusal(
            family, family.recipe("lora_sum", "lambda: 1", models: ["\(path)/base+\(path)/a", "\(path)/tune"], adapter))
        #expect(whole.contains("merges adapters of the base, and '\(path)/tune' is none"), "\(whole)")
        let vocabulary = try await refusal(family, family.recipe("lora_sum", "lambda: 1", "\(adapter)tokenizer_source: base\n"))
        #expect(vocabulary.contains("not its layers, its vocabulary"), "\(vocabulary)")
        let word = try await refusal(family, family.recipe("lora_sum", "lambda: 1", "output: adaptor\n"))
        #expect(word.contains("'output' is 'adaptor'") && word.contains("adapter"), "\(word)")
    }

    @Test func changesThatFactorsCannotSayAreRefused() async throws {
        let family = try Family(), file = "\(family.path)/b/adapter_model.safetensors"
        let factors = try TestTensor.read("\(family.path)/b").map { ($0.key, $0.value) }.sorted { $0.0 < $1.0 }
        for added in [
            ("base_model.model.layers.0.proj.lora_magnitude_vector", TestTensor([Float](repeating: 1, count: 12))),
            ("base_model.model.norm.weight", TestTensor([Float](repeating: 1, count: 12), shape: [3, 4])),
        ] {
            try family.write(factors + [added], as: "b")
            _ = try family.directory.write(
                #"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "modules_to_save": ["norm"]}"#, to: "b/adapter_config.json")
            let found = try await refusal(family, family.recipe("lora_sum", "lambda: 1", "output: adapter\n"))
            #expect(found.contains(file) && found.contains("by more than two factors"), "\(found)")
        }
    }
}
