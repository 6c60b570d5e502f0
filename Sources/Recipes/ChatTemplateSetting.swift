/// The `chat_template` of a recipe.
package enum ChatTemplateSetting: Sendable, Hashable {
    /// The template that most of the models have.
    case auto
    /// A built-in template.
    case named(Name)
    case literal(String)

    package enum Name: String, Sendable, Hashable, CaseIterable {
        case alpaca, chatml, exaone, llama3, mistral
    }

    /// A literal has at least this many characters, including a `{`; anything else is a misspelled name.
    private static let literalLength = 20

    /// - Returns: `nil` if the text is neither a known name nor a template.
    init?(_ text: String) {
        if text == "auto" {
            self = .auto
        } else if let name = Name(rawValue: text) {
            self = .named(name)
        } else if text.count >= Self.literalLength, text.contains("{") {
            self = .literal(text)
        } else {
            return nil
        }
    }
}
