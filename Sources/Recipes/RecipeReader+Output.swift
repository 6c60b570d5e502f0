import Yams

/// What a merge writes.
package enum OutputForm: String, Sendable, CaseIterable {
    /// The base with the update, and everything that is needed to load it.
    case checkpoint
    /// The update alone, as an adapter of the base.
    case adapter
}

extension RecipeReader {
    static let outputKey = "output"

    mutating func readOutput(_ root: Node.Mapping) -> Located<OutputForm>? {
        guard let node = root[Self.outputKey], !node.isNull else { return nil }
        if let form = node.plainText.flatMap({ OutputForm(rawValue: $0) }) { return Located(form, line: node.line) }
        complain(
            "'\(Self.outputKey)' is \(node.shown)", at: node.line,
            advice: Suggestion.advice(
                for: node.plainText ?? "", in: OutputForm.allCases.map(\.rawValue), otherwise: "write one of"))
        return nil
    }
}
