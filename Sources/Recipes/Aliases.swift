package import Core
import Yams

/// What is wrong with the aliases of a YAML text, found out before the text is parsed: a few lines of aliases of aliases can
/// stand for more nodes, or deeper ones, than memory and stack hold.
package enum Aliases {
    private static let marker = "tessera-alias-"
    /// Nodes of a text with all that its aliases stand for. No real recipe has this many.
    static let nodeLimit = 200_000
    /// Levels of lists and maps in each other: as many as the parser takes of a text without aliases.
    static let depthLimit = 1000

    /// - Parameter file: what messages call the text.
    /// - Returns: the problem and its line; `nil` for a text that can be parsed.
    /// - Throws: the parser's errors, with the lines of `text`.
    package static func problem(in text: String, file: String? = nil) throws -> TesseraError? {
        guard let marked = marked(text) else { return nil }
        return try RepeatedKeys.compose(marked, ignore: { _, _ in }) { documents in
            // The parser hashes a key with all that it contains.
            if let line = documents.lazy.compactMap(keyLine).first {
                return TesseraError(
                    .badData, "a key of a map is an alias, or contains one", file: file, line: line,
                    advice: "write the key itself")
            }
            var expansion = Expansion()
            for document in documents { _ = expansion.measure(document) }
            return expansion.line.map {
                TesseraError(
                    .badData, "with its aliases, this has more than \(nodeLimit) nodes, or \(depthLimit) levels", file: file,
                    line: $0,
                    advice: "write out what the aliases stand for")
            }
        }
    }

    /// How large nodes are with all that aliases stand for, in the order of the text.
    private struct Expansion {
        struct Size {
            var nodes = 1
            var levels = 1

            mutating func add(_ part: Size) {
                // Neither is counted much beyond its limit.
                nodes = min(nodes + part.nodes, Aliases.nodeLimit + 1)
                levels = max(levels, min(part.levels, Aliases.depthLimit) + 1)
            }
        }

        private var anchors: [String: Size] = [:]
        /// Of the first node that is too large.
        private(set) var line: Int?

        mutating func measure(_ node: Node) -> Size {
            var size = Size()
            switch node {
            case .scalar(let scalar):
                if let name = Aliases.name(of: scalar) { size = anchors[name] ?? size }
            case .mapping(let mapping):
                for (key, value) in mapping {
                    size.add(measure(key))
                    size.add(measure(value))
                }
            case .sequence(let sequence): for item in sequence { size.add(measure(item)) }
            case .alias: break
            }
            if size.nodes > Aliases.nodeLimit || size.levels > Aliases.depthLimit { line = line ?? node.mark?.line ?? 1 }
            if let anchor = node.anchor { anchors[anchor.rawValue] = size }
            return size
        }
    }

    /// What an alias of the marked text refers to; `nil` for other scalars.
    private static func name(of scalar: Node.Scalar) -> String? {
        guard scalar.style == .plain || scalar.style == .any, scalar.string.hasPrefix(marker) else { return nil }
        return String(scalar.string.dropFirst(marker.count))
    }

    /// The text with a plain scalar in place of each alias; `nil` for a text without any. In comments, in quotes and within words
    /// the change means nothing.
    private static func marked(_ text: String) -> String? {
        func isWord(_ byte: UInt8?) -> Bool {
            guard let byte, byte < 0x80 else { return false }
            let scalar = UnicodeScalar(byte)
            return scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "_" || scalar == "-"
        }
        let bytes = Array(text.utf8)
        var result: [UInt8] = [], found = false
        for (index, byte) in bytes.enumerated() {
            let before = index > 0 ? bytes[index - 1] : nil, after = index + 1 < bytes.count ? bytes[index + 1] : nil
            if byte == UInt8(ascii: "*"), isWord(after), !isWord(before) {
                result += marker.utf8
                found = true
            } else {
                result.append(byte)
            }
        }
        return found ? String(decoding: result, as: UTF8.self) : nil
    }

    /// - Returns: the line of a key with an alias.
    private static func keyLine(_ node: Node) -> Int? {
        switch node {
        case .mapping(let mapping):
            return mapping.lazy.compactMap { hasAlias($0) ? $0.mark?.line ?? 1 : keyLine($0) ?? keyLine($1) }.first
        case .sequence(let sequence): return sequence.lazy.compactMap(keyLine).first
        default: return nil
        }
    }

    private static func hasAlias(_ node: Node) -> Bool {
        switch node {
        case .scalar(let scalar): name(of: scalar) != nil
        case .mapping(let mapping): mapping.contains { hasAlias($0) || hasAlias($1) }
        case .sequence(let sequence): sequence.contains { hasAlias($0) }
        default: false
        }
    }
}
