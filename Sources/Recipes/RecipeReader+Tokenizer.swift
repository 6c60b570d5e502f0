import Yams

/// `tokenizer_source`, `tokenizer` and `chat_template`.
extension RecipeReader {
    static let tokenizerKeys = ["tokenizer_source", "tokenizer", "chat_template"]

    /// ```
    /// tokenizer_source: union | base | MODEL
    /// tokenizer: {source: union | base | MODEL, tokens: {TEXT: {source: …, force: false}}, pad_to_multiple_of: N}
    /// ```
    mutating func readTokenizer(_ root: Node.Mapping) -> TokenizerRecipe? {
        let short = root["tokenizer_source"].flatMap { $0.isNull ? nil : $0 }
        let full = root["tokenizer"].flatMap { $0.isNull ? nil : $0 }
        if let short, let full {
            complain(
                "has both 'tokenizer_source' and 'tokenizer'", at: max(short.line, full.line),
                advice: "write the source as 'source:' under 'tokenizer:'")
            return nil
        }
        if let short { return readVocabularySource(short).map { TokenizerRecipe(source: $0) } }
        guard let full else { return nil }
        guard case .mapping(let mapping) = full else {
            complain(
                "'tokenizer' must be a map with 'source', 'tokens' and 'pad_to_multiple_of'", at: full.line,
                advice: "write 'tokenizer: {source: \(full.plainText ?? "union")}'")
            return nil
        }
        checkKeys(of: mapping, known: ["source", "tokens", "pad_to_multiple_of"], place: "'tokenizer'")
        let source =
            mapping["source"].flatMap { $0.isNull ? nil : $0 }.map { readVocabularySource($0) }
            ?? Located(.union, line: full.line)
        let tokens = readTokens(mapping["tokens"])
        let padding = readPadding(mapping["pad_to_multiple_of"])
        return source.map { TokenizerRecipe(source: $0, tokens: tokens, padToMultipleOf: padding) }
    }

    mutating func readChatTemplate(_ root: Node.Mapping) -> Located<ChatTemplateSetting>? {
        guard let node = root["chat_template"], !node.isNull else { return nil }
        let text = node.plainText ?? ""
        if let setting = ChatTemplateSetting(text) { return Located(setting, line: node.line) }
        let names = ["auto"] + ChatTemplateSetting.Name.allCases.map(\.rawValue)
        complain(
            "'chat_template' is '\(text)'; it must be a known name or a whole template", at: node.line,
            advice: Suggestion.advice(for: text, in: names, otherwise: "write a template, or one of"))
        return nil
    }

    // MARK: Parts

    private mutating func readVocabularySource(_ node: Node) -> Located<TokenizerRecipe.Source>? {
        switch node.plainText {
        case "union": return Located(.union, line: node.line)
        case "base": return Located(.base, line: node.line)
        case let text? where text.hasPrefix("model:"):
            complain("'\(text)' is not a model reference", at: node.line, advice: "write the path without 'model:'")
            return nil
        default: return readReference(node).map { Located(.model($0.value), line: $0.line) }
        }
    }

    private mutating func readPadding(_ node: Node?) -> Int? {
        guard let node, !node.isNull else { return nil }
        guard case .integer(let padding)? = node.scalarValue, padding > 0 else {
            complain(
                "'pad_to_multiple_of' must be a positive integer", at: node.line,
                advice: "write, for example, 'pad_to_multiple_of: 64'")
            return nil
        }
        return padding
    }

    private mutating func readTokens(_ node: Node?) -> [TokenizerRecipe.Token] {
        guard let node, !node.isNull else { return [] }
        guard case .mapping(let mapping) = node else {
            complain("'tokens' must be a map", at: node.line, advice: "write 'TEXT: {source: MODEL}' entries")
            return []
        }
        return mapping.compactMap { readToken($0.key, $0.value) }
    }

    private mutating func readToken(_ key: Node, _ node: Node) -> TokenizerRecipe.Token? {
        guard let text = key.scalarText, !text.isEmpty else {
            complain("a token's text must not be empty", at: key.line, advice: "write 'TEXT: {source: MODEL}'")
            return nil
        }
        if node.isNull { return TokenizerRecipe.Token(text, line: key.line) }
        guard case .mapping(let mapping) = node else {
            complain("the token '\(text)' has no 'source'", at: node.line, advice: "write '\(text)': {source: MODEL}")
            return nil
        }
        checkKeys(of: mapping, known: ["source", "force"], place: "a token")
        var force = false
        if let flag = mapping["force"], !flag.isNull {
            guard let value = flag.scalarValue?.asBool else {
                complain("'force' must be true or false", at: flag.line, advice: "write 'force: true' or 'force: false'")
                return nil
            }
            force = value
        }
        guard let sourceNode = mapping["source"], !sourceNode.isNull else {
            return TokenizerRecipe.Token(text, force: force, line: key.line)
        }
        guard let source = readRowSource(sourceNode) else { return nil }
        return TokenizerRecipe.Token(text, source: source, force: force, line: key.line)
    }

    /// A model reference, or a map with `kind`.
    private mutating func readRowSource(_ node: Node) -> TokenizerRecipe.RowSource? {
        guard case .mapping(let mapping) = node, let kindNode = mapping["kind"] else {
            return readReference(node).map { .model($0.value) }
        }
        switch kindNode.plainText {
        case "zero":
            checkKeys(of: mapping, known: ["kind"], place: "a source of zeros")
            return .zero
        case "model_token":
            checkKeys(of: mapping, known: ["kind", "model", "token", "token_id"], place: "a token's source")
            return readModelToken(mapping, line: node.line)
        case let kind:
            complain(
                "'kind' is '\(kind ?? "")'; it must be 'zero' or 'model_token'", at: kindNode.line,
                advice: Suggestion.advice(for: kind ?? "", in: ["zero", "model_token"], otherwise: "write one of"))
            return nil
        }
    }

    private mutating func readModelToken(_ mapping: Node.Mapping, line: Int) -> TokenizerRecipe.RowSource? {
        guard let modelNode = mapping["model"], !modelNode.isNull else {
            complain(
                "the token's source has no 'model'", at: line, advice: "write {kind: model_token, model: MODEL, token: TEXT}")
            return nil
        }
        guard let model = readReference(modelNode) else { return nil }
        let text = mapping["token"].flatMap { $0.isNull ? nil : $0 }, id = mapping["token_id"].flatMap { $0.isNull ? nil : $0 }
        switch (text, id) {
        case (let text?, nil):
            guard let name = text.scalarText else {
                complain("'token' must be the text of a token", at: text.line, advice: "write it in quotes")
                return nil
            }
            return .modelToken(model.value, .text(name))
        case (nil, let id?):
            guard case .integer(let number)? = id.scalarValue, number >= 0 else {
                complain(
                    "'token_id' must be a non-negative integer", at: id.line, advice: "write the token's row, or 'token: TEXT'")
                return nil
            }
            return .modelToken(model.value, .id(number))
        default:
            complain("the token's source needs either 'token' or 'token_id'", at: line, advice: "write one of the two")
            return nil
        }
    }
}

extension Node {
    /// Any scalar as written, including those with another meaning in YAML: a token may be called `null` or `~`.
    fileprivate var scalarText: String? {
        guard case .scalar(let scalar) = self else { return nil }
        return scalar.string
    }
}
