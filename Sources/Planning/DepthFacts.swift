import Checkpoints
import Core

/// What makes a model depend on how many layers a stack has, or on their numbers, other than its config's counts and lists.
struct DepthFacts {
    private let input: InputSet.Input
    private let prefix: ExactText

    init(_ input: InputSet.Input, prefix: ExactText) {
        self.input = input
        self.prefix = prefix
    }

    /// Whether a tensor beside the layers has a piece for each of them: Gemma 3n's embedding for all layers, and the weights of
    /// ESM's contacts, one for each head of each layer.
    func holdsAllLayers(_ name: String) -> Bool {
        if name.contains("per_layer") { return true }
        guard let count = input.layers.counts[prefix], count > 1, let shape = input.tensor(named: name)?.shape,
            let heads = input.checkpoint.config?.integer(["num_attention_heads"]), heads > 1
        else { return false }
        let pieces = count.multipliedReportingOverflow(by: heads)
        return shape.count == 2 && shape[0] == 1 && !pieces.overflow && shape[1] == pieces.partialValue
    }

    /// Why a layer computes something that depends on its number: a clause; `nil` where nothing is known.
    ///
    /// The code of the model decides this. Keys of the config and parts of layers show it in some families; the others are known
    /// by their type.
    var dependence: String? {
        guard let config = input.checkpoint.config else { return nil }
        for section in config.sections {
            for member in config.members(section) ?? [] {
                guard let key = member.key else { continue }
                let value = String(decoding: member.value, as: UTF8.self)
                if key.contains("layer_idx"), value == "true" { return "'\(key)' in its config.json" }
                // RWKV divides the weights of later layers.
                if key == "rescale_every", Int(value) ?? 0 > 0 { return "'\(key)' in its config.json" }
            }
        }
        // Differential attention (arXiv 2410.05258, section 2.1): λ begins at a value that depends on the depth.
        if input.tensorNames.contains(where: { $0.hasPrefix("\(prefix).") && $0.hasSuffix(".lambda_q1") }) {
            return "differential attention"
        }
        return config.string(["model_type"]).flatMap { Self.types[$0] }
    }

    private static let types = ["beam": "each adds the sums of the layers before it"]
}
