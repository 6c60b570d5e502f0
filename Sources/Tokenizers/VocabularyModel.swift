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
    package static func sizeKey(in config: JSONText) -> [String]? {
        [["vocab_size"], ["text_config", "vocab_size"]].first { config.integer($0) != nil }
    }
}
