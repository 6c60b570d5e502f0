import Checkpoints
import Core
import Recipes

/// Models whose configs say that they compute otherwise, although their tensors may have the same names and shapes: a merge of
/// them means little.
enum ModelDifferences {
    /// Keys that decide what a model computes, besides those with one of the words below.
    private static let keys: Set = [
        "model_type", "hidden_act", "hidden_activation", "activation_function", "feed_forward_proj", "dense_act_fn", "d_kv",
        "alibi", "logits_scaling", "logit_scale", "embedding_multiplier", "residual_multiplier", "attention_multiplier",
        "query_pre_attn_scalar", "num_experts_per_tok", "num_experts_per_token", "norm_topk_prob", "routed_scaling_factor",
        "scoring_func", "n_group", "topk_group", "topk_method", "position_embedding_type", "patch_size", "spatial_merge_size",
        "relative_attention_num_buckets", "relative_attention_max_distance", "multi_query", "parallel_attn", "use_sliding_window",
    ]
    private static let words: Set = ["head", "heads", "rope", "rotary", "theta", "eps", "epsilon", "softcapping", "window"]
    /// Sections whose every key is about positions.
    private static let positionSections: Set = ["rope_scaling", "rope_parameters"]
    private static let shownLimit = 8

    /// - Returns: a warning for each model that differs from the primary, with the values side by side.
    static func warnings(_ recipe: Recipe, inputs: InputSet) -> [TesseraError] {
        let primary = inputs.primary, own = settings(of: primary.checkpoint.config)
        let lines = (recipe.modules.flatMap(\.body.sources).map(\.model) + [recipe.baseModel].compactMap(\.self)).reduce(
            into: [ModelReference: Int]()
        ) { $0[$1.value] = $0[$1.value] ?? $1.line }
        return inputs.inputs.compactMap { input in
            let other = settings(of: input.checkpoint.config)
            let differing = own.keys.filter { key in other[key].map { !isSame($0, own[key] ?? "") } ?? false }.sorted()
            guard !differing.isEmpty else { return nil }
            let shown = differing.prefix(shownLimit).map { "\($0) \(other[$0] ?? "") and \(own[$0] ?? "")" }
            let rest = differing.count > shownLimit ? " and \(differing.count - shownLimit) more" : ""
            return TesseraError(
                .badData,
                "the config.json of '\(input.reference)' and that of '\(primary.reference)' differ in "
                    + "\(shown.joined(separator: ", "))\(rest)",
                file: recipe.file, line: lines[input.reference] ?? recipe.method.line,
                advice: "merge models of one architecture; the output computes as '\(primary.reference)' does")
        }
    }

    /// - Returns: a problem for each whole model that has no tensor in common with the primary: models of other architectures.
    static func strangers(_ recipe: Recipe, inputs: InputSet) -> [TesseraError] {
        guard recipe.modules.count == 1, case .models(let models)? = recipe.modules.first?.body else {
            return []
        }
        let primary = inputs.primary, own = Set(primary.tensorNames.map { ExactText($0) })
        return models.compactMap { model in
            guard let input = inputs.index(of: model.model.value).map({ inputs.inputs[$0] }),
                let name = input.tensorNames.first, let ownName = primary.tensorNames.first,
                input.tensorNames.count + own.count > strangersAtLeast,
                [name, ownName].contains(where: { [nil, .refuse].contains(recipe.missing($0, at: 0)) }),
                !input.tensorNames.contains(where: { own.contains(ExactText($0)) })
            else { return nil }
            return TesseraError(
                .badData,
                "'\(input.reference)' and '\(primary.reference)' share no tensor: one has '\(name)', the other '\(ownName)'",
                file: recipe.file, line: model.model.line, advice: "merge models of the same architecture")
        }
    }

    /// Tensors of two models; of fewer, each is told.
    private static let strangersAtLeast = 6

    /// The settings that count, by their names. Newer configs have those of positions in a section.
    private static func settings(of config: JSONText?) -> [String: String] {
        guard let config else { return [:] }
        var found: [String: String] = [:]
        func collect(_ path: [String], depth: Int) {
            let isOfPositions = path.last.map(positionSections.contains) ?? false
            let section = isOfPositions ? Array(path.dropLast()) : path
            for member in config.members(path) ?? [] {
                guard let key = member.key, let first = member.value.first else { continue }
                let value = String(decoding: member.value, as: UTF8.self)
                if first == UInt8(ascii: "{") {
                    if depth < 3, key != "quantization_config" { collect(path + [key], depth: depth + 1) }
                } else if first != UInt8(ascii: "["), value != "null",
                    isOfPositions || keys.contains(key) || !words.isDisjoint(with: key.split(separator: "_").map(String.init))
                {
                    // Rotary types were called `type` once.
                    found[(section + [isOfPositions && key == "type" ? "rope_type" : key]).joined(separator: ".")] = value
                }
            }
        }
        collect([], depth: 0)
        return found
    }

    /// Numbers may be written in several ways: 10000 and 1e4.
    private static func isSame(_ left: String, _ right: String) -> Bool {
        if left == right { return true }
        guard let left = Double(left), let right = Double(right) else { return false }
        return left == right
    }
}
