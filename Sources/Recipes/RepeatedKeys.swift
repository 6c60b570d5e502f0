package import Yams

/// Keys that occur twice in one map, as PyYAML reads them: the last one counts. The parser refuses them, so all but the last get
/// names that nobody asks for.
package enum RepeatedKeys {
    private static let prefix = "tessera-repeated-"
    /// Every one of them costs a reading of the text. No real recipe has this many.
    private static let limit = 100

    /// Parses all documents of the text.
    ///
    /// - Parameter ignore: called with each key that does not count, and its line.
    /// - Throws: the parser's errors.
    package static func compose(_ text: String, ignore: (_ key: String, _ line: Int) -> Void) throws -> [Node] {
        try compose(text, ignore: ignore) { $0 }
    }

    /// - Parameter read: called with the documents while their nodes still know their anchors, which the parser keeps.
    static func compose<Result>(
        _ text: String, ignore: (_ key: String, _ line: Int) -> Void, read: (_ documents: [Node]) throws -> Result
    ) throws -> Result {
        // A byte order mark is no part of the text.
        var text = text.unicodeScalars.first == "\u{feff}" ? String(text.unicodeScalars.dropFirst()) : text
        for number in 0... {
            do {
                let parser = try Parser(yaml: text)
                var documents: [Node] = []
                while let document = try parser.nextRoot() { documents.append(document) }
                return try withExtendedLifetime(parser) { try read(documents) }
            } catch YamlError.duplicatedKeysInMapping(let keys, let context) where number < limit {
                guard let key = keys.first, let renamed = rename(key, at: context.mark, in: text, number: number) else {
                    throw YamlError.duplicatedKeysInMapping(duplicates: keys, context: context)
                }
                text = renamed
                ignore(key, context.mark.line)
            }
        }
        return try read([])
    }

    package static func isIgnored(_ key: Node) -> Bool { key.plainText?.hasPrefix(prefix) == true }

    /// The text with another name for the key that stands at the mark. Merge keys stay such.
    private static func rename(_ key: String, at mark: Mark, in text: String, number: Int) -> String? {
        var lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { String($0) }
        guard lines.indices.contains(mark.line - 1), mark.column > 0 else { return nil }
        let line = lines[mark.line - 1].unicodeScalars, before = line.prefix(mark.column - 1)
        let rest = String(line.dropFirst(mark.column - 1))
        guard let form = [key, "\"\(key)\"", "'\(key)'"].first(where: { rest.hasPrefix($0) }) else { return nil }
        let name = key == "<<" ? "<<\(number)" : "\(prefix)\(number)"
        lines[mark.line - 1] = String(before) + name + String(rest.unicodeScalars.dropFirst(form.unicodeScalars.count))
        return lines.joined(separator: "\n")
    }
}
