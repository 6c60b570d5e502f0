import Checkpoints
import Core
import Operators
import Recipes

extension InputSet.Input {
    /// How the model's weights are quantized, told by its config or by the names and types of its tensors; `nil` for weights
    /// that are numbers by themselves. Float8 with scales is looked at tensor by tensor (`scaledCodes`).
    var quantization: String? {
        let key = "quantization_config"
        for section in [[], ["text_config"], ["language_config"], ["llm_config"], ["thinker_config", "text_config"]] {
            guard let config = checkpoint.config, let members = config.members(section + [key]), !members.isEmpty else {
                continue
            }
            let method = config.string(section + [key, "quant_method"])
            // Named by the tensors that have them.
            if method == "fp8", holdsFloat8 { continue }
            let flags = [("load_in_4bit", "bitsandbytes"), ("load_in_8bit", "bitsandbytes"), ("quant_algo", "ModelOpt")]
            let scheme = method ?? flags.first { config.has(section + [key, $0.0]) }?.1
            return "\(scheme ?? "an unnamed scheme") ('\(key)' in its \(Checkpoint.configName))"
        }
        for part in checkpoint.parts {
            if let packed = part.header.tensors.first(where: { Self.isPacked($0) }) {
                return "integers (tensor '\(packed.name)' holds \(packed.dtype.rawValue))"
            }
        }
        return nil
    }

    /// What tensors of packed weights are called, at the end of their names.
    private static let packedEnds = [
        ".weight", ".qweight", ".weight_packed", ".W_q", ".qzeros", "_blocks", ".weight_quantized", ".codes",
    ]

    private static func isPacked(_ tensor: TensorEntry) -> Bool {
        // Booleans are masks, and numbers of positions have one dimension.
        [.i8, .u8, .i16, .u16, .i32, .u32, .i64, .f4, .f6E2M3, .f6E3M2].contains(tensor.dtype) && tensor.shape.count > 1
            && packedEnds.contains { tensor.name.hasSuffix($0) }
    }
}

/// Refuses quantized models, of which only copies can be made.
enum Quantization {
    /// - Returns: a problem for each model that the recipe computes with.
    static func problems(_ recipe: Recipe, method: any MergeMethod.Type, inputs: InputSet) -> [TesseraError] {
        let sources = recipe.modules.flatMap(\.body.sources)
        return inputs.inputs.enumerated().compactMap { index, input in
            guard let scheme = input.quantization else { return nil }
            let own = sources.filter { inputs.index(of: $0.model.value) == index }
            let isCopied =
                method == Passthrough.self && recipe.dtype == nil && recipe.outDtype == nil && recipe.tokenizer == nil
                && input.adapter == nil && input.task == nil
                && (scopes(of: recipe) + own.map(\.parameters)).allSatisfy { $0.settings["scale"] == nil }
            if isCopied { return nil }
            return problem(input.reference, scheme, recipe.file, line: own.first?.model.line ?? recipe.baseModel?.line)
        }
    }

    static func problem(_ model: ModelReference, _ scheme: String, _ file: String?, line: Int?) -> TesseraError {
        TesseraError(
            .badData, "'\(model)' is quantized: \(scheme), and quantized weights cannot be merged", file: file, line: line,
            advice: "use the model it was made from, or dequantize it with transformers and save it; passthrough without "
                + "'dtype', 'scale' or an adapter copies it as it is")
    }

    private static func scopes(of recipe: Recipe) -> [ParameterScope] {
        let slices = recipe.modules.flatMap { module in
            if case .slices(let slices) = module.body { slices.map(\.parameters) } else { [ParameterScope]() }
        }
        return [recipe.parameters] + recipe.modules.map(\.parameters) + slices
    }
}
