package import Checkpoints
package import Core
package import Recipes

/// A model of the recipe, as far as its vocabulary goes.
package struct VocabularyModel: Sendable {
    package let reference: ModelReference
    /// `nil` when its directory holds none; it is then taken to have the base's.
    package let tokenizer: Tokenizer?
    /// Rows of its embedding; no token with a higher id has a row. `nil` when its config does not say.
    package let vocabularySize: Int?
    /// Whether its weights are merged; a model may also lend its tokenizer only.
    package let isInput: Bool

    package init(reference: ModelReference, tokenizer: Tokenizer?, vocabularySize: Int?, isInput: Bool = true) {
        self.reference = reference
        self.tokenizer = tokenizer
        self.vocabularySize = vocabularySize
        self.isInput = isInput
    }

    /// Reads the tokenizer beside the checkpoint's weights, and the size from its config.
    ///
    /// - Throws: as `Tokenizer.read`.
    package init(
        reference: ModelReference, checkpoint: Checkpoint, isInput: Bool = true, in files: any InputFiles
    ) throws(TesseraError) {
        let size = checkpoint.config.flatMap { config in Self.sizeKey(in: config).flatMap { config.integer($0) } }
        self.init(
            reference: reference, tokenizer: try Tokenizer.read(checkpoint.directory, in: files),
            vocabularySize: size.flatMap { $0 > 0 ? $0 : nil }, isInput: isInput)
    }

    /// Where a config keeps the number of rows: at its top, or with the text part of a model of several parts.
    package static func sizeKey(in config: JSONText) -> [String]? {
        [["vocab_size"], ["text_config", "vocab_size"]].first { config.integer($0) != nil }
    }
}
