/// The `tokenizer` of a recipe, or its short form `tokenizer_source`: the output's vocabulary.
package struct TokenizerRecipe: Sendable, Equatable {
    package enum Source: Sendable, Hashable {
        /// The tokenizer of the base model, or of the first model if there is no base.
        case base
        /// The base's tokenizer, extended by the tokens of all other models.
        case union
        case model(ModelReference)
    }

    /// The source of a token's row for models that lack the token.
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

    /// A token configured in the recipe. The token is added to the vocabulary if it is missing.
    package struct Token: Sendable, Hashable {
        package let text: String
        /// `nil` if the recipe names none, which is valid only if every model has the token.
        package let source: RowSource?
        /// Whether this row also replaces the rows of models that have the token.
        package let force: Bool
        /// The line in the recipe.
        package let line: Int

        package init(_ text: String, source: RowSource? = nil, force: Bool = false, line: Int = 1) {
            self.text = text
            self.source = source
            self.force = force
            self.line = line
        }
    }

    package let source: Located<Source>
    /// In recipe order.
    package let tokens: [Token]
    /// Rows of the output matrices are rounded up to a multiple of this number.
    package let padToMultipleOf: Int?

    package init(source: Located<Source>, tokens: [Token] = [], padToMultipleOf: Int? = nil) {
        self.source = source
        self.tokens = tokens
        self.padToMultipleOf = padToMultipleOf
    }

    /// Every model named, in recipe order, with the line of its first mention.
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
