import Yams

/// Keys of maps that are aliases, or contain some. The parser hashes keys with all that aliases stand for, so a few lines of
/// aliases of aliases would keep it busy for ever. Values are not hashed, and `MergeKeys` bounds them.
enum AliasKeys {
    private static let marker = "tessera-alias-"

    /// - Returns: the line of a key with an alias; `nil` for a text that can be parsed.
    /// - Throws: the parser's errors, with the lines of `text`.
    static func line(in text: String) throws -> Int? {
        guard let marked = marked(text) else { return nil }
        return try RepeatedKeys.compose(marked) { _, _ in }.lazy.compactMap(line).first
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

    private static func line(_ node: Node) -> Int? {
        switch node {
        case .mapping(let mapping):
            return mapping.lazy.compactMap { hasAlias($0) ? $0.mark?.line ?? 1 : line($0) ?? line($1) }.first
        case .sequence(let sequence): return sequence.lazy.compactMap(line).first
        default: return nil
        }
    }

    private static func hasAlias(_ node: Node) -> Bool {
        switch node {
        case .scalar(let scalar): scalar.string.hasPrefix(marker) && (scalar.style == .plain || scalar.style == .any)
        case .mapping(let mapping): mapping.contains { hasAlias($0) || hasAlias($1) }
        case .sequence(let sequence): sequence.contains { hasAlias($0) }
        default: false
        }
    }
}
