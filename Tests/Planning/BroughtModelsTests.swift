import Checkpoints
import Core
import Planning
import TestSupport
import Testing
import Work

/// Models as people have them: files beside the weights, quantized weights, half downloads, tensors that some lack.
@Suite struct BroughtModelsTests {
    private let family = MemoryFamily()

    private func problems(_ recipe: String) -> [TesseraError] {
        #expect(throws: Problems.self) { try family.plan(recipe) }?.all ?? []
    }

    // MARK: Files beside the weights

    @Test func everyFileOfTheTokenizerComesAlong() throws {
        let names = [
            "spiece.model", "sentencepiece.bpe.model", "source.spm", "tekken.json", "tokenizer.model.v3", "normalizer.json",
            "qwen.tiktoken", "vocab.bpe", "dict.txt", "chat_template.jinja",
        ]
        for name in names { family.write("\(name) of a", to: "a/\(name)") }
        let plan = try family.plan(MemoryFamily.linear)
        for name in names {
            let copy = try #require(plan.sidecars.first { $0.name == name }, "\(name)")
            #expect(copy.copiedFrom == "/models/a/\(name)")
        }
        #expect(plan.leftOut == [])
    }

    @Test func whatIsNotOfTheModelIsLeftOutWithAReason() throws {
        for name in ["optimizer.pt", "trainer_state.json", "pytorch_model.bin", "modeling_x.py", "notes.pdf", ".gitattributes"] {
            family.write("x", to: "a/\(name)")
        }
        let plan = try family.plan(MemoryFamily.linear)
        #expect(plan.sidecars.map(\.name) == ["config.json", "recipe.yml", "README.md"])
        #expect(
            plan.leftOut.map { "\($0.name): \($0.reason)" }
                == [
                    "modeling_x.py: no config names code", "notes.pdf: about its own model", "optimizer.pt: of a training run",
                    "pytorch_model.bin: weights", "trainer_state.json: of a training run",
                ])
    }

    @Test func codeThatAConfigNamesComesAlong() throws {
        let config =
            #"{"auto_map": {"AutoConfig": "configuration_x.C", "AutoModel": "modeling_x.M", "T": ["o/r--t.T", null]}}"#
        family.write(config, to: "a/config.json")
        for name in ["configuration_x.py", "helpers.py"] { family.write("", to: "a/\(name)") }
        let plan = try family.plan(MemoryFamily.linear)
        #expect(plan.sidecars.map(\.name).filter { $0.hasSuffix(".py") } == ["configuration_x.py", "helpers.py"])
        #expect(plan.remarks.count == 1 && plan.remarks[0].contains("names code in modeling_x.py, which 'a' does not have"))
    }

    @Test func foldersOfSentenceTransformersComeAlong() throws {
        family.write(
            #"[{"name": "0", "path": ""}, {"name": "1", "path": "1_Pooling"}, {"path": "2_Dense"}]"#, to: "a/modules.json")
        for name in ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "other/x.json"] {
            family.write("{}", to: "a/\(name)")
        }
        let plan = try family.plan(MemoryFamily.linear)
        #expect(
            plan.sidecars.map(\.name).dropFirst().prefix(4)
                == ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "modules.json"])
        #expect(plan.remarks == ["the weights in 2_Dense are copied, not merged"])
        #expect(plan.leftOut.map(\.name) == ["other/"])
    }

    // MARK: Quantized weights

    @Test(arguments: [
        (#"{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}"#, "bitsandbytes"),
        (#"{"quantization_config": {"load_in_8bit": true}}"#, "bitsandbytes"),
        (#"{"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}"#, "mxfp4"),
        (#"{"thinker_config": {"text_config": {"quantization_config": {"quant_method": "awq"}}}}"#, "awq"),
        (#"{"compression_config": {"format": "pack-quantized"}}"#, "an unnamed scheme"),
        (#"{"quantization": {"group_size": 64, "bits": 4}}"#, "MLX"),
        (#"{"quantization_config": {"quant_algo": "NVFP4"}}"#, "modelopt"),
        (#"{"quantization_config": {"something": 1}}"#, "an unnamed scheme"),
    ])
    func quantizedModelsAreRefused(config: String, scheme: String) throws {
        family.write(config, to: "b/config.json")
        let found = problems(MemoryFamily.linear)
        #expect(found.count == 1 && found[0].problem.contains("'b' is quantized: \(scheme) ('"), "\(found)")
        #expect(found.first?.line == 4)
        #expect(problems("merge_method: passthrough\nmodels:\n- model: b\n  parameters: {scale: 0.5}\n").count == 1)
        #expect(problems("quantize: {bits: 4}\nbase_model: base\nmodels:\n- model: b\n").count == 1)
        #expect(try family.plan("merge_method: passthrough\nmodels:\n- model: b\n").tensors.count == 4)
    }

    /// Every method that transformers 5.24 knows is refused by its name.
    @Test(arguments: [
        "bitsandbytes", "gptq", "awq", "aqlm", "vptq", "quanto", "eetq", "higgs", "hqq", "compressed-tensors", "fbgemm_fp8",
        "torchao", "gguf", "bitnet", "spqr", "fp8", "quark", "fp_quant", "auto-round", "mxfp4", "nvfp4", "mxfp8", "metal",
        "fouroversix", "sinq", "gemma",
    ])
    func methodsOfTransformers(method: String) {
        family.write(#"{"quantization_config": {"quant_method": "\#(method)"}}"#, to: "b/config.json")
        let found = problems(MemoryFamily.linear)
        #expect(found.first?.problem.contains("'b' is quantized: \(method) ('quantization_config'") == true, "\(found)")
        let ways = [
            "bitsandbytes": "dequantize()", "fp8": "FineGrainedFP8Config(dequantize=True)",
            "mxfp4": "Mxfp4Config(dequantize=True)", "compressed-tensors": "CompressedTensorsConfig(dequantize=True)",
        ]
        #expect(found.first?.advice?.contains(ways[method] ?? "with the library that made it") == true)
    }

    /// What the schemes store, where no config says so.
    @Test(arguments: [
        ("model.layers.0.mlp.weight", DType.i8, "integers"), ("model.layers.0.mlp.qweight", .i32, "GPTQ or AWQ"),
        ("x.weight_packed", .u8, "compressed-tensors"), ("x.gate_up_proj_blocks", .u8, "mxfp4"), ("x.W_q", .u8, "HQQ"),
        ("x.codes", .i16, "AQLM"), ("x.weight._data", .i8, "quanto"), ("x._weight_qdata", .u8, "torchao"),
        ("x.weight.absmax", .u8, "bitsandbytes"), ("x.SCB", .f32, "bitsandbytes"),
    ])
    func packedWeightsNeedNoConfig(name: String, dtype: DType, scheme: String) throws {
        let packed = TestTensor(dtype, [2, 2], bytes: [UInt8](repeating: 1, count: 4 * dtype.bitWidth / 8))
        for model in ["a", "b"] { family.write(model, [(name, packed)]) }
        let found = problems(MemoryFamily.linear)
        #expect(found.count == 2 && found[0].problem.contains("'a' is quantized: \(scheme) (tensor '\(name)' holds"), "\(found)")
    }

    // MARK: Checkpoints of other kinds, and two in one directory

    @Test(arguments: [
        (["pytorch_model.bin"], "is a PyTorch checkpoint"), (["consolidated.00.pth"], "is a PyTorch checkpoint"),
        (["m-Q4_K_M.gguf"], "is a GGUF checkpoint"), (["tf_model.h5"], "is a TensorFlow checkpoint"),
        (["flax_model.msgpack"], "is a Flax checkpoint"), (["model.onnx"], "is an ONNX checkpoint"),
        (["training_args.bin"], "contains no safetensors checkpoint"),
    ])
    func formatsThatAreNotRead(names: [String], problem: String) {
        family.files.remove("/models/b/model.safetensors")
        for name in names { family.write("x", to: "b/\(name)") }
        #expect(problems(MemoryFamily.linear).first?.problem.contains(problem) == true)
    }

    @Test(arguments: [
        ([UInt8]("GGUF".utf8) + [3, 0, 0, 0, 9, 9], "is a GGUF file", "gguf_file="),
        ([0x89] + [UInt8]("HDF".utf8) + [0x0d, 0x0a, 0x1a, 0x0a, 0], "is an HDF5 file", "save_pretrained"),
        ([0x80, 2, 0x7d, 0x71, 0, 0x28, 0x58, 1, 0], "is a PyTorch or zip file", "save_pretrained"),
        ([0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9], "is a PyTorch or zip file", "save_pretrained"),
    ])
    func filesOfOtherFormats(bytes: [UInt8], problem: String, advice: String) {
        family.files.write(bytes, to: "/models/b/model.safetensors")
        let found = problems(MemoryFamily.linear)
        #expect(found.first?.problem.contains(problem) == true && found.first?.advice?.contains(advice) == true, "\(found)")
    }

    /// Every length that a header may have is one, whatever file of another kind begins with the same bytes.
    @Test func lengthsThatLookLikeOtherFiles() throws {
        let bytes = TestTensor.encode(MemoryFamily.tensors(2)), own = Int(bytes[0]) + 256 * Int(bytes[1])
        for length in [0x280, 0x480] {
            let padding = [UInt8](repeating: UInt8(ascii: " "), count: length - own)
            family.files.write(
                [UInt8(length % 256), UInt8(length / 256), 0, 0, 0, 0, 0, 0] + bytes[8..<8 + own] + padding + bytes[(8 + own)...],
                to: "/models/b/model.safetensors")
            #expect(try family.plan(MemoryFamily.linear).tensors.count == 4)
        }
    }

    /// transformers reads `model.safetensors` before an index, mergekit the index.
    @Test func anIndexBesideASingleFile() throws {
        let index = #"{"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}"#
        family.write(index, to: "b/model.safetensors.index.json")
        let plan = try family.plan(MemoryFamily.linear)
        #expect(plan.tensors.count == 4)
        #expect(plan.remarks.contains { $0.hasPrefix("'b' has a model.safetensors.index.json of parts that are not there") })
        family.files.write(
            TestTensor.encode([("model.norm.weight", TestTensor([1, 2]))]), to: "/models/b/model-00001-of-00001.safetensors")
        #expect(
            problems(MemoryFamily.linear).first?.problem.contains("holds two checkpoints: model.safetensors, and 1 parts") == true
        )
        let own = MemoryFamily.tensors(2).map { "\"\($0.0)\": \"model.safetensors\"" }.joined(separator: ", ")
        family.write("{\"weight_map\": {\(own)}}", to: "b/model.safetensors.index.json")
        #expect(try family.plan(MemoryFamily.linear).remarks == [])
    }

    // MARK: Downloads

    @Test(arguments: [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git LFS pointer", "git lfs pull"),
        ("<!DOCTYPE html><html><head><title>Log in</title></head></html>", "is a web page", "download it again"),
        (#"{"error": "Repository not found"}"#, "is text, such as a server's answer", "download it again"),
        ("Entry not found", "'Entry not found'", "download it again"),
        (String(repeating: "\0", count: 100), "begins with zeros only", "download it again"),
    ])
    func whatFailedDownloadsLeave(contents: String, problem: String, advice: String) {
        family.write(contents, to: "b/model.safetensors")
        let found = problems(MemoryFamily.linear)
        #expect(found.first?.problem.contains(problem) == true, "\(found)")
        #expect(found.first?.advice?.contains(advice) == true, "\(found)")
        guard !contents.hasPrefix("{"), !contents.hasPrefix("Entry") else { return }
        family.write("b", MemoryFamily.tensors(2))
        family.write(contents, to: "b/config.json")
        #expect(problems(MemoryFamily.linear).first?.problem.contains(problem) == true)
    }

    @Test func partsWithoutAnIndexAreReadByTheirNumbers() throws {
        let tensors = MemoryFamily.tensors(2)
        func write(_ number: Int, _ part: [(String, TestTensor)]) {
            family.files.write(TestTensor.encode(part), to: "/models/b/model-0000\(number)-of-00003.safetensors")
        }
        family.files.remove("/models/b/model.safetensors")
        write(1, Array(tensors[..<1]))
        write(3, Array(tensors[2...]))
        let found = problems(MemoryFamily.linear)
        #expect(found.first?.problem.contains("model-00002-of-00003.safetensors: this part of the checkpoint is missing") == true)
        #expect(found.first?.advice == "download it, or the whole model again")
        write(2, Array(tensors[1..<2]))
        #expect(try family.plan(MemoryFamily.linear).tensors.count == 4)
    }

    @Test func aDownloadThatIsNotFinished() {
        family.files.remove("/models/b/model.safetensors")
        family.write("x", to: "b/model.safetensors.incomplete")
        #expect(problems(MemoryFamily.linear).first?.problem.contains("its download was not finished") == true)
    }

    // MARK: Tensors that some models lack

    /// `b` lacks the norm.
    private func planMissing(_ lines: String, method: String = "linear") throws -> Plan {
        family.write("b", Array(MemoryFamily.tensors(2).dropLast()))
        return try family.plan(
            "merge_method: \(method)\nmodels:\n- model: a\n- model: b\nbase_model: base\nparameters: {weight: 0.5}\n\(lines)\n")
    }

    @Test func theRecipeSaysWhatHappensToThem() throws {
        func norm(_ plan: Plan) -> TensorWork? { plan.tensors.first { $0.name == "model.norm.weight" } }
        let present = try planMissing("missing: present")
        #expect(norm(present)?.sources.count == 2)
        #expect(present.remarks.contains("not every model has model.norm.weight; merged from the models that do"))
        let base = try planMissing("missing: base")
        #expect(norm(base)?.sources.count == 1)
        // Files: a's, b's, the base's.
        #expect(norm(base)?.sources.first?.file == 2)
        #expect(base.remarks.contains("not every model has model.norm.weight; taken from the base"))
        let omitted = try planMissing("missing: omit")
        #expect(norm(omitted) == nil && omitted.tensors.count == 3)
        #expect(omitted.remarks.contains("not every model has model.norm.weight; left out"))
        #expect(try planMissing("missing: [{filter: norm, value: omit}, {value: refuse}]").tensors.count == 3)
        #expect(norm(try planMissing("missing: present", method: "task_arithmetic"))?.sources.count == 2)
    }

    @Test(arguments: [
        ("", "missing in b, present in 2 of 3 models"), ("missing: refuse", "missing in b"),
        ("missing: [{filter: embed, value: omit}]", "missing in b"), ("missing: keep", "'missing' must say what to do"),
    ])
    func orTheyAreRefused(lines: String, words: String) {
        let found = #expect(throws: Problems.self) { try planMissing(lines) }?.all ?? []
        #expect(found.first?.problem.contains(words) == true, "\(found)")
    }

    /// An encoder beside a pooler, and the same beside the head of a language model.
    @Test(arguments: [("a", "b"), ("b", "a")])
    func partsThatOneModelWraps(first: String, second: String) throws {
        let inner = (0..<2).map { ("encoder.layer.\($0).weight", TestTensor([1, 2])) }
        family.write("a", inner + [("pooler.weight", TestTensor([1]))])
        family.write("b", inner.map { ("bert.\($0.0)", $0.1) } + [("cls.weight", TestTensor([1]))])
        let plan = try family.plan(
            "merge_method: linear\nmissing: present\nmodels:\n- model: \(first)\n- model: \(second)\nparameters: {weight: 0.5}\n")
        let shared = plan.tensors.filter { $0.name.contains("encoder.layer") }
        #expect(shared.map(\.sources.count) == [2, 2])
        #expect(shared.allSatisfy { $0.name.hasPrefix("bert.") }, "\(shared.map(\.name))")
    }

    /// How many batches a norm has seen is another number in every model, and no weight.
    @Test func countersOfBatches() throws {
        for (model, count) in [("base", UInt8(3)), ("a", 1), ("b", 2)] {
            let counter = TestTensor(.i64, [], bytes: [count] + [UInt8](repeating: 0, count: 7))
            family.write(model, MemoryFamily.tensors(Float(count)) + [("bn.num_batches_tracked", counter)])
        }
        for (recipe, file) in [
            (MemoryFamily.linear, 0),
            ("merge_method: task_arithmetic\nbase_model: base\nmodels:\n- model: a\n- model: b\nparameters: {weight: 1}\n", 2),
        ] {
            let counter = try #require(try family.plan(recipe).tensors.first { $0.name == "bn.num_batches_tracked" })
            #expect(counter.sources.count == 1 && counter.sources[0].file == file)
        }
    }

    /// Newer fine-tunes do not save `position_ids`.
    @Test func aStoreNeedsNoIntegers() throws {
        let ids = ("embeddings.position_ids", TestTensor(.i64, [1], bytes: [UInt8](repeating: 0, count: 8)))
        family.write("base", MemoryFamily.tensors(0) + [ids])
        let plan = try family.plan(MemoryFamily.store("quantize: {bits: 4}"))
        #expect(plan.tensors.count == 4)
        family.write("base", MemoryFamily.tensors(0))
        family.write("a", MemoryFamily.tensors(1) + [ids])
        #expect(try family.plan(MemoryFamily.store("quantize: {bits: 4}")).tensors.count == 4)
    }

    // MARK: YAML

    @Test func recipesAsPyYAMLReadsThem() throws {
        let linear = try family.plan(MemoryFamily.linear)
        #expect(try family.plan("\u{feff}" + MemoryFamily.linear).digest == linear.digest)
        #expect(try family.plan(MemoryFamily.linear + "base_model:\n").digest == linear.digest)
        let repeated = try family.plan("dtype: float16\n" + MemoryFamily.linear + "dtype: bfloat16\ndtype: null\n")
        #expect(repeated.digest == linear.digest)
        #expect(repeated.warnings.filter { $0.problem.contains("the key 'dtype' occurs twice; the last one counts") }.count == 2)
        let inner =
            "merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1, \"weight\": 0.5}\n- {model: a, model: b}\n"
        #expect(try family.plan(inner + "parameters:\n  weight: 2\n  weight: 0.5\n").digest == linear.digest)
    }

    @Test func anchorsOutliveTheirKeys() throws {
        let recipe = """
            x: &one a
            x: &two b
            merge_method: linear
            models: [{model: *one}, {model: *two}]
            parameters: {weight: 0.5}
            """
        #expect(try family.plan(recipe).digest == family.plan(MemoryFamily.linear).digest)
    }

    @Test func aSliceMayBeEmpty() throws {
        let slice = { (model: String, first: Int, end: Int) in "- sources: [{model: \(model), layer_range: [\(first), \(end)]}]\n"
        }
        let head = "merge_method: passthrough\nslices:\n"
        let plan = try family.plan(head + slice("a", 0, 2) + slice("b", 2, 2))
        #expect(plan.tensors.count == 4)
        #expect(problems(head + slice("a", 1, 1)).map(\.problem) == ["the slices have no layers"])
    }

    // MARK: Models that compute otherwise

    @Test(arguments: [
        (#"{"model_type": "llama"}"#, #"{"model_type": "mistral"}"#, #"model_type "mistral" and "llama""#),
        (#"{"num_attention_heads": 8}"#, #"{"num_attention_heads": 4}"#, "num_attention_heads 4 and 8"),
        (#"{"rope_theta": 1e4}"#, #"{"rope_parameters": {"rope_theta": 500000}}"#, "rope_theta 500000 and 1e4"),
        (#"{"text_config": {"rms_norm_eps": 1e-5}}"#, #"{"text_config": {"rms_norm_eps": 1e-6}}"#, "text_config.rms_norm_eps"),
    ])
    func modelsThatDifferAreTold(own: String, other: String, words: String) throws {
        family.write(own, to: "a/config.json")
        family.write(other, to: "b/config.json")
        let warnings = try family.plan(MemoryFamily.linear).warnings
        #expect(warnings.count == 1 && warnings[0].problem.contains(words), "\(warnings)")
        var request = family.request(MemoryFamily.linear)
        request.strict = true
        let found = #expect(throws: Problems.self) { try Planner.plan(request) }?.all ?? []
        #expect(found.count == 1 && found[0].line == 4)
    }

    @Test func whatFineTunesChangeIsNoDifference() throws {
        family.write(
            #"{"rope_theta": 10000, "eos_token_id": 1, "dtype": "float32", "max_position_embeddings": 64}"#, to: "a/config.json")
        family.write(#"{"rope_theta": 1e4, "eos_token_id": 2, "dtype": "bfloat16", "use_cache": false}"#, to: "b/config.json")
        #expect(try family.plan(MemoryFamily.linear).warnings == [])
    }
}
