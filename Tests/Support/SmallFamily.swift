import Core
import Foundation

/// A base and fine-tunes whose tensors are called and layered as Llama's are.
package enum SmallFamily {
    package static let layers = 4

    /// The same base for all; the fine-tunes of other seeds differ a little from it. The base has the seed 0.
    package static func tensors(seed: UInt64) -> [(String, TestTensor)] {
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

    /// Writes one model with its config.
    package static func write(_ name: String, seed: UInt64, in directory: TemporaryDirectory) throws {
        try TestTensor.writeCheckpoint("\(directory.path)/\(name)", tensors(seed: seed))
        try directory.write(
            #"{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": \#(layers), "#
                + #""vocab_size": 6, "torch_dtype": "bfloat16"}"#,
            to: "\(name)/config.json")
    }

    /// An adapter of rank 2 on one matrix of layer 1: it adds 1/4 everywhere.
    package static func writeAdapter(_ name: String, in directory: TemporaryDirectory) throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/\(name)", withIntermediateDirectories: true)
        try directory.write(#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4}"#, to: "\(name)/adapter_config.json")
        let module = "base_model.model.model.layers.1.self_attn.q_proj"
        let factors = [("\(module).lora_A.weight", [2, 8]), ("\(module).lora_B.weight", [8, 2])].map {
            ($0.0, TestTensor([Float](repeating: 0.25, count: 16), shape: $0.1))
        }
        try Data(TestTensor.encode(factors)).write(
            to: URL(fileURLWithPath: "\(directory.path)/\(name)/adapter_model.safetensors"))
    }
}
