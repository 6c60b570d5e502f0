import Checkpoints
import Core
import Operators
import Planning
import TestSupport
import Testing
import Work

/// Adapters of models whose tensors transformers renames or rearranges when it loads them: their modules are those in memory.
@Suite struct LoadedModelTests {
    private let family = MemoryFamily()

    private func write(_ model: [(String, [Int])], config: String, _ adapter: [(String, [Int])], _ adapterConfig: String = "{}") {
        func zeros(_ shape: [Int]) -> TestTensor { TestTensor([Float](repeating: 0, count: shape.reduce(1, *)), shape: shape) }
        family.files.write(TestTensor.encode(model.map { ($0.0, zeros($0.1)) }), to: "/models/m/model.safetensors")
        family.write(config, to: "m/config.json")
        family.files.write(
            TestTensor.encode(adapter.map { ("base_model.model.\($0.0)", zeros($0.1)) }),
            to: "/models/l/adapter_model.safetensors")
        family.write(adapterConfig, to: "l/adapter_config.json")
    }

    private func plan() throws -> [String: TensorWork] {
        let plan = try family.plan("merge_method: passthrough\nmodels:\n- model: m+l\n")
        return Dictionary(uniqueKeysWithValues: plan.tensors.map { ($0.name, $0) })
    }

    private func problem() -> TesseraError? { #expect(throws: Problems.self) { try plan() }?.all.first }

    private static func factors(_ module: String, inputs: Int, outputs: Int) -> [(String, [Int])] {
        [("\(module).lora_A.weight", [1, inputs]), ("\(module).lora_B.weight", [outputs, 1])]
    }

    private static let vit = #"{"architectures": ["ViTForImageClassification"], "model_type": "vit"}"#
    private static let vitTensors = [0, 11, 12].flatMap { layer in
        ["query", "value"].map { ("vit.encoder.layer.\(layer).attention.attention.\($0).weight", [3, 2]) }
    }

    /// Names in memory, and those of earlier versions, which are the checkpoint's.
    @Test(arguments: ["vit.layers.12.attention.q_proj", "vit.encoder.layer.12.attention.attention.query"])
    func renamedModules(module: String) throws {
        write(Self.vitTensors, config: Self.vit, Self.factors(module, inputs: 2, outputs: 3))
        let changed = try plan().filter { $1.sources[0].lowRank != nil }
        #expect(Array(changed.keys) == ["vit.encoder.layer.12.attention.attention.query.weight"])
    }

    /// The bare model has no prefix; a part of a model has one, and its type is the config's.
    @Test(arguments: [
        (#"{"architectures": ["ViTModel"]}"#, "encoder.layer.0.attention.attention.query", "layers.0.attention.q_proj"),
        (
            #"{"architectures": ["VisionEncoderDecoderModel"], "encoder": {"model_type": "vit"}}"#,
            "encoder.encoder.layer.0.attention.attention.query", "encoder.layers.0.attention.q_proj"
        ),
        (
            #"{"architectures": ["VisionEncoderDecoderModel"], "encoder": {"model_type": "deit"}}"#,
            "encoder.encoder.layer.0.attention.attention.query", "encoder.layers.0.attention.q_proj"
        ),
        // A type without a class of its own, as custom code may have it.
        (#"{"model_type": "gte"}"#, "new.encoder.layer.0.attention.o_proj", "layers.0.self_attn.o_proj"),
    ])
    func partsOfModels(config: String, tensor: String, module: String) throws {
        write([("\(tensor).weight", [3, 2])], config: config, Self.factors(module, inputs: 2, outputs: 3))
        #expect(try plan()["\(tensor).weight"]?.sources[0].lowRank != nil)
    }

    /// Swin's names are not ViT's.
    @Test func anotherPartThanUsual() {
        write(
            [("encoder.encoder.layer.0.attention.attention.query.weight", [3, 2])],
            config: #"{"architectures": ["VisionEncoderDecoderModel"], "encoder": {"model_type": "swin"}}"#,
            Self.factors("encoder.layers.0.attention.q_proj", inputs: 2, outputs: 3))
        #expect(problem()?.problem.contains("the model has no tensor") == true)
    }

    // MARK: Tensors that are taken apart or put together

    private static let gte = #"{"architectures": ["GteForMaskedLM"], "model_type": "gte"}"#

    @Test func partsOfOneTensor() throws {
        let name = "new.encoder.layer.0.attention.qkv_proj"
        write(
            [("\(name).weight", [9, 2]), ("\(name).bias", [9])], config: Self.gte,
            Self.factors("layers.0.self_attn.k_proj", inputs: 2, outputs: 3) + [("layers.0.self_attn.k_proj.lora_B.bias", [3])])
        for leaf in ["weight", "bias"] {
            guard case .aligned(let sources, let rows)? = try plan()["\(name).\(leaf)"]?.sources[0] else {
                throw TesseraError(.internal, "no rows")
            }
            #expect(
                (0..<9).map { rows.map.origin(ofRow: $0) }
                    == (0..<9).map { row in
                        .stored(
                            RowMap.SourceRow(source: (3..<6).contains(row) ? 1 : 0, row: (3..<6).contains(row) ? row - 3 : row))
                    })
            #expect(sources[1].lowRank != nil)
        }
        #expect(try plan()["\(name).weight"]?.shape == [9, 2])
        write([("\(name).weight", [8, 2])], config: Self.gte, Self.factors("layers.0.self_attn.k_proj", inputs: 2, outputs: 3))
        #expect(problem()?.problem.contains("the model has no tensor") == true)
    }

    private static let stacked = [("l.0.gate_proj.weight", [3, 2]), ("l.0.up_proj.weight", [3, 2])]
    private static let minimax = #"{"model_type": "minimax_m3_vl"}"#

    @Test func severalTensorsInOne() throws {
        write(
            Self.stacked, config: Self.minimax,
            Self.factors("l.0.gate_up_proj", inputs: 2, outputs: 6) + [("l.0.gate_up_proj.lora_magnitude_vector", [6])],
            #"{"use_dora": true}"#)
        let work = try plan()
        var first: Int?
        for (name, start) in [("gate", 0), ("up", 12)] {
            guard case .rescaled(.lowRank(_, let update), let magnitudes)? = work["l.0.\(name)_proj.weight"]?.sources[0] else {
                throw TesseraError(.internal, "not rescaled")
            }
            #expect(update.b.shape == [3, 1] && magnitudes.magnitudes.shape == [3])
            // float32: 3 rows of 4 bytes lie between the two parts.
            #expect(update.b.offset - (first ?? update.b.offset) == start)
            first = update.b.offset
        }
        write(
            Self.stacked, config: Self.minimax, Self.factors("l.0.gate_up_proj", inputs: 2, outputs: 6),
            #"{"init_lora_weights": "pissa"}"#)
        #expect(problem()?.problem.contains("PiSSA") == true)
        write(Self.stacked, config: Self.minimax, Self.factors("l.0.gate_up_proj", inputs: 2, outputs: 5))
        #expect(problem()?.problem.contains("do not fit the model's tensor of shape [6, 2]") == true)
    }

    /// What is made in a way that is not known is refused, and the way named.
    @Test func operationsThatAreNotKnown() {
        write(
            [("l.0.mlp.w13_dn.weight", [6, 2])], config: #"{"model_type": "inkling_mm_model"}"#,
            Self.factors("l.0.mlp.gate_proj", inputs: 2, outputs: 3))
        #expect(
            problem()?.problem == "transformers makes 'l.0.mlp.gate_proj.weight' of 'l.0.mlp.w13_dn.weight' in a way that is not "
                + "known here (Interleave() Chunk())")
        #expect(problem()?.advice?.contains("merge_and_unload()") == true)
    }

    /// A checkpoint that has a tensor under its old and its new name says nothing of which is meant.
    @Test func twoTensorsOfOneName() {
        write(
            [
                ("vit.encoder.layer.0.attention.attention.query.weight", [3, 2]),
                ("vit.layers.0.attention.q_proj.weight", [3, 2]),
            ],
            config: Self.vit, Self.factors("vit.layers.0.attention.q_proj", inputs: 2, outputs: 3))
        #expect(problem()?.problem.contains("in a way that is not known here (renaming)") == true)
    }

    // MARK: Experts

    /// PEFT takes square matrices of experts for `[in, out]` in some classes (GPT-OSS: 2880 by 2880), and in others not, however
    /// they are used (Llama 4).
    @Test(arguments: [("GptOssForCausalLM", true), ("Llama4ForCausalLM", false), ("MixtralForCausalLM", false)])
    func squareExperts(architecture: String, isTransposed: Bool) throws {
        let gate = architecture.hasPrefix("Mixtral") ? [2, 8, 4] : [2, 4, 8]
        let down = [("l.0.experts.lora_A.weight", [2, 4]), ("l.0.experts.lora_B.weight", [4, 2])]
        write(
            [("l.0.experts.gate_up_proj", gate), ("l.0.experts.down_proj", [2, 4, 4])],
            config: #"{"architectures": ["\#(architecture)"]}"#, down, #"{"target_parameters": ["experts.down_proj"]}"#)
        #expect(try plan()["l.0.experts.down_proj"]?.sources[0].lowRank?.isTransposed == isTransposed)
    }

    /// The adapter's other factors show it as well.
    @Test(arguments: [true, false])
    func squareExpertsBesideOthers(isTransposed: Bool) throws {
        let sides = isTransposed ? [4, 8] : [8, 4]
        write(
            [("l.0.experts.gate_up_proj", [2, 4, 8]), ("l.0.experts.down_proj", [2, 4, 4])], config: "{}",
            [
                ("l.0.experts.lora_A.weight", [2, 4]), ("l.0.experts.lora_B.weight", [4, 2]),
                ("l.0.experts.base_layer.lora_A.weight", [2, sides[0]]),
                ("l.0.experts.base_layer.lora_B.weight", [sides[1], 2]),
            ],
            #"{"target_parameters": ["experts.down_proj", "experts.gate_up_proj"]}"#)
        for name in ["gate_up_proj", "down_proj"] {
            #expect(try plan()["l.0.experts.\(name)"]?.sources[0].lowRank?.isTransposed == isTransposed, "\(name)")
        }
    }

    /// NeMo's experts are stored with their last two axes exchanged.
    @Test func exchangedExperts() throws {
        write(
            [("l.0.mixer.experts.down_projs", [2, 3, 4])], config: #"{"model_type": "nemo_speechlm"}"#,
            [("l.0.mixer.experts.lora_A.weight", [2, 3]), ("l.0.mixer.experts.lora_B.weight", [4, 2])],
            #"{"target_parameters": ["experts.down_proj"]}"#)
        let update = try plan()["l.0.mixer.experts.down_projs"]?.sources[0].lowRank
        #expect(update?.isTransposed == true && update?.experts == ExpertFactors(count: 2))
    }
}
