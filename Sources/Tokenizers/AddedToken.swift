package import Core

/// A token that a tokenizer finds in the text before its model splits the rest.
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

    /// One that no tokenizer describes: found in the text as the model would see it, for its text is often written so (`▁word`).
    static func plain(_ text: ExactText) -> AddedToken {
        var token = AddedToken(id: 0, text: text)
        token.normalized = true
        return token
    }

    /// Whether both would be found in the same places.
    func isSameDefinition(as other: AddedToken) -> Bool {
        var other = other
        other.id = id
        return self == other
    }

    // MARK: JSON

    /// As an element of tokenizer.json's `added_tokens`.
    var element: String {
        """
        {"id": \(id), "content": \(JSONText.quoted(text.string)), "single_word": \(singleWord), "lstrip": \(lstrip), \
        "rstrip": \(rstrip), "normalized": \(normalized), "special": \(special)}
        """
    }

    /// As a member of tokenizer_config.json's `added_tokens_decoder`, whose key is the id.
    var decoderValue: String {
        """
        {"content": \(JSONText.quoted(text.string)), "lstrip": \(lstrip), "normalized": \(normalized), "rstrip": \(rstrip), \
        "single_word": \(singleWord), "special": \(special)}
        """
    }

    /// Reads one of the two; keys that mean nothing here are passed over.
    ///
    /// - Parameter id: where the entry itself holds none.
    /// - Throws: `badData` for other types, and where the id or the text is missing.
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
        guard let found, let text else { throw scanner.error("an added token without 'id' or 'content'") }
        var token = AddedToken(id: found, text: ExactText(text))
        token.singleWord = flags["single_word"] ?? false
        token.lstrip = flags["lstrip"] ?? false
        token.rstrip = flags["rstrip"] ?? false
        token.normalized = flags["normalized"] ?? false
        token.special = flags["special"] ?? false
        return token
    }
}
