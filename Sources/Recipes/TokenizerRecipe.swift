/// What a recipe says about the vocabulary of the output (`tokenizer`, or `tokenizer_source` for short).
package struct TokenizerRecipe: Sendable, Equatable {
    package enum Source: Sendable, Hashable {
        /// The base's tokenizer, else the first model's.
        case base
        /// The base's, with every token added that another model has.
        case union
        case model(ModelReference)
    }

    /// Where the row of one token comes from in models that have none of their own.
    package enum RowSource: Sendable, Hashable {
        /// The row of the same token.
        case model(ModelReference)
        /// The row of another token.
        case modelToken(ModelReference, TokenName)
        case zero
    }

    package enum TokenName: Sendable, Hashable {
        case text(String)
        case id(Int)
    }

    /// A token that the recipe says something about; it joins the vocabulary if it is not in it.
    package struct Token: Sendable, Hashable {
        package let text: String
        /// `nil` where the recipe gives none, which is only good while every model has the token.
        package let source: RowSource?
        /// Whether the models that have a row of their own get this one too.
        package let force: Bool
        /// Line of the recipe.
        package let line: Int

        package init(_ text: String, source: RowSource? = nil, force: Bool = false, line: Int = 1) {
            self.text = text
            self.source = source
            self.force = force
            self.line = line
        }
    }

    package let source: Located<Source>
    /// In the order of the recipe.
    package let tokens: [Token]
    /// The matrices get a multiple of so many rows.
    package let padToMultipleOf: Int?

    package init(source: Located<Source>, tokens: [Token] = [], padToMultipleOf: Int? = nil) {
        self.source = source
        self.tokens = tokens
        self.padToMultipleOf = padToMultipleOf
    }

    /// Every model that is named, in the order of the recipe, each with the line of its first mention.
    package var models: [Located<ModelReference>] {
        var found: [Located<ModelReference>] = []
        func add(_ model: ModelReference, line: Int) {
            if !found.contains(where: { $0.value == model }) { found.append(Located(model, line: line)) }
        }
        if case .model(let model) = source.value { add(model, line: source.line) }
        for token in tokens {
            switch token.source {
            case .model(let model), .modelToken(let model, _): add(model, line: token.line)
            case .zero, nil: break
            }
        }
        return found
    }
}
