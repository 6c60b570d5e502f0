import Checkpoints
import Core
import Planning
import TestSupport
import Testing
import Work

/// Which layers slices are of, and what the plan says where the output cannot be what its layers were.
@Suite struct StackTests {
    private let files = MemoryFiles()

    private func write(_ tensors: [(String, [Int])], as model: String = "a", config: String = "{}") {
        let made = tensors.map { ($0.0, TestTensor([Float](repeating: 1, count: $0.1.reduce(1, *)), shape: $0.1)) }
        files.write(TestTensor.encode(made), to: "/models/\(model)/model.safetensors")
        files.write(Array(config.utf8), to: "/models/\(model)/config.json")
    }

    private static func layers(_ prefix: String, _ count: Int, _ rest: String = "w.weight", _ shape: [Int] = [2]) -> [(
        String, [Int]
    )] {
        (0..<count).map { ("\(prefix).\($0).\(rest)", shape) }
    }

    private func plan(_ recipe: String, method: String = "passthrough") throws -> Plan {
        try Planner.plan(
            PlanRequest(
                recipe: "merge_method: \(method)\n\(recipe)", recipeName: "recipe.yml", workingDirectory: "/models",
                roots: Roots(everythingIn: files)))
    }

    private func config(_ plan: Plan) throws -> JSONText {
        try JSONText(try #require(plan.sidecars.first { $0.name == "config.json" }).contents(from: files))
    }

    private func problem(_ recipe: String) -> String {
        #expect(throws: Problems.self) { try plan(recipe) }?.all.map(\.description).joined(separator: "\n") ?? ""
    }

    private static func slices(_ ranges: [Range<Int>], model: String = "a") -> String {
        "slices:\n"
            + ranges.map { "- sources: [{model: \(model), layer_range: [\($0.lowerBound), \($0.upperBound)]}]\n" }.joined()
    }

    private static let pruned = slices([0..<1, 2..<4])

    /// Names of the output's tensors, without the numbers of layers.
    private func counts(_ plan: Plan, _ prefix: String) -> Int { plan.tensors.count { $0.name.hasPrefix("\(prefix).") } }

    // MARK: Which stack

    /// XLM's layers are spread over stacks that stand side by side.
    @Test func partsOfLayersAreSlicedTogether() throws {
        let parts = ["transformer.attentions", "transformer.ffns", "transformer.layer_norm1"]
        write(parts.flatMap { Self.layers($0, 4) }, config: #"{"n_layers": 4}"#)
        let plan = try plan(Self.pruned)
        for part in parts { #expect(counts(plan, part) == 3, "\(part)") }
        #expect(try config(plan).integer(["n_layers"]) == 3 && plan.remarks == [])
        // Stacks of two lengths, or counted apart, are not the same layers.
        write(Self.layers("m.a", 4) + Self.layers("m.b", 2), config: #"{"n_layers": 4}"#)
        #expect(try counts(self.plan(Self.pruned), "m.b") == 2)
        write(Self.layers("m.a", 4) + Self.layers("m.b", 4), config: #"{"n_layers": 4, "x": {"depth": 4}}"#)
        #expect(problem(Self.pruned).contains("write 'stack: m.a'"))
    }

    @Test func theRecipeMayNameTheStack() throws {
        let decoder = "text_decoder.layers", encoder = "text_encoder.layers"
        write(
            Self.layers(decoder, 4) + Self.layers(encoder, 4), config: #"{"decoder_layers": 4, "encoder_layers": 4}"#)
        #expect(problem(Self.pruned).contains("several stacks of layers: text_decoder.layers, text_encoder.layers"))
        for (name, key) in [(decoder, "decoder_layers"), (encoder, "encoder_layers")] {
            let plan = try plan("stack: \(name)\n\(Self.pruned)"), other = name == decoder ? encoder : decoder
            #expect(counts(plan, name) == 3 && counts(plan, other) == 4)
            #expect(try config(plan).integer([key]) == 3 && plan.remarks == [])
        }
        #expect(problem("stack: layers\n\(Self.pruned)").contains("several layers in 'layers'"))
        #expect(problem("stack: blocks\n\(Self.pruned)").contains("write one of text_decoder.layers, text_encoder.layers"))
        #expect(problem("stack: x\nmodels: [{model: a}]\n").contains("that 'slices' beside it are of"))
    }

    @Test func theStackOfAModule() throws {
        write(
            Self.layers("language_model.layers", 4) + Self.layers("projector.qformer.layer", 4)
                + Self.layers("vision_tower.layers", 2),
            config: #"{"text_config": {"num_hidden_layers": 4}, "projector_config": {"num_hidden_layers": 4}}"#)
        let slices = Self.pruned.split(separator: "\n").map { "    \($0)\n" }.joined()
        let plan = try plan(
            "modules:\n  text_decoder:\n    stack: projector.qformer.layer\n\(slices)  vision_tower:\n    models: [{model: a}]\n")
        #expect(counts(plan, "projector.qformer.layer") == 3 && counts(plan, "language_model.layers") == 4)
        #expect(try config(plan).integer(["projector_config", "num_hidden_layers"]) == 3)
        #expect(try config(plan).integer(["text_config", "num_hidden_layers"]) == 4)
    }

    /// An encoder that is not called a tower, in a model whose config describes one.
    @Test func anEncoderMayBeTheTower() throws {
        write(
            Self.layers("model.encoder.layers", 4) + Self.layers("model.decoder.layers", 4),
            config: #"{"vision_config": {"num_hidden_layers": 4}, "text_config": {"encoder_layers": 4, "decoder_layers": 4}}"#)
        let slices = Self.pruned.split(separator: "\n").map { "    \($0)\n" }.joined()
        let plan = try plan("modules:\n  encoder:\n\(slices)  decoder:\n    models: [{model: a}]\n")
        #expect(try config(plan).integer(["vision_config", "num_hidden_layers"]) == 3)
        #expect(try config(plan).integer(["text_config", "encoder_layers"]) == 4)
    }

    /// Neither the encoder of a tower nor that of a module between has its counterpart in the text model's decoder.
    @Test(arguments: [
        ("vision_model.encoder.layers", ["vision_config", "num_hidden_layers"]),
        ("qformer.encoder.layer", ["qformer_config", "num_hidden_layers"]),
        ("language_model.model.decoder.layers", ["text_config", "num_hidden_layers"]),
    ])
    func partsWithEncodersOfTheirOwn(stack: String, key: [String]) throws {
        let stacks = ["vision_model.encoder.layers", "qformer.encoder.layer", "language_model.model.decoder.layers"]
        let sections = ["vision_config", "qformer_config", "text_config"].map { #""\#($0)": {"num_hidden_layers": 4}"# }
        write(stacks.flatMap { Self.layers($0, 4) }, config: "{\(sections.joined(separator: ", "))}")
        let plan = try plan("stack: \(stack)\n\(Self.pruned)")
        for other in stacks { #expect(counts(plan, other) == (other == stack ? 3 : 4)) }
        #expect(try config(plan).integer(key) == 3 && plan.remarks == [])
    }

    /// Two towers of one section: what counts the layers of one counts those of the other.
    @Test func towersThatShareASection() throws {
        write(
            Self.layers("image_tower.encoder.layers", 4) + Self.layers("video_tower.encoder.layers", 4),
            config: #"{"vision_config": {"num_hidden_layers": 4}}"#)
        let plan = try plan("stack: image_tower.encoder.layers\n\(Self.pruned)")
        #expect(plan.remarks.contains { $0.contains("may count the layers of video_tower.encoder.layers and not those of") })
    }

    // MARK: Layers that depend on their place

    @Test(arguments: [
        (#"{"num_hidden_layers": 4, "scale_attn_by_inverse_layer_idx": true}"#, "w.weight", "scale_attn_by_inverse_layer_idx"),
        (#"{"num_hidden_layers": 4, "rescale_every": 6}"#, "w.weight", "rescale_every"),
        (#"{"num_hidden_layers": 4}"#, "attn.lambda_q1", "differential attention"),
        (#"{"num_hidden_layers": 4, "model_type": "beam"}"#, "w.weight", "sums of the layers before"),
    ])
    func layersThatComputeWithTheirNumber(config: String, rest: String, words: String) throws {
        write(Self.layers("model.layers", 4, rest), config: config)
        let remarks = try plan(Self.pruned).remarks
        #expect(remarks.count == 1 && remarks[0].contains("compute with their own number") && remarks[0].contains(words))
        // The first layers keep their numbers.
        #expect(try plan(Self.slices([0..<3])).remarks == [])
        #expect(try plan(Self.slices([0..<4])).remarks == [])
    }

    @Test(arguments: [
        (#""scale_attn_by_inverse_layer_idx": false"#, "w.weight"), (#""rescale_every": 0"#, "w.weight"),
        (#""n": 1"#, "w.weight"),
    ])
    func layersThatDoNot(config: String, rest: String) throws {
        write(Self.layers("model.layers", 4, rest), config: #"{"num_hidden_layers": 4, \#(config)}"#)
        #expect(try plan(Self.pruned).remarks == [])
    }

    /// ESM's contacts have a weight for each head of each layer.
    @Test func aTensorForAllLayers() throws {
        let config = #"{"num_hidden_layers": 4, "num_attention_heads": 3}"#
        write(Self.layers("esm.encoder.layer", 4) + [("esm.contact_head.regression.weight", [1, 12])], config: config)
        let remarks = try plan(Self.pruned).remarks
        #expect(remarks.count == 1 && remarks[0].contains("'esm.contact_head.regression.weight' holds something for each layer"))
        write(Self.layers("esm.encoder.layer", 4) + [("esm.other.weight", [1, 11])], config: config)
        #expect(try plan(Self.pruned).remarks == [])
    }

    /// Qwen3-VL merges what certain layers see, with a part beside the layers for each.
    @Test func partsForNumberedLayers() throws {
        write(
            Self.layers("visual.blocks", 4) + Self.layers("visual.deepstack_merger_list", 2),
            config: #"{"vision_config": {"depth": 4, "deepstack_visual_indexes": [1, 3]}}"#)
        func slices(_ ranges: [Range<Int>]) -> String {
            let slices = Self.slices(ranges).split(separator: "\n").map { "    \($0)\n" }.joined()
            return
                "modules:\n  vision_tower:\n    stack: visual.blocks\n\(slices)"
                + "  multi_modal_projector:\n    models: [{model: a}]\n"
        }
        let remarks = try plan(slices([0..<1, 2..<4])).remarks
        #expect(remarks.count == 1 && remarks[0].contains("visual.deepstack_merger_list has a part for each"))
        let whole = try plan(slices([1..<4]))
        #expect(whole.remarks == [])
        #expect(try config(whole).json(["vision_config", "deepstack_visual_indexes"]) == "[0, 2]")
    }

    // MARK: Tensors that do not fit the config

    @Test func layersOfAnotherShape() throws {
        let config = #"{"num_hidden_layers": 2}"#
        write(Self.layers("model.layers", 2), config: config)
        write(Self.layers("model.layers", 2, "w.weight", [3]), as: "b", config: config)
        let slices = Self.slices([0..<1]) + Self.slices([1..<2], model: "b").replacing("slices:\n", with: "")
        let remarks = try plan(slices).remarks
        #expect(remarks.count == 1)
        #expect(
            remarks.first?.contains("'model.layers.1.w.weight' has shape [3], and [2] there: some tensors are not as") == true)
        write(Self.layers("model.layers", 2), as: "b", config: config)
        #expect(try plan(slices).remarks == [])
        write(Self.layers("model.layers", 2) + Self.layers("model.layers", 2, "bias"), as: "b", config: config)
        #expect(try plan(slices).remarks.first?.contains("'model.layers.1.bias' is none of 'a'") == true)
    }

    @Test func modulesOfAnotherModel() throws {
        func write(_ model: String, _ size: Int) {
            self.write([("model.layers.0.w", [2]), ("vision_tower.patch.weight", [size])], as: model)
        }
        write("a", 2)
        let recipe = "modules:\n  text_decoder:\n    models: [{model: a}]\n  vision_tower:\n    models: [{model: b}]\n"
        for (size, isTold) in [(2, false), (3, true)] {
            write("b", size)
            let remarks = try plan(recipe).remarks
            #expect(remarks.contains { $0.contains("'vision_tower.patch.weight' has shape [3]") } == isTold)
            #expect(remarks.isEmpty != isTold)
        }
    }

    // MARK: Heads

    /// The embedding of a model serves as its head only where the model may tie the two.
    @Test(arguments: [
        ("{}", true), (#"{"tie_word_embeddings": true}"#, true), (#"{"architectures": ["LlamaForCausalLM"]}"#, true),
        (#"{"tie_word_embeddings": false}"#, false), (#"{"architectures": ["LlamaModel"]}"#, false),
        (#"{"text_config": {"tie_word_embeddings": false}}"#, false),
    ])
    func embeddingsThatServeAsHeads(config: String, serves: Bool) throws {
        write([("model.embed_tokens.weight", [4, 2]), ("lm_head.weight", [4, 2])])
        write([("model.embed_tokens.weight", [4, 2])], as: "b", config: config)
        let recipe = "models: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
        if serves {
            #expect(try plan(recipe, method: "linear").tensors.first { $0.name == "lm_head.weight" }?.sources.count == 2)
        } else {
            let error = #expect(throws: Problems.self) { try plan(recipe, method: "linear") }
            #expect(error?.all.first?.problem == "missing in b, present in 1 of 2 models")
        }
    }

    /// The head comes from the last slice's model, or from its embedding if it ties the two.
    @Test func headsOfStackedModels() throws {
        let layers = Self.layers("model.layers", 2), embedding = ("model.embed_tokens.weight", [4, 2])
        let architecture = #""architectures": ["LlamaForCausalLM"]"#
        write(layers + [embedding, ("lm_head.weight", [4, 2])], config: "{\(architecture), \"tie_word_embeddings\": false}")
        write(layers + [embedding], as: "b", config: "{\(architecture), \"tie_word_embeddings\": true}")
        let plan = try plan(Self.slices([0..<1]) + Self.slices([1..<2], model: "b").replacing("slices:\n", with: ""))
        #expect(plan.tensors.contains { $0.name == "lm_head.weight" })
    }

    @Test func headsThatAreLacking() throws {
        func remarks(_ tie: String, _ name: String) throws -> [String] {
            write([("model.embed_tokens.weight", [4, 2])], config: "{\"architectures\": [\"\(name)\"]\(tie)}")
            return try plan("models: [{model: a}]\n").remarks
        }
        let told = try remarks(#", "tie_word_embeddings": false"#, "LlamaForCausalLM")
        #expect(told.count == 1 && told[0].contains("has no head"))
        #expect(try remarks(#", "tie_word_embeddings": true"#, "LlamaForCausalLM") == [])
        #expect(try remarks(#", "tie_word_embeddings": false"#, "LlamaModel") == [])
        #expect(try remarks("", "LlamaForCausalLM") == [])
    }

    /// Two stacks side by side, and a count that may be that of either.
    @Test func countsThatTwoStacksMayMean() throws {
        write(
            Self.layers("blocks", 4) + Self.layers("layers", 4), config: #"{"text_config": {"num_hidden_layers": 4}, "depth": 4}"#
        )
        let remarks = try plan("stack: blocks\n\(Self.pruned)").remarks
        #expect(remarks.contains { $0.contains("may count the layers of layers and not those of blocks") }, "\(remarks)")
    }
}
