import Checkpoints
import Core
import Operators
import Recipes

extension InputSet.Input {
    /// How the model's weights are quantized, told by its config or by the names and types of its tensors; `nil` for weights
    /// that are numbers by themselves. Float8 with scales is looked at tensor by tensor (`scaledCodes`).
    var quantization: QuantizedWeights? {
        if let config = checkpoint.config, let told = QuantizedWeights(config, holdsFloat8: holdsFloat8) { return told }
        return checkpoint.parts.lazy.compactMap { $0.header.tensors.lazy.compactMap { QuantizedWeights($0) }.first }.first
    }
}

/// How the weights of a model are quantized.
struct QuantizedWeights {
    /// With what tells it.
    let description: String
    /// How they become numbers again.
    let advice: String?

    private static let keys = ["quantization_config", "compression_config", "quantization"]
    private static let depthLimit = 3

    /// - Parameter holdsFloat8: whether there are float8 tensors, which are named one by one.
    init?(_ config: JSONText, holdsFloat8: Bool) {
        for section in Self.sections(of: config, [], depth: 0) {
            for key in Self.keys {
                guard let members = config.members(section + [key]), !members.isEmpty else { continue }
                let method = config.string(section + [key, "quant_method"])
                if method == "fp8", holdsFloat8 { continue }
                let flags = [
                    ("load_in_4bit", "bitsandbytes"), ("load_in_8bit", "bitsandbytes"), ("quant_algo", "modelopt"),
                    ("group_size", "MLX"),
                ]
                let scheme = method ?? flags.first { config.has(section + [key, $0.0]) }?.1
                let path = (section + [key]).joined(separator: ".")
                description = "\(scheme ?? "an unnamed scheme") ('\(path)' in its \(Checkpoint.configName))"
                advice = scheme.flatMap { Self.ways[$0] }
                return
            }
        }
        return nil
    }

    /// The config itself, then those of its parts.
    private static func sections(of config: JSONText, _ path: [String], depth: Int) -> [[String]] {
        let inner = depth < depthLimit ? config.members(path) ?? [] : []
        return [path]
            + inner.flatMap { member -> [[String]] in
                guard let key = member.key, key.hasSuffix("config"), !keys.contains(key), member.value.first == UInt8(ascii: "{")
                else { return [] }
                return sections(of: config, path + [key], depth: depth + 1)
            }
    }

    /// Tensors of packed weights, by the ends of their names, and the schemes that call them so.
    private static let packed = [
        (".qweight", "GPTQ or AWQ"), (".qzeros", "GPTQ or AWQ"), (".weight_packed", "compressed-tensors"), ("_blocks", "mxfp4"),
        (".W_q", "HQQ"), (".codes", "AQLM"), ("._data", "quanto"), ("qdata", "torchao"), (".SCB", "bitsandbytes"),
        (".absmax", "bitsandbytes"), (".weight_quantized", ""), (".weight", ""),
    ]

    /// - Returns: `nil` for a tensor that shows no scheme.
    init?(_ tensor: TensorEntry) {
        let end = Self.packed.first { tensor.name.hasSuffix($0.0) }
        // Booleans are masks, and numbers of positions have one dimension. The scales of bitsandbytes are float32.
        let isPacked =
            [.i8, .u8, .i16, .u16, .i32, .u32, .i64, .f4, .f6E2M3, .f6E3M2].contains(tensor.dtype) && tensor.shape.count > 1
        guard let end, isPacked || tensor.name.hasSuffix(".SCB") else { return nil }
        let scheme = end.1.isEmpty ? "integers" : end.1
        description = "\(scheme) (tensor '\(tensor.name)' holds \(tensor.dtype.rawValue))"
        advice = Self.ways[scheme]
    }

    /// How transformers makes numbers of the weights of some schemes, by `quant_method`.
    private static let ways = [
        "bitsandbytes": "load it with transformers, call dequantize() and save_pretrained()",
        "fp8": "load it with transformers and FineGrainedFP8Config(dequantize=True), and call save_pretrained()",
        "mxfp4": "load it with transformers and Mxfp4Config(dequantize=True), and call save_pretrained()",
        "compressed-tensors":
            "load it with transformers and CompressedTensorsConfig(dequantize=True), and call save_pretrained()",
    ]
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

    static func problem(_ model: ModelReference, _ weights: QuantizedWeights, _ file: String?, line: Int?) -> TesseraError {
        let way = weights.advice ?? "dequantize it with the library that made it and save it"
        return TesseraError(
            .badData, "'\(model)' is quantized: \(weights.description), and quantized weights cannot be merged", file: file,
            line: line,
            advice: "use the model it was made from, or \(way); passthrough without 'dtype', 'scale' or an adapter copies it as "
                + "it is")
    }

    private static func scopes(of recipe: Recipe) -> [ParameterScope] {
        let slices = recipe.modules.flatMap { module in
            if case .slices(let slices) = module.body { slices.map(\.parameters) } else { [ParameterScope]() }
        }
        return [recipe.parameters] + recipe.modules.map(\.parameters) + slices
    }
}
