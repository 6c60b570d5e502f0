/// A JSON object as text, read and edited key by key. All other bytes stay unchanged.
///
/// For `config.json`: decoding and encoding the file would reorder its keys and reformat its numbers.
package struct JSONText: Sendable, Hashable {
    package internal(set) var bytes: [UInt8]
    let file: String?

    /// - Throws: `badData` unless the bytes are exactly one JSON object.
    package init(_ bytes: [UInt8], file: String? = nil) throws(TesseraError) {
        self.bytes = bytes
        self.file = file
        try BrokenDownload.check(bytes, isText: true, file: file)
        var scanner = JSONScanner(bytes, file: file)
        try scanner.object { scanner, _ throws(TesseraError) in try scanner.value() }
        scanner.skipSpace()
        guard scanner.isAtEnd else { throw scanner.error("unexpected data after the object") }
    }

    // MARK: Reading

    package func has(_ path: [String]) -> Bool { range(of: path) != nil }

    package func string(_ path: [String]) -> String? {
        guard let text = text(path) else { return nil }
        var scanner = JSONScanner(Array(text.utf8), file: nil)
        return try? scanner.string()
    }

    package func integer(_ path: [String]) -> Int? { text(path).flatMap { Int($0) } }

    package func flag(_ path: [String]) -> Bool? { text(path).flatMap { Bool($0) } }

    /// The value as written.
    private func text(_ path: [String]) -> String? {
        range(of: path).map { String(decoding: bytes[$0], as: UTF8.self) }
    }

    /// The bytes of the value at `path`, which names a key of the object, a key of that key's object, and so on.
    func range(of path: [String]) -> Range<Int>? {
        var scanner = JSONScanner(bytes, file: file)
        return try? Self.find(path[...], in: &scanner)
    }

    private static func find(_ path: ArraySlice<String>, in scanner: inout JSONScanner) throws(TesseraError) -> Range<Int>? {
        guard let wanted = path.first else { return try scanner.value() }
        var found: Range<Int>?
        try scanner.object { scanner, key throws(TesseraError) in
            if ExactText(key) == ExactText(wanted) {
                found = try find(path.dropFirst(), in: &scanner)
            } else {
                try scanner.value()
            }
        }
        return found
    }

    // MARK: Changing

    /// Sets the top-level `key`: in place if it exists, otherwise at the end of the object.
    package mutating func set(_ key: String, to value: String) { set(key, toJSON: Self.quoted(value)) }

    package mutating func set(_ key: String, to value: Int) { set(key, toJSON: "\(value)") }

    /// - Parameter json: a JSON value.
    package mutating func set(_ key: String, toJSON json: String) {
        if let range = range(of: [key]) {
            bytes.replaceSubrange(range, with: json.utf8)
        } else if let opening = bytes.firstIndex(of: UInt8(ascii: "{")), let closing = bytes.lastIndex(of: UInt8(ascii: "}")) {
            // The new member goes after the last one, indented like the first.
            let indent = bytes[(opening + 1)...].prefix { [0x20, 0x09, 0x0a, 0x0d].contains($0) }
            let isEmpty = opening + 1 + indent.count == closing
            let end = bytes[..<closing].lastIndex { ![0x20, 0x09, 0x0a, 0x0d].contains($0) } ?? opening
            let member = (isEmpty ? [] : [UInt8(ascii: ",")] + indent) + "\(Self.quoted(key)): \(json)".utf8
            bytes.insert(contentsOf: member, at: end + 1)
        }
    }

    /// A JSON string, escaped as serde_json does: only what must be escaped.
    package static func quoted(_ text: String) -> String {
        // Names of tensors and files rarely need escapes.
        guard !text.utf8.allSatisfy({ $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) else {
            return "\"\(text)\""
        }
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\u{08}": quoted += "\\b"
            case "\u{0c}": quoted += "\\f"
            case "\n": quoted += "\\n"
            case "\r": quoted += "\\r"
            case "\t": quoted += "\\t"
            case ..<"\u{20}":
                let hex = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
