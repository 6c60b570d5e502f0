import Core
import Foundation
import TestSupport

/// The small models that the recorded recipes read beside those of `Tests/Golden/models` and the digits.
///
/// All numbers come from `SplitMix` and exact arithmetic, so that no change of the standard library changes them. A change here
/// makes the record (RecordedOutputTests) worthless: add models, but leave those that there are as they are.
struct RecordedInputs: Sendable {
    /// Where the models are written.
    let directory: String

    private static let tunes: [UInt64?] = [nil, 0, 1]
    private static func model(_ tune: UInt64?) -> String { tune.map { "tune-\($0)" } ?? "base" }

    private func write(_ text: String, to name: String) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(directory)/\(name)"))
    }

    private func write(_ model: String, _ tensors: [(String, TestTensor)], config: String) throws {
        try TestTensor.writeCheckpoint("\(directory)/\(model)", tensors)
        try write(config, to: "\(model)/config.json")
    }

    /// Links to the models that are in the repository: `models/…` and `digits/…`.
    func link() throws {
        for (name, place) in [("models", "\(Repository.golden)/models"), ("digits", Repository.digits)] {
            try FileManager.default.createSymbolicLink(atPath: "\(directory)/\(name)", withDestinationPath: place)
        }
    }

    // MARK: Tensors

    /// A base's tensor, or that of a fine-tune of it, of which a quarter of the elements are the base's and many others differ by
    /// the same.
    ///
    /// - Parameter period: after how many elements all repeats.
    private static func tensor(
        _ type: DType, _ shape: [Int], seed: UInt64, tune: UInt64?, period: Int = .max
    ) -> TestTensor {
        let count = shape.reduce(1, *), length = min(count, period)
        var random = SplitMix(seed: seed), own = SplitMix(seed: 1000 * ((tune ?? 0) + 1) + seed)
        let start = (0..<length).map { _ in Float(random.next() >> 40) * 0x1p-23 - 1 }
        let change = start.map { _ in
            let word = own.next()
            return tune == nil || word % 4 == 0 ? 0 : Float(word >> 8 & 127) * 0x1p-10 - 0x1p-4
        }
        let once = encode(type, start, change)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count * type.bitWidth / 8)
        for first in stride(from: 0, to: count, by: max(1, length)) {
            bytes += once.prefix(min(length, count - first) * type.bitWidth / 8)
        }
        return TestTensor(type, shape, bytes: bytes)
    }

    private static func encode(_ type: DType, _ start: [Float], _ change: [Float]) -> [UInt8] {
        func bytes<Word>(_ word: (Float, Float) -> Word) -> [UInt8] {
            zip(start, change).map(word).withUnsafeBytes(Array.init)
        }
        return switch type {
        case .f64: bytes { Double($0) + Double($1) }
        case .f16: bytes { Float16($0 + $1).bitPattern }
        case .bf16: bytes { UInt16(($0 + $1).bitPattern >> 16) }
        // Codes around 1/2, moved by up to three.
        case .f8E4M3, .f8E5M2: bytes { UInt8(0x20 + Int($0.magnitude * 24) + Int($1 * 48)) | ($0 < 0 ? 0x80 : 0) }
        default: bytes { $0 + $1 }
        }
    }

    // MARK: Families: a base and two fine-tunes

    private static let arithmeticTypes: [DType] = [.f64, .f32, .f16, .bf16, .f8E4M3, .f8E5M2]

    /// Every type that is computed on, in matrices of several tiles and in small tensors; others that are copied.
    func types() throws {
        for tune in Self.tunes {
            var tensors: [(String, TestTensor)] = []
            for (seed, type) in Self.arithmeticTypes.enumerated() {
                for (index, shape) in [[97, 173], [37], [1, 5], []].enumerated() {
                    tensors.append(
                        (
                            "layers.\(index).\(type.rawValue.lowercased()).weight",
                            Self.tensor(type, shape, seed: UInt64(10 * seed + index), tune: tune)
                        ))
                }
            }
            // The types of these are not the same in all models.
            for (index, type) in [DType.f32, .bf16, .f16].enumerated() {
                let other = [DType.f32, .bf16, .f16][(index + (tune.map { Int($0) + 1 } ?? 0)) % 3]
                tensors.append(
                    ("mixed.\(type.rawValue).weight", Self.tensor(other, [33, 17], seed: 90 + UInt64(index), tune: tune)))
            }
            tensors += [
                ("ids", TestTensor(.i64, [2], bytes: (1...16).map { $0 })), ("mask", TestTensor(.bool, [3], bytes: [1, 0, 1])),
                ("codes", TestTensor(.u8, [2, 2], bytes: [1, 2, 3, 4])),
            ]
            try write(Self.model(tune), tensors, config: #"{"model_type": "test", "dtype": "float32"}"#)
        }
    }

    /// Numbers that are not finite, zeros of both signs, subnormal ones and the largest.
    func specialValues() throws {
        let values: [Float] = [
            .nan, -.nan, .infinity, -.infinity, 0, -0.0, .leastNonzeroMagnitude, -.leastNormalMagnitude, .greatestFiniteMagnitude,
            -65520, 65504, 464, -480, 61440, 1e-5, 0x1p-10, -0x1p-17, 1, -1, 1.0039062,
        ]
        for (shift, tune) in Self.tunes.enumerated() {
            // Every value meets every other one.
            let rotated = values.indices.flatMap { row in values.indices.map { values[($0 + shift * row) % values.count] } }
            // Adding it leaves zeros of both signs as they are.
            let zeros = rotated.map { _ in -Float(0) }, shape = [values.count, values.count]
            var tensors: [(String, TestTensor)] = [DType.f32, .f16, .bf16, .f64].map {
                ("\($0.rawValue.lowercased()).weight", TestTensor($0, shape, bytes: Self.encode($0, rotated, zeros)))
            }
            for type in [DType.f8E4M3, .f8E5M2] {
                let codes = (0..<512).map { UInt8(truncatingIfNeeded: $0 + shift * ($0 >> 8) * 17) }
                tensors.append(("\(type.rawValue.lowercased()).weight", TestTensor(type, [2, 256], bytes: codes)))
            }
            try write(Self.model(tune), tensors, config: #"{"torch_dtype": "float32"}"#)
        }
    }

    /// A tensor of several chunks (2^21 elements) and, in float32, of several blocks (8 MiB).
    func large(_ type: DType) throws {
        for tune in Self.tunes {
            let tensors = [
                ("large", Self.tensor(type, [1050, 2001], seed: 1, tune: tune, period: 20_011)),
                ("small", Self.tensor(type, [3, 7], seed: 2, tune: tune)),
            ]
            try write(Self.model(tune), tensors, config: #"{"torch_dtype": "float32"}"#)
        }
    }

    // MARK: Llama's names

    private static func llama(_ tune: UInt64?, rows: Int = 8, layers: Int = 4) -> [(String, TestTensor)] {
        var tensors: [(String, TestTensor)] = []
        func add(_ name: String, _ shape: [Int]) {
            tensors.append((name, tensor(.bf16, shape, seed: UInt64(tensors.count), tune: tune)))
        }
        for layer in 0..<layers {
            let prefix = "model.layers.\(layer)"
            for name in ["q", "k", "v", "o"] { add("\(prefix).self_attn.\(name)_proj.weight", [8, 8]) }
            for name in ["gate", "up"] { add("\(prefix).mlp.\(name)_proj.weight", [12, 8]) }
            add("\(prefix).mlp.down_proj.weight", [8, 12])
            add("\(prefix).input_layernorm.weight", [8])
        }
        add("model.norm.weight", [8])
        add("model.embed_tokens.weight", [rows, 8])
        add("lm_head.weight", [rows, 8])
        return tensors
    }

    private static func llamaConfig(rows: Int = 8, layers: Int = 4) -> String {
        let kinds = (0..<layers).map { $0 % 2 == 0 ? "\"full_attention\"" : "\"sliding_attention\"" }.joined(separator: ", ")
        return """
            {
              "architectures": ["LlamaForCausalLM"], "num_hidden_layers": \(layers),
              "layer_types": [\(kinds)],
              "vocab_size": \(rows), "torch_dtype": "bfloat16", "rope_theta": 1e6, "tie_word_embeddings": false
            }
            """
    }

    func llama() throws {
        for tune in Self.tunes {
            let model = Self.model(tune)
            try write(model, Self.llama(tune), config: Self.llamaConfig())
            try write(#"{"do_sample": true, "note": "of \#(model)"}"#, to: "\(model)/generation_config.json")
            try write("{}", to: "\(model)/preprocessor_config.json")
        }
    }

    /// One has its head in the embedding, one has a tensor that no other has.
    func llamaWithGaps() throws {
        try llama()
        let tied = Self.llamaConfig().replacingOccurrences(of: "embeddings\": false", with: "embeddings\": true")
        for model in ["base", "tune-0"] {
            let tune: UInt64? = model == "base" ? nil : 0
            try write(model, Self.llama(tune).filter { $0.0 != "lm_head.weight" }, config: tied)
        }
        let bias = ("model.layers.2.self_attn.q_proj.bias", Self.tensor(.bf16, [8], seed: 77, tune: 1))
        try write("tune-1", Self.llama(1) + [bias], config: Self.llamaConfig())
    }

    /// A fine-tune with other numbers of layers.
    func llamaOfSixLayers() throws {
        try llama()
        try write("deeper", Self.llama(1, layers: 6), config: Self.llamaConfig(layers: 6))
    }

    // MARK: Adapters

    /// - Parameter config: members of `adapter_config.json`.
    private func writeAdapter(_ name: String, _ config: String, _ tensors: [(String, DType, [Int])]) throws {
        try FileManager.default.createDirectory(atPath: "\(directory)/\(name)", withIntermediateDirectories: true)
        try write(#"{"peft_type": "LORA", \#(config)}"#, to: "\(name)/adapter_config.json")
        let factors = tensors.enumerated().map { seed, tensor in
            ("base_model.model.\(tensor.0)", Self.tensor(tensor.1, tensor.2, seed: 500 + UInt64(seed), tune: nil))
        }
        try Data(TestTensor.encode(factors)).write(
            to: URL(fileURLWithPath: "\(directory)/\(name)/adapter_model.safetensors"))
    }

    func adapters() throws {
        try llama()
        let query = "model.layers.1.self_attn.q_proj", down = "model.layers.2.mlp.down_proj"
        let factors: (DType) -> [(String, DType, [Int])] = { type in
            [
                ("\(query).lora_A.weight", type, [2, 8]), ("\(query).lora_B.weight", type, [8, 2]),
                ("\(down).lora_A.weight", type, [2, 12]), ("\(down).lora_B.weight", type, [8, 2]),
            ]
        }
        try writeAdapter("adapter", #""r": 2, "lora_alpha": 4"#, factors(.f32))
        try writeAdapter(
            "stabilised", #""r": 2, "lora_alpha": 3, "use_rslora": true, "alpha_pattern": {"q_proj": 5}"#, factors(.bf16))
        try writeAdapter(
            "whole", #""r": 1, "lora_alpha": 0.5, "modules_to_save": ["norm"]"#,
            [
                ("model.embed_tokens.lora_embedding_A", .f16, [1, 8]), ("model.embed_tokens.lora_embedding_B", .f16, [8, 1]),
                ("model.norm.weight", .f32, [8]),
            ])
    }

    // MARK: Vocabularies

    private static func added(_ id: Int, _ text: String, _ on: String = "") -> String {
        let flags = ["single_word", "lstrip", "rstrip", "normalized", "special"].map { "\"\($0)\": \(on.contains($0))" }
        return "{\"id\": \(id), \"content\": \"\(text)\", \(flags.joined(separator: ", "))}"
    }

    private static func tokenizer(_ tokens: [String], merges: [String], added: [String]) -> String {
        let vocabulary = tokens.enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
        let merges = merges.map { "\"\($0)\"" }.joined(separator: ", ")
        return """
            {
              "version": "1.0",
              "added_tokens": [
                \(added.joined(separator: ",\n    "))
              ],
              "model": {"type": "BPE", "vocab": {\(vocabulary)}, "merges": [\(merges)]}
            }

            """
    }

    /// Models whose vocabularies overlap; the base has six rows where the `cut` is wanted, fewer than it has tokens.
    private func vocabularies(cut: Bool) throws {
        try llama()
        let tokenizers = [
            "base": Self.tokenizer(
                ["a", "b", "c", "ab", "Ġ"], merges: ["a b"],
                added: [Self.added(5, "<s>", "special"), Self.added(6, "<pad>", "special lstrip")]),
            "tune-0": Self.tokenizer(
                ["b", "a", "d", "bd", "Ġ"], merges: ["b d"],
                added: [
                    Self.added(5, "<s>", "special rstrip"), Self.added(6, "<tool>", "single_word"),
                    Self.added(7, "c", "normalized"), Self.added(8, "<far>"),
                ]),
            "tune-1": Self.tokenizer(["a", "é", "b", "ab", "Ġ"], merges: ["a b"], added: [Self.added(5, "<s>", "special")]),
        ]
        let templates = [
            "base": "{{ messages }} by the base", "tune-0": "{{ messages }}, twice", "tune-1": "{{ messages }}, twice",
        ]
        for (model, text) in tokenizers {
            try write(text, to: "\(model)/tokenizer.json")
            try write(
                #"{"added_tokens_decoder": {"5": {"content": "<s>", "special": true}}, "#
                    + #""chat_template": "\#(templates[model] ?? "")"}"#,
                to: "\(model)/tokenizer_config.json")
            try write(#"{"bos_token": "<s>"}"#, to: "\(model)/special_tokens_map.json")
        }
        try write(#"{"<s>": 5, "<pad>": 6}"#, to: "base/added_tokens.json")
        if cut { try write("base", Self.llama(nil, rows: 6), config: Self.llamaConfig(rows: 6)) }
    }

    func vocabularies() throws { try vocabularies(cut: false) }

    func vocabulariesBeyondTheRows() throws { try vocabularies(cut: true) }

    // MARK: Models of several parts

    func visionLanguage() throws {
        for tune in Self.tunes {
            let vision = [
                ("model.visual.blocks.0.weight", [6, 5]), ("model.visual.blocks.1.weight", [6, 5]),
                ("model.visual.merger.weight", [8, 6]),
            ].enumerated().map { ($1.0, Self.tensor(.f16, $1.1, seed: 200 + UInt64($0), tune: tune)) }
            try write(
                Self.model(tune), Self.llama(tune) + vision,
                config: #"{"dtype": "bfloat16", "text_config": {"num_hidden_layers": 4}, "vision_config": {"depth": 2}}"#)
        }
    }

    func encoderDecoder() throws {
        for tune in Self.tunes {
            let tensors = [
                ("shared.weight", [8, 4]), ("encoder.block.0.weight", [4, 4]), ("encoder.block.1.weight", [4, 4]),
                ("decoder.block.0.weight", [4, 4]), ("decoder.block.1.weight", [4, 4]), ("lm_head.weight", [8, 4]),
            ].enumerated().map { ($1.0, Self.tensor(.f32, $1.1, seed: 300 + UInt64($0), tune: tune)) }
            try write(Self.model(tune), tensors, config: #"{"num_layers": 2, "torch_dtype": "float32"}"#)
        }
    }
}
