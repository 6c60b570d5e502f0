import Checkpoints
import Core
import Recipes
import Tokenizers

/// The output's `config.json`: the primary model's, with what the recipe changes. All other bytes stay.
struct OutputConfig {
    let inputs: InputSet
    /// Where the recipe chooses the output's vocabulary.
    let vocabulary: VocabularyPlan?
    /// The type of the output's floating tensors, if they share one.
    let dtype: DType?
    /// As `OutputTensorList` says.
    let layerOrigins: [ExactText: [OutputTensorList.LayerOrigin]]
    /// Whether the output has a head of its own.
    let hasHead: Bool

    private static let tieKey = "tie_word_embeddings"
    private static let dtypeKeys = ["dtype", "torch_dtype"]

    /// - Returns: the file, unless the primary model has none, and what the user should know of it.
    func make() -> (bytes: [UInt8]?, remarks: [String]) {
        guard var config = inputs.primary.checkpoint.config else { return (nil, []) }
        setTypes(in: &config)
        var remarks = ConfigLayers(inputs: inputs, primary: inputs.base ?? 0, origins: layerOrigins).follow(in: &config)
        let rows = vocabulary?.rowCount ?? inputs.primary.adapter?.rowCount
        let isSized = vocabulary?.resize(&config) ?? rows.map { VocabularyModel.setSize($0, in: &config) } ?? true
        if let rows, !isSized {
            remarks.append(
                "the output has \(rows) rows for tokens, but no key of config.json is known to say their number; set it by hand")
        }
        if hasHead, untieHead(in: &config) {
            remarks.append("the output has an untied head, so '\(Self.tieKey)' is set to false in its config.json")
        }
        if !hasHead, TiedHead.isLacking(config) {
            remarks.append("the output has no head, and its config.json says that the head is not tied to the embedding")
        }
        return (config.bytes, remarks)
    }

    /// The type under whichever of its two names the config uses, and in the sections of parts that have one of their own.
    private func setTypes(in config: inout JSONText) {
        guard let name = dtype.flatMap({ dtype in Recipe.name(of: dtype) }) else { return }
        let keys = Self.dtypeKeys.filter { config.has([$0]) }
        for key in keys.isEmpty ? ["torch_dtype"] : keys { config.set(key, to: name) }
        for section in config.sections where !section.isEmpty {
            for key in Self.dtypeKeys {
                guard let old = config.string(section + [key]), Recipe.dtype(named: old) != nil else { continue }
                config.replace(section + [key], withJSON: JSONText.quoted(name))
            }
        }
    }

    /// Says that the head is no copy of the embedding: where the config says that it is, and where the model's class does so by
    /// default, which shows by a checkpoint without a head.
    ///
    /// - Returns: whether anything had to be changed.
    private func untieHead(in config: inout JSONText) -> Bool {
        let tied = config.sections.filter { section in
            config.flag(section + [Self.tieKey]) == true
                && ConfigWords.roles(of: section.flatMap { ConfigWords.words($0) }).isDisjoint(with: [
                    "vision", "audio", "encoder",
                ])
        }
        guard !tied.isEmpty || TiedHead(inputs.primary.checkpoint) != nil else { return false }
        for section in tied { config.replace(section + [Self.tieKey], withJSON: "false") }
        // A section alone would leave the whole at its default.
        if config.flag([Self.tieKey]) != false { config.set(Self.tieKey, toJSON: "false") }
        return true
    }
}
