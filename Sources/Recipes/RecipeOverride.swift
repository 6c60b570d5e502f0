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
    /// Characters of a setting that messages repeat.
    private static let shownLimit = 200
    /// Keys of a path. Those of recipes have four at most.
    private static let depthLimit = 64

    /// - Throws: `usage` for a text without a path or without `=`.
    package init(_ text: String) throws(TesseraError) {
        let sides = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let path = sides[0].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard sides.count == 2, !path.contains("") else {
            throw TesseraError(
                .usage, "'\(text)' does not set a key of a recipe", advice: "write a path and a value: parameters.lambda=0.3")
        }
        guard path.count <= Self.depthLimit else {
            throw TesseraError(
                .usage, "'\(text.prefix(Self.shownLimit))' sets a key that is \(path.count) levels deep",
                advice: "name a key of a recipe, such as parameters.lambda")
        }
        (self.path, self.value, self.text) = (path, String(sides[1]), text)
    }

    /// The recipe with all of the overrides, one after the other. Without any, the same text; with some, comments are lost, and
    /// lines come to lie elsewhere.
    ///
    /// - Returns: the text, and where its lines come from; `nil` for the file itself.
    /// - Throws: `badData` for a recipe that cannot be parsed, `usage` for a path that leads nowhere and a value that is not
    ///   YAML.
    package static func apply(
        _ overrides: [RecipeOverride], to recipe: String, file: String
    ) throws(TesseraError) -> (text: String, origins: LineOrigins?) {
        guard !overrides.isEmpty else { return (recipe, nil) }
        guard var root = try? node(of: recipe), case .mapping = root else {
            throw TesseraError(
                .badData, "is not YAML with keys, so that none can be set", file: file, advice: "try it without --set")
        }
        let lines = recipe.utf8.count { $0 == UInt8(ascii: "\n") } + 1
        for (number, override) in overrides.enumerated() {
            // The marks of a value stand below the file, each value on a line of its own.
            let value = try override.parsed(atLine: lines + 1 + number)
            root = try override.replaced(in: root, below: override.path[...], value: value)
        }
        guard let text = try? Yams.serialize(node: root, width: -1, allowUnicode: true), let written = try? node(of: text) else {
            throw TesseraError(.badData, "cannot be written with the values of --set", file: file)
        }
        var origins = Array(repeating: 0, count: text.utf8.count { $0 == UInt8(ascii: "\n") } + 1)
        trace(written, to: root, lines: lines, &origins)
        return (text, LineOrigins(lines: origins, settings: overrides.map { "--set \($0.text.prefix(shownLimit))" }))
    }

    /// Notes where the lines come from that `written` lies on, which is what `node` became in the new text.
    private static func trace(_ written: Node, to node: Node, lines: Int, _ origins: inout [Int]) {
        if let line = written.mark?.line, let origin = node.mark?.line, origins.indices.contains(line - 1) {
            // What is set on a line is more likely to be wrong than what stood there before.
            if origin > lines { origins[line - 1] = lines - origin }
            if origins[line - 1] == 0 { origins[line - 1] = origin }
        }
        switch (written, node) {
        case (.mapping(let written), .mapping(let node)):
            for (written, node) in zip(written, node) {
                trace(written.key, to: node.key, lines: lines, &origins)
                trace(written.value, to: node.value, lines: lines, &origins)
            }
        case (.sequence(let written), .sequence(let node)):
            for (written, node) in zip(written, node) { trace(written, to: node, lines: lines, &origins) }
        default: break
        }
    }

    private static func node(of text: String) throws -> Node? {
        guard try Aliases.problem(in: text) == nil else { return nil }
        let documents = try RepeatedKeys.compose(text) { _, _ in }
        return documents.count == 1 ? documents.first : nil
    }

    private func parsed(atLine line: Int) throws(TesseraError) -> Node {
        let found: Node?? = try? Self.node(of: String(repeating: "\n", count: line - 1) + value)
        guard let node = found ?? nil else { throw wrong("its value is not YAML") }
        return node
    }

    private func replaced(in node: Node, below path: ArraySlice<String>, value: Node) throws(TesseraError) -> Node {
        guard let key = path.first else { return value }
        switch node {
        case .mapping(var mapping):
            // In a flow style, what is set would share its line with others.
            mapping.style = .block
            if let index = mapping.index(forKey: Node(key)) {
                mapping[index].value = try replaced(in: mapping[index].value, below: path.dropFirst(), value: value)
            } else {
                let empty = Node.mapping(Node.Mapping([], .implicit, .block, value.mark))
                mapping[.scalar(Node.Scalar(key, .implicit, .any, value.mark))] =
                    try replaced(in: empty, below: path.dropFirst(), value: value)
            }
            return .mapping(mapping)
        case .sequence(var sequence):
            guard let index = Int(key), sequence.indices.contains(index) else {
                throw wrong("'\(key)' is no element of a list of \(sequence.count), which are counted from 0")
            }
            sequence.style = .block
            sequence[index] = try replaced(in: sequence[index], below: path.dropFirst(), value: value)
            return .sequence(sequence)
        default: throw wrong("the recipe has a single value above '\(key)'")
        }
    }

    private func wrong(_ problem: String) -> TesseraError {
        TesseraError(.usage, "cannot set '\(text)': \(problem)", advice: "name keys from the top of the recipe down")
    }
}
