import Checkpoints
import Core
import Planning
import TestSupport
import Testing
import Work

/// `config.json` follows the layers that a recipe chooses, and each layer has the tensors that it has in its sources.
@Suite struct ConfigLayersTests {
    private let files = MemoryFiles()

    /// A model of the stacks given: text before the layers' number, and how many there are.
    private func write(
        _ stacks: KeyValuePairs<String, Int>, as model: String = "a", config: String, more: [String] = [],
        rests: (String, Int) -> [String] = { _, _ in ["w.weight"] }
    ) {
        let names = stacks.flatMap { prefix, count in
            (0..<count).flatMap { layer in rests(prefix, layer).map { "\(prefix).\(layer).\($0)" } }
        }
        let tensors = (names + more).map { ($0, TestTensor([1, 2])) }
        files.write(TestTensor.encode(tensors), to: "/models/\(model)/model.safetensors")
        files.write(Array(config.utf8), to: "/models/\(model)/config.json")
    }

    private func plan(_ recipe: String) throws -> Plan {
        try Planner.plan(
            PlanRequest(
                recipe: "merge_method: passthrough\n\(recipe)", recipeName: "recipe.yml", workingDirectory: "/models",
                roots: Roots(everythingIn: files)))
    }

    private func config(_ plan: Plan) throws -> JSONText {
        try JSONText(try #require(plan.sidecars.first { $0.name == "config.json" }).contents(from: files))
    }

    private static func slices(_ ranges: [Range<Int>], model: String = "a", indent: String = "") -> String {
        "\(indent)slices:\n"
            + ranges.map { "\(indent)- sources: [{model: \(model), layer_range: [\($0.lowerBound), \($0.upperBound)]}]\n" }
            .joined()
    }

    private static func module(_ name: String, _ ranges: [Range<Int>]? = nil) -> String {
        "  \(name):\n" + (ranges.map { slices($0, indent: "    ") } ?? "    models: [{model: a}]\n")
    }

    private static let pruned = slices([0..<1, 2..<4])

    // MARK: Counts

    struct Counted: Sendable, CustomTestStringConvertible {
        let name: String
        let stacks: KeyValuePairs<String, Int>
        let config: String
        let recipe: String
        /// The config after it, without spaces.
        let expected: String
        var testDescription: String { name }
    }

    /// The key that counts the layers of the module changes, no other.
    @Test(arguments: [
        Counted(
            name: "T5's decoder", stacks: ["encoder.block": 4, "decoder.block": 4],
            config: #"{"num_decoder_layers": 4, "num_heads": 4, "num_layers": 4}"#,
            recipe: "modules:\n" + module("encoder") + module("decoder", [0..<1]) + module("shared"),
            expected: #"{"num_decoder_layers":1,"num_heads":4,"num_layers":4}"#),
        Counted(
            name: "T5's encoder", stacks: ["encoder.block": 4, "decoder.block": 4],
            config: #"{"num_decoder_layers": 4, "num_heads": 4, "num_layers": 4}"#,
            recipe: "modules:\n" + module("encoder", [0..<3]) + module("decoder") + module("shared"),
            expected: #"{"num_decoder_layers":4,"num_heads":4,"num_layers":3}"#),
        Counted(
            name: "BART's encoder, counted twice", stacks: ["model.encoder.layers": 4, "model.decoder.layers": 4],
            config: #"{"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4}"#,
            recipe: "modules:\n" + module("encoder", [0..<3]) + module("decoder") + module("shared"),
            expected: #"{"encoder_layers":3,"decoder_layers":4,"num_hidden_layers":3}"#),
        Counted(
            name: "BART's decoder", stacks: ["model.encoder.layers": 4, "model.decoder.layers": 4],
            config: #"{"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4}"#,
            recipe: "modules:\n" + module("encoder") + module("decoder", [0..<3]) + module("shared"),
            expected: #"{"encoder_layers":4,"decoder_layers":3,"num_hidden_layers":4}"#),
        Counted(
            name: "an encoder and a decoder in sections", stacks: ["encoder.encoder.layer": 4, "decoder.bert.encoder.layer": 4],
            config: #"{"encoder": {"num_hidden_layers": 4}, "decoder": {"num_hidden_layers": 4}}"#,
            recipe: "modules:\n" + module("encoder") + module("decoder", [0..<3]) + module("shared"),
            expected: #"{"encoder":{"num_hidden_layers":4},"decoder":{"num_hidden_layers":3}}"#),
        Counted(
            name: "a vision tower", stacks: ["model.layers": 4, "visual.blocks": 4],
            config: #"{"num_hidden_layers": 4, "vision_config": {"depth": 4}}"#,
            recipe: "modules:\n" + module("text_decoder") + module("vision_tower", [0..<3]) + module("multi_modal_projector"),
            expected: #"{"num_hidden_layers":4,"vision_config":{"depth":3}}"#),
        Counted(
            name: "the text model beside it", stacks: ["model.language_model.layers": 4, "model.visual.blocks": 4],
            config: #"{"text_config": {"num_hidden_layers": 4}, "vision_config": {"depth": 4, "num_hidden_layers": 4}}"#,
            recipe: "modules:\n" + module("text_decoder", [0..<3]) + module("vision_tower") + module("multi_modal_projector"),
            expected: #"{"text_config":{"num_hidden_layers":3},"vision_config":{"depth":4,"num_hidden_layers":4}}"#),
        Counted(
            name: "nested twice", stacks: ["thinker.model.layers": 4, "thinker.audio_tower.layers": 4, "talker.model.layers": 4],
            config: #"""
                {"thinker_config": {"audio_config": {"encoder_layers": 4, "num_hidden_layers": 4},
                 "text_config": {"num_hidden_layers": 4}}, "talker_config": {"num_hidden_layers": 4}}
                """#,
            recipe: "modules:\n  text_decoder:\n    models: [{model: a}]\n" + module("audio_tower", [0..<3]),
            expected: #"{"thinker_config":{"audio_config":{"encoder_layers":3,"num_hidden_layers":3},"#
                + #""text_config":{"num_hidden_layers":4}},"talker_config":{"num_hidden_layers":4}}"#),
        Counted(
            name: "a stack beside convolutions", stacks: ["w.feature_extractor.conv_layers": 7, "w.encoder.layers": 4],
            config: #"{"num_feat_extract_layers": 7, "num_hidden_layers": 4}"#, recipe: pruned,
            expected: #"{"num_feat_extract_layers":7,"num_hidden_layers":3}"#),
    ])
    func countsOfTheirModules(_ counted: Counted) throws {
        // The third module of the recipes.
        write(
            counted.stacks, config: counted.config,
            more: ["shared.weight", "multi_modal_projector.weight"].filter { name in
                counted.recipe.contains("  \(name.dropLast(".weight".count)):")
            })
        let plan = try plan(counted.recipe)
        #expect(try text(config(plan)) == counted.expected)
        #expect(plan.remarks == [])
    }

    private func text(_ config: JSONText) -> String {
        // The type of the tensors joins every config.
        String(decoding: config.bytes, as: UTF8.self).filter { !$0.isWhitespace }
            .replacing(#","torch_dtype":"float32""#, with: "")
    }

    @Test func aCountThatIsNotKnownIsTold() throws {
        write(["model.layers": 4], config: #"{"stages": 4, "num_hidden_layers": 12}"#)
        let plan = try plan(Self.pruned)
        #expect(try text(config(plan)) == #"{"stages":4,"num_hidden_layers":12}"#)
        #expect(plan.remarks.count == 1 && plan.remarks[0].contains("the output has 3 layers in model.layers"))
    }

    @Test func oneCountForEncoderAndDecoderIsTold() throws {
        write(["encoder.block": 4, "decoder.block": 4], config: #"{"num_layers": 4}"#, more: ["shared.weight"])
        for (encoder, decoder) in [([0..<3], nil), (nil, [0..<3])] as [([Range<Int>]?, [Range<Int>]?)] {
            let recipe = "modules:\n" + Self.module("encoder", encoder) + Self.module("decoder", decoder)
            let plan = try plan(recipe + Self.module("shared"))
            #expect(try text(config(plan)) == #"{"num_layers":4}"#)
            #expect(plan.remarks.count == 1 && plan.remarks[0].contains("set it by hand"))
        }
    }

    /// Nemotron-H's config has no other count than the pattern.
    @Test func aListMayBeTheOnlyCount() throws {
        write(["backbone.layers": 4], config: #"{"hybrid_override_pattern": "M-*E"}"#)
        let plan = try plan(Self.pruned)
        #expect(try text(config(plan)) == #"{"hybrid_override_pattern":"M*E"}"#)
        #expect(plan.remarks == [])
    }

    // MARK: What is said of single layers

    @Test(arguments: [
        (#""layer_types": ["a", "b", "c", "d"]"#, #""layer_types":["a","c","d"]"#),
        (#""no_rope_layers": [1, 1, 1, 0]"#, #""no_rope_layers":[1,1,0]"#),
        (#""moe_layers": [true, false, true, true]"#, #""moe_layers":[true,true,true]"#),
        (#""moe_layers": [1, 3]"#, #""moe_layers":[2]"#),
        (#""cross_attention_layers": [3, 8, 13]"#, #""cross_attention_layers":[2]"#),
        (#""block_types": ["r", "r", "a"]"#, #""block_types":["r","a","r"]"#),
        (#""indexer_types": [0, 1, 2, 1]"#, #""indexer_types":[0,2,1]"#),
        (#""mlp_only_layers": [0, 1, 2, 3]"#, #""mlp_only_layers":[0,1,2]"#),
        (#""full_attn_idxs": [2, 3]"#, #""full_attn_idxs":[1,2]"#),
        (#""num_key_value_heads": [1, 2, 4, 8]"#, #""num_key_value_heads":[1,4,8]"#),
        (#""block_configs": [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]"#, #""block_configs":[{"n":0},{"n":2},{"n":3}]"#),
        (#""sliding_window": [null, 8, null, 16]"#, #""sliding_window":[null,null,16]"#),
        (#""hybrid_override_pattern": "M-*E""#, #""hybrid_override_pattern":"M*E""#),
        (#""attention_types": [[["global", "local"], 2]]"#, #""attention_types":[[["global","global","local"],1]]"#),
        (#""per_layer_config": {"0": {"n": 0}, "3": {"n": 3}}"#, #""per_layer_config":{"0":{"n":0},"2":{"n":3}}"#),
        (
            #""stage_names": ["stem", "stage1", "stage2", "stage3", "stage4"], "out_features": ["stage4"], "out_indices": [4]"#,
            #""stage_names":["stem","stage1","stage2","stage3"],"out_features":["stage3"],"out_indices":[3]"#
        ),
        (#""moe_layer_start_index": 2"#, #""moe_layer_start_index":1"#),
        (#""moe_layer_end_index": 2"#, #""moe_layer_end_index":1"#),
        (#""moe_layer_end_index": -1"#, #""moe_layer_end_index":-1"#),
        (#""first_k_dense_replace": 2"#, #""first_k_dense_replace":1"#),
        (#""max_window_layers": 28"#, #""max_window_layers":28"#),
        (#""num_kv_shared_layers": 3"#, #""num_kv_shared_layers":2"#),
        (#""eos_token_id": [1, 2, 3, 4]"#, #""eos_token_id":[1,2,3,4]"#),
        (#""decoder_sparse_step": 1"#, #""decoder_sparse_step":1"#),
        (#""attn_layer_period": 4, "layer_types": ["a", "a", "a", "b"]"#, #""attn_layer_period":4,"layer_types":["a","a","b"]"#),
    ])
    func theOtherKeysFollow(old: String, new: String) throws {
        write(["model.layers": 4], config: "{\"n_layer\": 4, \(old)}")
        let plan = try plan(Self.pruned)
        #expect(try text(config(plan)) == "{\"n_layer\":3,\(new)}")
        #expect(plan.remarks == [])
    }

    @Test(arguments: [
        (#""attn_layer_period": 2"#, "does not describe the order"), (#""moe_layer_freq": 3"#, "does not describe the order"),
        (#""out_features": ["stage2"]"#, "does not describe the order"),
        (#""scales": [1, 2, 3, 5]"#, "as many as model.layers had layers"),
    ])
    func whatCannotFollowIsTold(member: String, words: String) throws {
        write(["model.layers": 4], config: "{\"n_layers\": 4, \(member)}")
        let plan = try plan(Self.pruned)
        #expect(try text(config(plan)) == "{\"n_layers\": 3, \(member)}".filter { !$0.isWhitespace })
        #expect(plan.remarks.count == 1 && plan.remarks[0].contains(words), "\(plan.remarks)")
    }

    /// A period still describes layers that keep their places in it.
    @Test func aPeriodMayStillHold() throws {
        write(["model.layers": 4], config: #"{"n_layer": 4, "attn_layer_period": 2}"#)
        #expect(try plan(Self.slices([0..<2, 0..<4])).remarks == [])
    }

    @Test func listsOfSeveralModelsComeTogether() throws {
        write(["model.layers": 2], as: "a", config: #"{"n_layer": 2, "layer_types": ["a0", "a1"], "moe_layers": [1]}"#)
        write(["model.layers": 3], as: "b", config: #"{"n_layer": 3, "layer_types": ["b0", "b1", "b2"], "moe_layers": [0]}"#)
        write(["model.layers": 2], as: "c", config: #"{"n_layer": 2, "moe_layers": []}"#)
        func stack(_ model: String) throws -> Plan {
            try plan(Self.slices([0..<2]) + Self.slices([0..<2], model: model).replacing("slices:\n", with: ""))
        }
        let both = try stack("b")
        #expect(try config(both).elements(["layer_types"]) == ["a0", "a1", "b0", "b1"].map { "\"\($0)\"" })
        #expect(try config(both).elements(["moe_layers"]) == ["1", "2"])
        #expect(both.remarks == [])
        let remarks = try stack("c").remarks
        #expect(remarks.count == 1 && remarks[0].contains("'layer_types'") && remarks[0].contains("of 'c'"), "\(remarks)")
    }

    // MARK: Tensors of each layer

    private func names(_ plan: Plan) -> [String] { plan.stages.joined().flatMap(\.tensors).map(\.name).sorted() }

    @Test func layersOfSeveralKinds() throws {
        let kinds = { (_: String, layer: Int) in
            layer % 2 == 0 ? ["attn.weight", "norm.weight"] : ["conv.weight", "norm.weight"]
        }
        write(["model.layers": 4], config: #"{"n_layer": 4}"#, rests: kinds)
        #expect(
            names(try plan(Self.slices([1..<4])))
                == [
                    "model.layers.0.conv.weight", "model.layers.0.norm.weight", "model.layers.1.attn.weight",
                    "model.layers.1.norm.weight", "model.layers.2.conv.weight", "model.layers.2.norm.weight",
                ])
    }

    /// T5 keeps the relative position bias of all blocks in the first.
    @Test func whatTheFirstLayerHasForAllStaysThere() throws {
        write(["encoder.block": 3], config: #"{"n_layer": 3}"#) { _, layer in
            layer == 0 ? ["bias_table.weight", "w.weight"] : ["w.weight"]
        }
        let expected = ["encoder.block.0.bias_table.weight"] + (0..<2).map { "encoder.block.\($0).w.weight" }
        let pruned = try plan(Self.slices([1..<3]))
        #expect(names(pruned) == expected)
        let table = try #require(pruned.stages.joined().flatMap(\.tensors).first { $0.name == expected[0] })
        let layer = try #require(pruned.stages.joined().flatMap(\.tensors).first { $0.name == expected[1] })
        #expect(table.sources[0] != layer.sources[0])
        #expect(names(try plan(Self.slices([0..<1, 0..<1]))) == expected)
    }

    /// Gemma 3n has one embedding for all layers.
    @Test func whatHasAPieceForEachLayerIsTold() throws {
        write(["layers": 3], config: #"{"n_layer": 3}"#, more: ["embed_tokens_per_layer.weight"])
        #expect(try plan(Self.slices([0..<3])).remarks == [])
        for ranges in [[0..<2], [1..<3], [0..<1, 2..<3, 1..<2]] {
            let remarks = try plan(Self.slices(ranges)).remarks
            #expect(remarks.count == 1 && remarks[0].contains("'embed_tokens_per_layer.weight' holds something"), "\(remarks)")
        }
    }

    /// A label is no layer.
    @Test func labelsStay() throws {
        let labels = #""id2label":{"0":"NO","1":"YES"}"#
        write(["layers": 4], config: "{\"n_layer\": 4, \(labels)}")
        #expect(try text(config(plan(Self.pruned))) == "{\"n_layer\":3,\(labels)}")
    }

    /// T5Gemma's encoder and decoder have lists of their own.
    @Test func listsOfSectionsAreNotMistaken() throws {
        let part = { (count: Int, types: String) in "{\"num_hidden_layers\":\(count),\"layer_types\":[\(types)]}" }
        let four = part(4, #""a","b","c","d""#)
        write(["model.encoder.layers": 4, "model.decoder.layers": 4], config: "{\"encoder\":\(four),\"decoder\":\(four)}")
        let recipe = "modules:\n" + Self.module("encoder") + Self.module("decoder", [0..<1, 2..<4])
        let expected = "{\"encoder\":\(four),\"decoder\":\(part(3, #""a","c","d""#))}"
        let plan = try plan(recipe)
        #expect(try text(config(plan)) == expected)
        #expect(plan.remarks == [])
    }

    /// ModernBERT's first layer has no norm before the attention: another layer in its place does not fit.
    @Test func whatOnlyTheFirstLayerLacksIsTold() throws {
        write(["layers": 3], config: #"{"n_layer": 3}"#) { _, layer in layer == 0 ? ["w.weight"] : ["norm.weight", "w.weight"] }
        #expect(try plan(Self.slices([0..<2])).remarks == [])
        for ranges in [[1..<3], [0..<1, 0..<2]] {
            let remarks = try plan(Self.slices(ranges)).remarks
            #expect(remarks.count == 1 && remarks[0].contains("layer 0 of 'a' alone has no norm.weight"), "\(remarks)")
        }
    }

    // MARK: Types, ties and rows

    private func config(_ config: String, _ tensors: [(String, [Int])], recipe: String) throws -> (JSONText, [String]) {
        files.write(
            TestTensor.encode(tensors.map { ($0.0, TestTensor([Float](repeating: 1, count: $0.1.reduce(1, *)), shape: $0.1)) }),
            to: "/models/m/model.safetensors")
        files.write(Array(config.utf8), to: "/models/m/config.json")
        let plan = try Planner.plan(
            PlanRequest(
                recipe: recipe, recipeName: "recipe.yml", workingDirectory: "/models", roots: Roots(everythingIn: files)))
        let sidecar = try #require(plan.sidecars.first { $0.name == "config.json" })
        return (try JSONText(try sidecar.contents(from: files)), plan.remarks)
    }

    private static let alone = "merge_method: passthrough\nmodels:\n- model: m\n"

    /// Every section that names a type follows the output's; nothing else changes.
    @Test func typesOfSectionsFollow() throws {
        let text = #"""
            {"dtype": "float32", "text_config": {"dtype": "float32", "n": 1}, "vision_config": {"torch_dtype": "torch.float32"},
             "audio_config": {"dtype": null}, "kernel": {"dtype": "auto"}}
            """#
        let (config, _) = try config(text, [("w", [2])], recipe: Self.alone + "dtype: bfloat16\n")
        #expect(
            String(decoding: config.bytes, as: UTF8.self)
                == text.replacing("torch.float32", with: "bfloat16").replacing(
                    "float32", with: "bfloat16"))
        #expect(try self.config(text, [("w", [2])], recipe: Self.alone).0.string(["text_config", "dtype"]) == "float32")
    }

    private static let embedding = ("model.embed_tokens.weight", [4, 2])
    private static let head = ("lm_head.weight", [4, 2])

    /// The head of another model stands by itself, wherever the config says otherwise, and where a class does by default.
    @Test(
        arguments: [
            (#"{"tie_word_embeddings": true}"#, [[]]), (#"{"architectures": ["GemmaForCausalLM"]}"#, [[]]),
            (#"{"text_config": {"tie_word_embeddings": true}}"#, [[], ["text_config"]]),
            (#"{"tie_word_embeddings": true, "llm_config": {"tie_word_embeddings": true}}"#, [[], ["llm_config"]]),
        ] as [(String, [[String]])])
    func headsOfOtherModels(text: String, sections: [[String]]) throws {
        let other = [Self.embedding, Self.head].map { ($0.0, TestTensor([Float](repeating: 2, count: 8), shape: $0.1)) }
        files.write(TestTensor.encode(other), to: "/models/o/model.safetensors")
        files.write(Array("{}".utf8), to: "/models/o/config.json")
        let recipe = "merge_method: linear\nmodels:\n- model: m\n- model: o\nparameters: {weight: 1}\n"
        let (config, remarks) = try config(text, [Self.embedding], recipe: recipe)
        for section in sections { #expect(config.flag(section + ["tie_word_embeddings"]) == false, "\(section)") }
        #expect(remarks.contains { $0.contains("untied head") })
    }

    /// Ties of parts without a head are none of the head's business; a model whose head stands by itself stays as it is.
    @Test func tiesThatStay() throws {
        let text = #"{"tie_word_embeddings": false, "vision_config": {"tie_word_embeddings": true}}"#
        let (config, remarks) = try config(text, [Self.embedding, Self.head], recipe: Self.alone)
        #expect(String(decoding: config.bytes, as: UTF8.self).hasPrefix(text.dropLast()) && remarks == [])
        #expect(try self.config("{}", [Self.embedding, Self.head], recipe: Self.alone).0.has(["tie_word_embeddings"]) == false)
        let tied = #"{"tie_word_embeddings": true}"#
        #expect(try self.config(tied, [Self.embedding], recipe: Self.alone).0.flag(["tie_word_embeddings"]) == true)
    }
}
