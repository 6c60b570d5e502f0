import Checkpoints
import Core
import Operators
import Planning
import TestSupport
import Testing
import Work

/// What adapters of every kind do to which tensors, and what does not fit.
@Suite struct AdapterKindTests {
    private let family = MemoryFamily()

    private static func zeros(_ shape: [Int]) -> TestTensor {
        TestTensor([Float](repeating: 0, count: shape.reduce(1, *)), shape: shape)
    }

    private func write(_ model: [(String, [Int])], config: String = "{}", _ adapter: [(String, [Int])], _ adapterConfig: String) {
        family.files.write(
            TestTensor.encode(model.map { ($0.0, Self.zeros($0.1)) }), to: "/models/m/model.safetensors")
        family.write(config, to: "m/config.json")
        family.files.write(
            TestTensor.encode(adapter.map { ("base_model.model.\($0.0)", Self.zeros($0.1)) }),
            to: "/models/l/adapter_model.safetensors")
        family.write(adapterConfig, to: "l/adapter_config.json")
    }

    private func plan(_ model: String = "m+l") throws -> [String: TensorWork] {
        let plan = try family.plan("merge_method: passthrough\nmodels:\n- model: \(model)\n")
        return Dictionary(uniqueKeysWithValues: plan.tensors.map { ($0.name, $0) })
    }

    private func problem() -> String { #expect(throws: Problems.self) { try plan() }?.all.first?.description ?? "" }

    /// Factors of rank 1.
    private static func factors(_ module: String, inputs: Int, outputs: Int) -> [(String, [Int])] {
        [("\(module).lora_A.weight", [1, inputs]), ("\(module).lora_B.weight", [outputs, 1])]
    }

    // MARK: Names

    @Test(arguments: [
        ("model.language_model.layers.0.q", "language_model.model.layers.0.q"),
        ("model.language_model.layers.0.q", "model.layers.0.q"),
        ("model.layers.0.q", "model.language_model.layers.0.q"), ("transformer.h.0.q", "h.0.q"), ("h.0.q", "transformer.h.0.q"),
        ("bert.encoder.layer.0.q", "encoder.layer.0.q"), ("encoder.layer.0.q", "bert.encoder.layer.0.q"),
        ("model.layers.0.mlp.gate", "model.layers.0.block_sparse_moe.gate"), ("lm_head", "embed_out"),
        ("model.visual.blocks.0.q", "visual.blocks.0.q"),
    ])
    func wrappersAreNoDifference(names: (adapter: String, model: String)) throws {
        write(
            [("\(names.model).weight", [3, 2]), ("cls.weight", [1])], Self.factors(names.adapter, inputs: 2, outputs: 3), "{}")
        #expect(try plan()["\(names.model).weight"]?.sources[0].lowRank != nil)
    }

    @Test func theBiasOfADecoderIsThatOfItsHead() throws {
        write([("cls.predictions.bias", [3])], [("cls.predictions.decoder.bias", [3])], #"{"bias": "all"}"#)
        #expect(try plan()["cls.predictions.bias"]?.sources[0].file == 1)
        write([("cls.predictions.bias", [3])], [("cls.predictions.other.bias", [3])], #"{"bias": "all"}"#)
        #expect(problem().contains("the model has no tensor"))
    }

    /// What tells the parts of a model apart is no wrapper; a name that could mean two tensors means none.
    @Test(arguments: [
        ("decoder.layers.0.q", ["layers.0.q"]), ("vision_tower.layers.0.q", ["model.layers.0.q"]),
        ("layers.0.q", ["model.layers.0.q", "transformer.layers.0.q"]),
    ])
    func partsOfModelsAreTold(names: (adapter: String, model: [String])) {
        write(names.model.map { ("\($0).weight", [3, 2]) }, Self.factors(names.adapter, inputs: 2, outputs: 3), "{}")
        #expect(problem().contains("the model has no tensor '\(names.adapter).weight'"))
    }

    // MARK: The plan's digest

    /// Every part of a description has a place in the plan's encoding.
    @Test func descriptionsDifferInThePlansDigest() throws {
        let q = Self.factors("q", inputs: 2, outputs: 2), magnitudes = [("q.lora_magnitude_vector", [2])]
        let bias = [("q.lora_B.bias", [2])]
        var digests: [Digest] = []
        for (adapter, config) in [
            (q, "{}"), (q, #"{"fan_in_fan_out": true}"#), (q, #"{"lora_alpha": 3}"#), (q + magnitudes, "{}"),
            (q + magnitudes, #"{"fan_in_fan_out": true}"#), (q + bias, "{}"), (q, #"{"init_lora_weights": "pissa"}"#),
            (q, #"{"init_lora_weights": "olora"}"#),
        ] {
            write([("q.weight", [2, 2]), ("q.bias", [2])], adapter, config)
            digests.append(try family.plan("merge_method: passthrough\nmodels:\n- model: m+l\n").digest)
        }
        #expect(Set(digests).count == digests.count)
    }

    // MARK: Shapes

    @Test func factorsMustFitInThePlan() {
        write([("model.q.weight", [3, 2])], Self.factors("model.q", inputs: 4, outputs: 3), "{}")
        #expect(problem().contains("factors of shapes [1, 4] and [3, 1] do not fit the model's tensor of shape [3, 2]"))
        write([("model.norm.weight", [3])], [("model.norm.weight", [4])], #"{"modules_to_save": ["norm"]}"#)
        #expect(problem().contains("has shape [4], the model's [3]"))
        write([("model.q.weight", [3, 2])], [("model.q.lora_C.weight", [3])], "{}")
        #expect(problem().contains("is no part of an adapter that can be folded"))
    }

    /// GPT-2's matrices are transposed, and the factors show it, except where a matrix is square.
    @Test(arguments: [(false, false), (false, true), (true, false), (true, true)])
    func transposedMatrices(isTransposed: Bool, isFlagged: Bool) throws {
        let wide = isTransposed ? [2, 3] : [3, 2]
        write(
            [("h.0.wide.weight", wide), ("h.0.square.weight", [2, 2])],
            Self.factors("h.0.wide", inputs: 2, outputs: 3) + Self.factors("h.0.square", inputs: 2, outputs: 2),
            #"{"fan_in_fan_out": \#(isFlagged)}"#)
        for name in ["wide", "square"] {
            #expect(try plan()["h.0.\(name).weight"]?.sources[0].lowRank?.isTransposed == isTransposed, "\(name)")
        }
        // By itself, a square matrix is as the config says.
        write(
            [("h.0.square.weight", [2, 2])], Self.factors("h.0.square", inputs: 2, outputs: 2),
            #"{"fan_in_fan_out": \#(isFlagged)}"#)
        #expect(try plan()["h.0.square.weight"]?.sources[0].lowRank?.isTransposed == isFlagged)
    }

    /// A classifier's head on a model that was trained without one.
    @Test func headsThatTheModelLacks() {
        write([("model.q.weight", [3, 2])], [("score.weight", [4, 2])], #"{"modules_to_save": ["score"]}"#)
        #expect(problem().contains("has no tensor 'score.weight' for it, which the adapter trained as a whole"))
        #expect(problem().contains("AutoModelFor"))
    }

    @Test func emptyFactors() {
        write([("q.weight", [3, 2])], [("q.lora_A.weight", [0, 2]), ("q.lora_B.weight", [3, 0])], #"{"r": 0}"#)
        #expect(problem().contains("has no elements: it was saved before its parts were gathered"))
    }

    /// An adapter of weight 0 changes nothing; PEFT's default stands where the config has no alpha.
    @Test(arguments: [(#"{"lora_alpha": 0}"#, 0.0), ("{}", 8)])
    func alphas(config: String, scale: Double) throws {
        write([("q.weight", [3, 2])], Self.factors("q", inputs: 2, outputs: 3), config)
        #expect(try plan()["q.weight"]?.sources[0].lowRank?.scale == scale)
    }

    @Test func convolutions() throws {
        let tensors = [("conv.lora_A.weight", [2, 3, 2, 2]), ("conv.lora_B.weight", [4, 2, 1, 1])]
        write([("conv.weight", [4, 3, 2, 2])], tensors, "{}")
        #expect(try plan()["conv.weight"]?.sources[0].lowRank?.rank == 2)
        // PEFT does not merge grouped convolutions either.
        write([("conv.weight", [4, 1, 2, 2])], tensors, "{}")
        #expect(problem().contains("do not fit the model's tensor of shape [4, 1, 2, 2]"))
    }

    @Test func biases() throws {
        let adapter = Self.factors("q", inputs: 2, outputs: 3) + [("q.lora_B.bias", [3])]
        write([("q.weight", [3, 2]), ("q.bias", [3])], adapter, #"{"lora_alpha": 4, "lora_bias": true}"#)
        let update = try plan()["q.bias"]?.sources[0].lowRank
        #expect(update?.a == nil && update?.scale == 4)
        write([("q.weight", [3, 2])], adapter, #"{"lora_bias": true}"#)
        #expect(problem().contains("the model has no tensor 'q.bias'"))
        write([("q.weight", [3, 2]), ("q.bias", [3])], adapter.dropLast() + [("q.bias", [3])], #"{"bias": "lora_only"}"#)
        #expect(try plan()["q.bias"]?.sources[0].lowRank == nil && plan()["q.bias"]?.sources[0].file == 1)
    }

    @Test func magnitudes() throws {
        func axis(_ tensor: String) throws -> RescaledMatrix.Axis? {
            if case .rescaled(.lowRank, let magnitudes)? = try plan()[tensor]?.sources[0] { magnitudes.axis } else { nil }
        }
        write(
            [("a.weight", [3, 2]), ("b.weight", [2, 3]), ("e.weight", [5, 2]), ("c.weight", [3, 2, 2])],
            Self.factors("a", inputs: 2, outputs: 3) + Self.factors("b", inputs: 2, outputs: 3) + [
                ("a.lora_magnitude_vector", [3]), ("b.lora_magnitude_vector.weight", [3]), ("e.lora_embedding_A", [1, 5]),
                ("e.lora_embedding_B", [2, 1]), ("e.lora_magnitude_vector", [2]), ("c.lora_A.weight", [1, 2, 2]),
                ("c.lora_B.weight", [3, 1, 1]), ("c.lora_magnitude_vector", [1, 3, 1]),
            ], #"{"use_dora": true}"#)
        #expect(try axis("a.weight") == .rows && axis("b.weight") == .columns)
        #expect(try axis("e.weight") == .columns && axis("c.weight") == .rows)
        write(
            [("a.weight", [3, 2])], Self.factors("a", inputs: 2, outputs: 3) + [("a.lora_magnitude_vector", [2])],
            #"{"use_dora": true}"#)
        #expect(problem().contains("has 2 magnitudes for 3 outputs"))
    }

    // MARK: First factors

    /// PEFT takes the same part from the model again when it loads the adapter; then the factors are added.
    @Test(arguments: [("pissa", ResidualMatrix.Part.principal), ("olora", .leadingColumns), ("OLoRA", .leadingColumns)])
    func firstFactorsAreTakenFirst(name: String, part: ResidualMatrix.Part) throws {
        write(
            [("q.weight", [3, 2])], Self.factors("q", inputs: 2, outputs: 3),
            #"{"init_lora_weights": "\#(name)", "lora_alpha": 3}"#)
        guard case .lowRank(.residual(.stored, let residual), _)? = try plan()["q.weight"]?.sources[0] else {
            throw TesseraError(.internal, "not what was asked for")
        }
        #expect(residual.part == part && residual.rank == 1 && residual.scale == 3)
    }

    /// Initialisations that leave the model as it is.
    @Test(arguments: ["true", "false", #""gaussian""#, #""eva""#, #""orthogonal""#, #""mica""#])
    func firstFactorsOfTheirOwn(value: String) throws {
        write([("q.weight", [3, 2])], Self.factors("q", inputs: 2, outputs: 3), #"{"init_lora_weights": \#(value)}"#)
        guard case .lowRank(.stored, _)? = try plan()["q.weight"]?.sources[0] else {
            throw TesseraError(.internal, "not what was asked for")
        }
    }

    /// PEFT has no first factors for these, and would not load them.
    @Test func firstFactorsThatPEFTDoesNotTake() {
        let q = Self.factors("q", inputs: 2, outputs: 3)
        let embedding = [("e.lora_embedding_A", [1, 5]), ("e.lora_embedding_B", [2, 1])]
        let experts = [("l.experts.lora_A.weight", [2, 4]), ("l.experts.lora_B.weight", [8, 2])]
        for (model, adapter, kind) in [
            (("e.weight", [5, 2]), embedding, "pissa"), (("q.weight", [2, 3]), q, "olora"),
            (("q.weight", [3, 2, 1]), [("q.lora_A.weight", [1, 2, 1]), ("q.lora_B.weight", [3, 1, 1])], "pissa"),
            (("q.weight", [3, 2]), [("q.lora_A.weight", [3, 2]), ("q.lora_B.weight", [3, 3])], "pissa"),
            (("l.experts.gate_up_proj", [2, 8, 4]), experts, "pissa"),
        ] {
            write([model], adapter, #"{"init_lora_weights": "\#(kind)"}"#)
            #expect(problem().contains("first factors PEFT takes from linear layers"), "\(model.0) \(kind)")
        }
    }

    // MARK: Experts

    private static let parameters =
        #"{"target_parameters": ["experts.down_proj", "experts.gate_up_proj"], "lora_alpha": 6, "#
        + #""alpha_pattern": {"gate_up_proj": 2}}"#

    /// Three experts of rank 2 in a model that holds them in one tensor, transposed or not.
    @Test(arguments: [false, true])
    func expertsInOneTensor(isTransposed: Bool) throws {
        let adapter = [
            ("l.0.experts.lora_A.weight", [6, 4]), ("l.0.experts.lora_B.weight", [5, 6]),
            ("l.0.experts.base_layer.lora_A.weight", [6, 5]), ("l.0.experts.base_layer.lora_B.weight", [8, 6]),
        ]
        let shapes = isTransposed ? [[3, 5, 8], [3, 4, 5]] : [[3, 8, 5], [3, 5, 4]]
        write([("l.0.experts.gate_up_proj", shapes[0]), ("l.0.experts.down_proj", shapes[1])], adapter, Self.parameters)
        for (name, scale) in [("gate_up_proj", 1.0), ("down_proj", 3)] {
            let update = try plan()["l.0.experts.\(name)"]?.sources[0].lowRank
            #expect(update?.experts == ExpertFactors(count: 3) && update?.rank == 2 && update?.scale == scale)
            #expect(update?.isTransposed == isTransposed)
        }
    }

    /// Square factors fit both parameters: the inner wrapper is that of the parameter that the model declares first.
    @Test func wrappersLieInTheOrderOfParameters() throws {
        write(
            [("experts.gate_up_proj", [2, 4, 4]), ("experts.down_proj", [2, 4, 4])],
            [
                ("experts.lora_A.weight", [2, 4]), ("experts.lora_B.weight", [4, 2]),
                ("experts.base_layer.lora_A.weight", [4, 4]), ("experts.base_layer.lora_B.weight", [4, 4]),
            ], Self.parameters)
        #expect(try plan()["experts.gate_up_proj"]?.sources[0].lowRank?.rank == 2)
        #expect(try plan()["experts.down_proj"]?.sources[0].lowRank?.rank == 1)
    }

    @Test(arguments: [("mlp.experts", ["gate_proj", "up_proj", "down_proj"]), ("block_sparse_moe.experts", ["w1", "w3", "w2"])])
    func expertsEachForItself(names: (module: String, parts: [String])) throws {
        let model = (0..<3).flatMap { expert in
            zip(names.parts, [[4, 5], [4, 5], [5, 4]]).map { ("m.0.\(names.module).\(expert).\($0).weight", $1) }
        }
        let adapter = [
            ("m.0.mlp.experts.lora_A.weight", [6, 4]), ("m.0.mlp.experts.lora_B.weight", [5, 6]),
            ("m.0.mlp.experts.base_layer.lora_A.weight", [6, 5]), ("m.0.mlp.experts.base_layer.lora_B.weight", [8, 6]),
        ]
        write(model, adapter, Self.parameters)
        for (part, row) in zip(names.parts, [0, 4, 0]) {
            let update = try plan()["m.0.\(names.module).2.\(part).weight"]?.sources[0].lowRank
            #expect(update?.experts == ExpertFactors(count: 3, expert: 2, firstRow: row), "\(part)")
        }
        write(model.dropLast(), adapter, Self.parameters)
        #expect(problem().contains("do not fit"))
    }

    // MARK: Tokens

    @Test func trainedTokens() throws {
        func write(_ config: String, rows: Int = 2) {
            self.write(
                [("model.embed_tokens.weight", [6, 2])],
                [("model.embed_tokens.token_adapter.trainable_tokens_delta", [rows, 2])], config)
        }
        for config in [
            #"{"trainable_token_indices": {"embed_tokens": [4, 1]}}"#, #"{"trainable_token_indices": [4, 1]}"#,
            #"{"peft_type": "TRAINABLE_TOKENS", "token_indices": [4, 1]}"#,
        ] {
            write(config)
            let work = try #require(try plan()["model.embed_tokens.weight"])
            guard case .aligned(_, let rows) = work.sources[0] else { throw TesseraError(.internal, "no rows") }
            #expect(work.dtype == .f32 && work.shape == [6, 2])
            #expect(
                (0..<6).map { rows.map.origin(ofRow: $0) }
                    == [(0, 0), (1, 1), (0, 2), (0, 3), (1, 0), (0, 5)].map {
                        .stored(RowMap.SourceRow(source: $0.0, row: $0.1))
                    })
        }
        write(#"{"trainable_token_indices": {"embed_tokens": [4, 6]}}"#)
        #expect(problem().contains("is about token 6; the model has 6 rows"))
        write(#"{"trainable_token_indices": {"embed_tokens": [4, 4]}}"#)
        #expect(problem().contains("each once"))
        write("{}")
        #expect(problem().contains("does not say which 2 tokens"))
    }

    private static let embedding = ("model.embed_tokens.weight", [6, 2])
    private static let tied = #"{"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": true}"#

    /// A tied head parts from an embedding of which a copy was trained, unless the adapter keeps the tie.
    @Test(arguments: [
        (["model.embed_tokens"], #"["embed_tokens"]"#, "false", true), (["lm_head"], #"["lm_head"]"#, "false", true),
        (["model.embed_tokens", "lm_head"], #"["embed_tokens", "lm_head"]"#, "false", true),
        // Saved because tokens were added, not because copies were trained.
        (["model.embed_tokens", "lm_head"], "null", "false", false),
        (["model.embed_tokens"], #"["embed_tokens"]"#, "true", false),
    ])
    func tiedHeads(modules: [String], saved: String, keepsTie: String, parts: Bool) throws {
        write(
            [Self.embedding], config: Self.tied, modules.map { ("\($0).weight", [6, 2]) },
            #"{"modules_to_save": \#(saved), "ensure_weight_tying": \#(keepsTie)}"#)
        let work = try plan()
        #expect((work["lm_head.weight"] != nil) == parts)
        let isEmbeddingTrained = modules.contains("model.embed_tokens")
        #expect(work["model.embed_tokens.weight"]?.sources[0].file == (isEmbeddingTrained ? 1 : 0))
        if parts { #expect(work["lm_head.weight"]?.sources[0].file == (modules.contains("lm_head") ? 1 : 0)) }
    }

    @Test(arguments: [
        ("language_model.model.embed_tokens", "language_model.lm_head.weight"), ("transformer.wte", "lm_head.weight"),
        ("gpt_neox.embed_in", "embed_out.weight"), ("model.language_model.embed_tokens", "lm_head.weight"),
    ])
    func theUntiedHeadHasTheNameThatLoadersExpect(embedding: String, head: String) throws {
        let saved = embedding.split(separator: ".").last.map(String.init) ?? ""
        write(
            [("\(embedding).weight", [6, 2])], config: #"{"architectures": ["SomeForCausalLM"]}"#,
            [("\(embedding).weight", [6, 2])],
            #"{"modules_to_save": ["\#(saved)"]}"#)
        #expect(try plan()[head] != nil)
    }

    @Test func addedTokens() throws {
        let model = [Self.embedding, ("lm_head.weight", [6, 2])]
        write(model, config: #"{"vocab_size": 6}"#, [("model.embed_tokens.weight", [8, 2]), ("lm_head.weight", [8, 2])], "{}")
        #expect(try plan()["lm_head.weight"]?.shape == [8, 2])
        write(model, [("model.embed_tokens.weight", [8, 2])], "{}")
        #expect(problem().contains("gives lm_head.weight 6 rows and model.embed_tokens.weight 8 rows"))
    }

    /// The output gets the adapter's tokenizer if it is a whole one.
    @Test func tokenizers() throws {
        write([("q.weight", [3, 2])], Self.factors("q", inputs: 2, outputs: 3), "{}")
        func source() throws -> String? {
            let plan = try family.plan("merge_method: passthrough\nmodels:\n- model: m+l\n")
            return plan.sidecars.first { $0.name == "tokenizer.json" }?.copiedFrom
        }
        for file in ["m/tokenizer.json", "m/tokenizer_config.json"] { family.write("{}", to: file) }
        #expect(try source() == "/models/m/tokenizer.json")
        family.write(#"{"model": {}}"#, to: "l/tokenizer.json")
        #expect(try source() == "/models/m/tokenizer.json")
        family.write("{}", to: "l/tokenizer_config.json")
        #expect(try source() == "/models/l/tokenizer.json")
    }

    // MARK: Patterns

    @Test(arguments: [
        ("q", true), ("layers.0.q", true), ("layers.1.q", false), ("ayers.0.q", false), (#"layers\\.\\d+\\.q"#, true),
        ("^model.layers.0.q", true), ("^layers.0.q", false), ("layers.[0-3].(k|q)", true), ("layers.[^0].q", false),
        ("layers.0.[kv]|q", true), ("q$", true), ("(?:q)?q{1}", true), ("q{2,3}", false), (".*", true), ("q+?", true),
        (#"layers\\.(0|1)\\..*"#, true), ("", false), (#"[\\w.]+"#, true), (#"\\D+"#, true), (#"\\d+"#, false),
        ("model.layers.{1,3}q", true),
    ])
    func patternsMatchAsPythons(pattern: String, matches: Bool) throws {
        write(
            [("model.layers.0.q.weight", [3, 2])], Self.factors("model.layers.0.q", inputs: 2, outputs: 3),
            #"{"lora_alpha": 2, "alpha_pattern": {"\#(pattern)": 7}}"#)
        #expect(try plan()["model.layers.0.q.weight"]?.sources[0].lowRank?.scale == (matches ? 7 : 2))
    }

    /// The first of the file that fits holds.
    @Test func patternsHaveAnOrder() throws {
        write([("b.q.weight", [3, 2])], Self.factors("b.q", inputs: 2, outputs: 3), #"{"alpha_pattern": {"q": 5, "b.q": 7}}"#)
        #expect(try plan()["b.q.weight"]?.sources[0].lowRank?.scale == 5)
    }

    /// A backtracking matcher would try every way to divide the name, of which there are 2⁴⁰.
    @Test(.timeLimit(.minutes(1)))
    func patternsCannotTakeForever() throws {
        let module = String(repeating: "a", count: 40)
        write(
            [("\(module).weight", [3, 2])], Self.factors(module, inputs: 2, outputs: 3),
            #"{"lora_alpha": 2, "alpha_pattern": {"(a*)*(a|a)*b": 7}}"#)
        #expect(try plan()["\(module).weight"]?.sources[0].lowRank?.scale == 2)
    }
}
