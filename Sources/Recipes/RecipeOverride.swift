package import Core
import Yams

/// A value that the command line puts in the place of a recipe's own: `parameters.lambda=0.3`.
///
/// The path names keys from the top of the recipe down; in lists, numbers count elements from 0, as in
/// `models.1.parameters.weight=0.5`. The value is YAML. Maps that lack the key get it.
package struct RecipeOverride: Sendable, Hashable {
    private let path: [String]
    private let value: String
    private let text: String

    /// - Throws: `usage` for a text without a path or without `=`.
    package init(_ text: String) throws(TesseraError) {
        let sides = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let path = sides[0].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard sides.count == 2, !path.contains("") else {
            throw TesseraError(
                .usage, "'\(text)' does not set a key of a recipe", advice: "write a path and a value: parameters.lambda=0.3")
        }
        (self.path, self.value, self.text) = (path, String(sides[1]), text)
    }

    /// The recipe with all of the overrides, one after the other. Without any, the same text; with some, comments are lost.
    ///
    /// - Throws: `badData` for a recipe that cannot be parsed, `usage` for a path that leads nowhere and a value that is not
    ///   YAML.
    package static func apply(_ overrides: [RecipeOverride], to recipe: String, file: String) throws(TesseraError) -> String {
        guard !overrides.isEmpty else { return recipe }
        guard var root = try? node(of: recipe), case .mapping = root else {
            throw TesseraError(
                .badData, "is not YAML with keys, so that none can be set", file: file, advice: "try it without --set")
        }
        for override in overrides {
            root = try override.replaced(in: root, below: override.path[...], value: override.parsed())
        }
        guard let text = try? Yams.serialize(node: root, width: -1, allowUnicode: true) else {
            throw TesseraError(.badData, "cannot be written with the values of --set", file: file)
        }
        return text
    }

    private static func node(of text: String) throws -> Node? {
        guard try AliasKeys.line(in: text) == nil else { return nil }
        let documents = try RepeatedKeys.compose(text) { _, _ in }
        return documents.count == 1 ? documents.first : nil
    }

    private func parsed() throws(TesseraError) -> Node {
        let found: Node?? = try? Self.node(of: value)
        guard let node = found ?? nil else { throw wrong("its value is not YAML") }
        return node
    }

    private func replaced(in node: Node, below path: ArraySlice<String>, value: Node) throws(TesseraError) -> Node {
        guard let key = path.first else { return value }
        switch node {
        case .mapping(var mapping):
            let inner = mapping[key] ?? .mapping(Node.Mapping([]))
            mapping[key] = try replaced(in: inner, below: path.dropFirst(), value: value)
            return .mapping(mapping)
        case .sequence(var sequence):
            guard let index = Int(key), sequence.indices.contains(index) else {
                throw wrong("'\(key)' is no element of a list of \(sequence.count), which are counted from 0")
            }
            sequence[index] = try replaced(in: sequence[index], below: path.dropFirst(), value: value)
            return .sequence(sequence)
        default: throw wrong("the recipe has a single value above '\(key)'")
        }
    }

    private func wrong(_ problem: String) -> TesseraError {
        TesseraError(.usage, "cannot set '\(text)': \(problem)", advice: "name keys from the top of the recipe down")
    }
}
