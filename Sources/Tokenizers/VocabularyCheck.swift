package import Core

/// For recipes that say nothing about the tokenizer: whether rows of the same id belong to the same token in all models.
///
/// Tokens that only one of two models has are no difference as long as their matrices have the same size: they use spare rows.
/// Models without tokenizer files cannot be checked and are passed over.
package struct VocabularyCheck: Sendable {
    private let models: [VocabularyModel]
    /// The model that the others are compared with.
    private let reference: Int
    private let file: String
    private static let exampleLimit = 5

    /// - Parameter base: the recipe's `base_model`; without one the others are compared with the first model.
    package init(models: [VocabularyModel], base: Int?, file: String) {
        self.models = models
        reference = base ?? 0
        self.file = file
    }

    /// One for each model that differs.
    package var problems: [TesseraError] {
        models.indices.compactMap { $0 == reference || !models[$0].isInput ? nil : difference(of: models[$0]) }
    }

    private func difference(of model: VocabularyModel) -> TesseraError? {
        guard models.indices.contains(reference) else { return nil }
        let base = models[reference]
        guard let own = model.tokenizer, let other = base.tokenizer else { return nil }
        var differences: [String] = []
        if let size = model.vocabularySize, let baseSize = base.vocabularySize, size != baseSize {
            differences.append("has \(size) rows, '\(base.reference)' has \(baseSize)")
        }
        let isResized = !differences.isEmpty
        var examples: [String] = [], count = 0
        for id in 0..<max(own.idEnd, other.idEnd) {
            let here = text(id, own, model), there = text(id, other, base)
            // A token in a spare row stands against nothing; beside matrices of other sizes it tells where they part.
            guard here != there, isResized || (here != nil && there != nil) else { continue }
            count += 1
            if examples.count < Self.exampleLimit { examples.append("\(id) is \(show(here)) here and \(show(there)) there") }
        }
        if count > 0 {
            differences.append(
                "has other tokens than '\(base.reference)' at \(count) ids, such as \(examples.joined(separator: ", "))")
        }
        guard !differences.isEmpty else { return nil }
        return TesseraError(
            .badData, "the vocabulary of '\(model.reference)' \(differences.joined(separator: " and "))", file: file,
            advice: "add a line 'tokenizer_source: union' to keep all tokens, or 'tokenizer_source: base' to keep the base's")
    }

    /// The token of a row; tokens beyond the rows do not count.
    private func text(_ id: Int, _ tokenizer: Tokenizer, _ model: VocabularyModel) -> ExactText? {
        id < model.vocabularySize ?? .max ? tokenizer.text(of: id) : nil
    }

    private func show(_ text: ExactText?) -> String { text.map { JSONText.quoted($0.string) } ?? "no token" }
}
