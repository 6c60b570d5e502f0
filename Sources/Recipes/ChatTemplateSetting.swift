/// What a recipe says about the output's chat template.
package enum ChatTemplateSetting: Sendable, Hashable {
    /// The one that most of the models have.
    case auto
    /// One of the well-known ones.
    case named(Name)
    case literal(String)

    package enum Name: String, Sendable, Hashable, CaseIterable {
        case alpaca, chatml, exaone, llama3, mistral
    }

    /// A literal has at least this many characters, and a `{` among them: anything else is a slip in a name.
    private static let literalLength = 20

    /// - Returns: `nil` for text that is neither a name nor a template.
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
