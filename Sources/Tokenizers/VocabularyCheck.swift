package import Core

/// For recipes without a tokenizer setting: checks that rows with the same id belong to the same token in all models.
///
/// A token that only one of two models has is not a difference if their matrices have the same size, because it uses a spare
/// row. Models without tokenizer files cannot be checked and are skipped.
package struct VocabularyCheck: Sendable {
    private let models: [VocabularyModel]
    /// The model with which all others are compared.
    private let reference: Int
    private let file: String
    private static let exampleLimit = 5

    /// - Parameter base: the recipe's `base_model`; if `nil`, the first model is the reference.
    package init(models: [VocabularyModel], base: Int?, file: String) {
        self.models = models
        reference = base ?? 0
        self.file = file
    }

    /// One problem per model that differs.
    package var problems: [TesseraError] {
        models.indices.compactMap { $0 == reference || !models[$0].isInput ? nil : difference(of: models[$0]) }
    }

    private func difference(of model: VocabularyModel) -> TesseraError? {
        guard models.indices.contains(reference) else { return nil }
        let base = models[reference]
        guard let own = model.tokenizer, let other = base.tokenizer else { return nil }
        var differences: [String] = []
        if let size = model.vocabularySize, let baseSize = base.vocabularySize, size != baseSize {
            differences.append("has \(size) rows instead of the \(baseSize) of '\(base.reference)'")
        }
        let isResized = !differences.isEmpty
        var examples: [String] = [], count = 0
        for id in 0..<max(own.idEnd, other.idEnd) {
            let here = text(id, own, model), there = text(id, other, base)
            // A token in a spare row conflicts with nothing. If the matrices differ in size, it shows where they diverge.
            guard here != there, isResized || (here != nil && there != nil) else { continue }
            count += 1
            if examples.count < Self.exampleLimit { examples.append("\(id) is \(show(here)) here and \(show(there)) there") }
        }
        if count > 0 {
            differences.append(
                "has different tokens from '\(base.reference)' at \(count) ids (\(examples.joined(separator: ", ")))")
        }
        guard !differences.isEmpty else { return nil }
        return TesseraError(
            .badData, "the vocabulary of '\(model.reference)' \(differences.joined(separator: " and "))", file: file,
            advice: "add 'tokenizer_source: union' to keep all tokens, or 'tokenizer_source: base' to keep those of the base")
    }

    /// The token of a row; tokens beyond the last row are ignored.
    private func text(_ id: Int, _ tokenizer: Tokenizer, _ model: VocabularyModel) -> ExactText? {
        id < model.vocabularySize ?? .max ? tokenizer.text(of: id) : nil
    }

    private func show(_ text: ExactText?) -> String { text.map { JSONText.quoted($0.string) } ?? "no token" }
}
