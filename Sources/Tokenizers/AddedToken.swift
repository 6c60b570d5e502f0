package import Core

/// A token that the tokenizer matches before its model splits the remaining text.
package struct AddedToken: Sendable, Hashable {
    package var id: Int
    package let text: ExactText
    package var singleWord = false
    package var lstrip = false
    package var rstrip = false
    package var normalized = false
    package var special = false

    package init(id: Int, text: ExactText) {
        self.id = id
        self.text = text
    }

    /// A token that no tokenizer describes. It is matched in normalized text, because its text is often in that form (`▁word`).
    static func plain(_ text: ExactText) -> AddedToken {
        var token = AddedToken(id: 0, text: text)
        token.normalized = true
        return token
    }

    /// Whether both tokens match in the same places.
    func isSameDefinition(as other: AddedToken) -> Bool {
        var other = other
        other.id = id
        return self == other
    }

    // MARK: JSON

    /// An element of `added_tokens` in tokenizer.json.
    var element: String {
        """
        {"id": \(id), "content": \(JSONText.quoted(text.string)), "single_word": \(singleWord), "lstrip": \(lstrip), \
        "rstrip": \(rstrip), "normalized": \(normalized), "special": \(special)}
        """
    }

    /// The value of an `added_tokens_decoder` entry in tokenizer_config.json; the key is the id.
    var decoderValue: String {
        """
        {"content": \(JSONText.quoted(text.string)), "lstrip": \(lstrip), "normalized": \(normalized), "rstrip": \(rstrip), \
        "single_word": \(singleWord), "special": \(special)}
        """
    }

    /// Reads either form. Unknown keys are ignored.
    ///
    /// - Parameter id: the id, if the entry itself has none.
    /// - Throws: `badData` for wrong types or if the id or the text is missing.
    static func read(_ scanner: inout JSONScanner, id: Int? = nil) throws(TesseraError) -> AddedToken {
        var found = id, text: String?
        var flags: [String: Bool] = [:]
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "id": found = try scanner.natural()
            case "content": text = try scanner.string()
            case "single_word", "lstrip", "rstrip", "normalized", "special": flags[key] = try scanner.flag()
            default: try scanner.value()
            }
        }
        guard let found, let text else { throw scanner.error("added token without 'id' or 'content'") }
        var token = AddedToken(id: found, text: ExactText(text))
        token.singleWord = flags["single_word"] ?? false
        token.lstrip = flags["lstrip"] ?? false
        token.rstrip = flags["rstrip"] ?? false
        token.normalized = flags["normalized"] ?? false
        token.special = flags["special"] ?? false
        return token
    }
}
