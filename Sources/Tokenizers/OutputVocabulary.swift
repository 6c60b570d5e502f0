import Core
import Recipes

/// The vocabulary of the output, built from the models' vocabularies (`tokenizer` in docs/recipes.md).
///
/// ```
/// base     the base's tokens with id < vocab_size
/// MODEL    the model's tokens, all of them
/// union    base, then the ordinary tokens with id < vocab_size that it lacks, by (model in file order, id),
///          then the added tokens of all models, the base's first, in the order of each file
/// ```
/// and in every case, then the recipe's tokens that are still missing. Appended tokens become added tokens with the next free
/// ids.
struct OutputVocabulary {
    /// The model whose tokenizer files are the starting point for the output's.
    let primary: Int
    private(set) var texts: [ExactText?]
    private(set) var ids: [ExactText: Int]
    private(set) var changes: TokenizerChanges
    private(set) var remarks: [String] = []
    private let models: [VocabularyModel]
    /// The first id of the appended tokens.
    private let donorEnd: Int

    /// - Parameters:
    ///   - primary: the model whose tokenizer is the starting point.
    ///   - isStripped: whether to leave out tokens without a row.
    private init(models: [VocabularyModel], primary: Int, tokenizer: Tokenizer, isStripped: Bool) {
        self.models = models
        self.primary = primary
        let limit = isStripped ? models[primary].vocabularySize ?? .max : .max
        var texts = (0..<min(limit, tokenizer.idEnd)).map { tokenizer.text(of: $0) }
        while let last = texts.last, last == nil { texts.removeLast() }
        let removed = (texts.count..<tokenizer.idEnd).filter { tokenizer.text(of: $0) != nil }
        self.texts = texts
        donorEnd = texts.count
        ids = Dictionary(minimumCapacity: texts.count)
        changes = TokenizerChanges(removed: Set(removed))
        for (id, text) in texts.enumerated() {
            if let text { ids[text] = id }
        }
        if !removed.isEmpty {
            let examples = removed.prefix(5).compactMap { tokenizer.text(of: $0) }.map { "'\($0)'" }.joined(separator: ", ")
            remarks.append(
                "\(removed.count) tokens of \(models[primary].reference) have ids beyond its \(limit) rows and are left out: "
                    + examples
            )
        }
    }

    /// - Parameter base: the base model of the recipe, or the first model.
    /// - Throws: `badData` if a required tokenizer is missing.
    static func make(
        models: [VocabularyModel], base: Int, recipe: TokenizerRecipe, file: String
    ) throws(TesseraError) -> OutputVocabulary {
        var primary = base
        if case .model(let reference) = recipe.source.value {
            guard let index = models.firstIndex(where: { $0.reference == reference }) else {
                throw TesseraError(
                    .badData, "the tokenizer's source '\(reference)' is not one of the models", file: file,
                    line: recipe.source.line,
                    advice: "write 'union', 'base', or one of \(models.map { "\($0.reference)" }.joined(separator: ", "))")
            }
            primary = index
        }
        guard let tokenizer = models[primary].tokenizer else {
            throw TesseraError(
                .badData, "'\(models[primary].reference)' has neither tokenizer.json nor a readable vocabulary file",
                file: file,
                line: recipe.source.line, advice: "load its tokenizer with transformers and save it beside the weights")
        }
        let isModel = if case .model = recipe.source.value { true } else { false }
        var vocabulary = OutputVocabulary(models: models, primary: primary, tokenizer: tokenizer, isStripped: !isModel)
        if recipe.source.value == .union { vocabulary.unite() }
        for token in recipe.tokens where vocabulary.ids[ExactText(token.text)] == nil {
            vocabulary.append(.plain(ExactText(token.text)))
        }
        return vocabulary
    }

    // MARK: Union

    private mutating func unite() {
        changes.isUnion = true
        let order = [primary] + models.indices.filter { $0 != primary && models[$0].tokenizer != nil }
        let definitions = collectAdded(order)
        for model in order.dropFirst() {
            guard let tokenizer = models[model].tokenizer else { continue }
            for (_, text) in tokenizer.tokens(below: models[model].vocabularySize)
            where ids[text] == nil && !tokenizer.isAdded(text) {
                // An ordinary token here may be an added token in another model, whose flags then apply.
                append(definitions.first[text] ?? .plain(text))
            }
        }
        for text in definitions.order {
            guard let token = definitions.first[text] else { continue }
            if let id = ids[text] {
                promote(token, id: id)
            } else {
                append(token)
            }
        }
    }

    /// The first definition of each added token, in order.
    private mutating func collectAdded(_ order: [Int]) -> (first: [ExactText: AddedToken], order: [ExactText]) {
        var first: [ExactText: AddedToken] = [:]
        var texts: [ExactText] = [], conflicts: Set<ExactText> = []
        for model in order {
            guard let tokenizer = models[model].tokenizer else { continue }
            for text in tokenizer.addedOrder {
                guard let token = tokenizer.added[text], model != primary || ids[text] != nil else { continue }
                if let other = first[text] {
                    if !token.isSameDefinition(as: other) { conflicts.insert(text) }
                } else {
                    first[text] = token
                    texts.append(text)
                }
            }
        }
        if !conflicts.isEmpty {
            let examples = conflicts.sorted().prefix(5).map { "'\($0)'" }.joined(separator: ", ")
            remarks.append(
                "the models define \(conflicts.count) added tokens differently; the first definition is used: \(examples)")
        }
        return (first, texts)
    }

    /// Turns a token of the vocabulary into an added token, unless it is one already or will be.
    private mutating func promote(_ token: AddedToken, id: Int) {
        guard models[primary].tokenizer?.isAdded(token.text) != true, id < donorEnd else { return }
        var token = token
        token.id = id
        changes.appended.append(token)
    }

    private mutating func append(_ token: AddedToken) {
        var token = token
        token.id = texts.count
        ids[token.text] = token.id
        texts.append(token.text)
        changes.appended.append(token)
    }
}
