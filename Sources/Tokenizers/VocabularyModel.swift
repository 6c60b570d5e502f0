package import Checkpoints
package import Core
package import Recipes

/// The vocabulary of one of the recipe's models.
package struct VocabularyModel: Sendable {
    package let reference: ModelReference
    /// `nil` if the directory has no tokenizer; the model is then assumed to have the base's.
    package let tokenizer: Tokenizer?
    /// The number of embedding rows; `nil` if the config does not say. Tokens with higher ids have no row.
    package let vocabularySize: Int?
    /// Whether the weights are merged; false for tokenizer-only models.
    package let isInput: Bool

    package init(reference: ModelReference, tokenizer: Tokenizer?, vocabularySize: Int?, isInput: Bool = true) {
        self.reference = reference
        self.tokenizer = tokenizer
        self.vocabularySize = vocabularySize
        self.isInput = isInput
    }

    /// Reads the tokenizer beside the checkpoint's weights, and the vocabulary size from the config.
    ///
    /// - Parameters:
    ///   - tokenizerDirectory: where an adapter of the checkpoint has its own tokenizer.
    ///   - rowCount: the vocabulary size where an adapter changes it.
    /// - Throws: like `Tokenizer.read`.
    package init(
        reference: ModelReference, checkpoint: Checkpoint, tokenizerDirectory: String? = nil, rowCount: Int? = nil,
        isInput: Bool = true, in files: any InputFiles
    ) throws(TesseraError) {
        let size = rowCount ?? checkpoint.config.flatMap { config in Self.sizeKey(in: config).flatMap { config.integer($0) } }
        self.init(
            reference: reference, tokenizer: try Tokenizer.read(tokenizerDirectory ?? checkpoint.directory, in: files),
            vocabularySize: size.flatMap { $0 > 0 ? $0 : nil }, isInput: isInput)
    }

    /// The config key with the number of rows: at the top level, or in the text part of a multimodal model.
    package static func sizeKey(in config: JSONText) -> [String]? { sizeKeys(in: config).first }

    private static let textSections = [
        [], ["text_config"], ["llm_config"], ["language_config"], ["thinker_config", "text_config"], ["decoder"],
    ]

    /// All of them, where a config says the number several times.
    private static func sizeKeys(in config: JSONText) -> [[String]] {
        let keys = textSections.map { $0 + ["vocab_size"] }.filter { config.integer($0) != nil }
        return keys.filter { config.integer($0) == config.integer(keys[0]) }
    }

    /// Writes the number of rows into a config.
    ///
    /// - Returns: whether the config has a key for it.
    package static func setSize(_ rows: Int, in config: inout JSONText) -> Bool {
        let keys = sizeKeys(in: config)
        for key in keys { config.replace(key, withJSON: "\(rows)") }
        return !keys.isEmpty
    }
}
