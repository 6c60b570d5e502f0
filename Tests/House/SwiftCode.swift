/// A Swift file without its comments and literal texts: what is left of every line is code.
struct SwiftCode {
    struct Declaration {
        let name: String
        /// The line, from 1.
        let line: Int
        let indentation: Int
        /// `func`, `var`, `case`, ...
        let keyword: String
    }

    let lines: [[String]]
    let indentations: [Int]
    let declarations: [Declaration]

    /// All words and signs in order, with the line that each stands in.
    var tokens: [(text: String, line: Int)] {
        lines.enumerated().flatMap { index, tokens in tokens.map { ($0, index + 1) } }
    }

    /// Splits `text` into the words and signs of each line.
    init(_ text: String) {
        let code = Self.blanked(text)
        var lines: [[String]] = [], indentations: [Int] = []
        for line in code.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            indentations.append(line.prefix { $0 == UInt8(ascii: " ") }.count)
            lines.append(Self.tokens(line))
        }
        self.lines = lines
        self.indentations = indentations
        declarations = lines.indices.flatMap { index in
            Self.declarations(lines[index]).map {
                Declaration(name: $0.name, line: index + 1, indentation: indentations[index], keyword: $0.keyword)
            }
        }
    }

    static let typeKeywords: Set = ["struct", "class", "enum", "protocol", "actor", "extension"]
    private static let keywords = typeKeywords.union([
        "func", "var", "let", "typealias", "case", "associatedtype", "init", "subscript",
    ])
    private static let modifiers: Set = [
        "package", "public", "internal", "private", "fileprivate", "open", "static", "final", "indirect", "mutating",
        "nonmutating", "nonisolated", "override", "lazy", "weak", "unowned", "consuming", "borrowing", "isolated", "convenience",
        "required", "prefix", "postfix", "class",
    ]

    static func isWord(_ token: String) -> Bool { token.utf8.first.map(isWordByte) ?? false }

    private static func isNumber(_ token: String) -> Bool { token.first?.isNumber ?? false }

    /// The declarations that begin a line; `case a, b(Int)` has two.
    private static func declarations(_ tokens: [String]) -> [(name: String, keyword: String)] {
        var rest = tokens[...]
        func skipParentheses() {
            var depth = 0
            repeat {
                guard let token = rest.popFirst() else { return }
                depth += token == "(" ? 1 : token == ")" ? -1 : 0
            } while depth > 0
        }
        while let token = rest.first, token == "@" || modifiers.contains(token) {
            if token == "class", rest.dropFirst().first.map({ !keywords.contains($0) && !modifiers.contains($0) }) ?? true {
                break
            }
            rest.removeFirst()
            if token == "@" { rest = rest.dropFirst() }
            if rest.first == "(" { skipParentheses() }
        }
        guard let keyword = rest.popFirst(), keywords.contains(keyword) else { return [] }
        if keyword == "init" || keyword == "subscript" { return [(keyword, keyword)] }
        guard let name = rest.first, isWord(name),
            keyword != "case" || !["let", "var", "is", "nil", "true", "false"].contains(name)
        else { return [] }
        guard keyword == "case" else {
            let path = rest.prefix { isWord($0) || $0 == "." }
            return [(keyword == "extension" ? path.last ?? name : name, keyword)]
        }
        var names: [(String, String)] = [], depth = 0, expectsName = true
        for token in rest {
            if token == ":" && depth == 0 { return [] }  // A pattern of a `switch`.
            depth += ["(", "[", "<"].contains(token) ? 1 : [")", "]", ">"].contains(token) ? -1 : 0
            if expectsName && isWord(token) && !isNumber(token) { names.append((token, keyword)) }
            expectsName = depth == 0 && token == ","
        }
        return names
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), 0x80...:
            true
        default: false
        }
    }

    private static func tokens(_ line: ArraySlice<UInt8>) -> [String] {
        var tokens: [String] = [], start = line.startIndex
        while start < line.endIndex {
            let end = line[start...].firstIndex { !isWordByte($0) } ?? line.endIndex
            if end > start { tokens.append(String(decoding: line[start..<end], as: UTF8.self)) }
            if end < line.endIndex && line[end] != UInt8(ascii: " ") && line[end] != UInt8(ascii: "`") {
                tokens.append(String(decoding: line[end...end], as: UTF8.self))
            }
            start = end + 1
        }
        return tokens
    }

    /// The text with spaces in place of comments, and of string literals but for their first mark and their interpolations.
    private static func blanked(_ text: String) -> [UInt8] {
        let space = UInt8(ascii: " "), newline = UInt8(ascii: "\n"), quote = UInt8(ascii: "\""), hash = UInt8(ascii: "#")
        let backslash = UInt8(ascii: "\\")
        var bytes = Array(text.utf8), index = 0
        /// The literals around `index`, each with how many parentheses of its interpolation are open: none within its text.
        var literals: [(end: [UInt8], hashes: Int, depth: Int)] = []
        func has(_ text: [UInt8], at index: Int) -> Bool { bytes[index...].starts(with: text) }
        func blank(_ count: Int) {
            for _ in 0..<count where index < bytes.count {
                if bytes[index] != newline { bytes[index] = space }
                index += 1
            }
        }
        while index < bytes.count {
            if let literal = literals.last, literal.depth == 0 {
                let escape = [backslash] + [UInt8](repeating: hash, count: literal.hashes)
                if has(literal.end, at: index) {
                    literals.removeLast()
                    blank(literal.end.count)
                } else if has(escape + [UInt8(ascii: "(")], at: index) {
                    blank(escape.count)
                    literals[literals.count - 1].depth = 1
                    index += 1
                } else {
                    blank(has(escape, at: index) ? escape.count + 1 : 1)
                }
                continue
            }
            switch bytes[index] {
            case UInt8(ascii: "/") where has(Array("//".utf8), at: index):
                blank((bytes[index...].firstIndex(of: newline) ?? bytes.count) - index)
            case UInt8(ascii: "/") where has(Array("/*".utf8), at: index):
                while index < bytes.count && !has(Array("*/".utf8), at: index) { blank(1) }
                blank(2)
            case quote, hash:
                let hashes = bytes[index...].prefix { $0 == hash }.count
                let marks = bytes[(index + hashes)...].prefix(3).prefix { $0 == quote }.count
                index += hashes
                guard marks > 0 else { continue }
                let quotes = marks == 3 ? 3 : 1
                let end = [UInt8](repeating: quote, count: quotes) + [UInt8](repeating: hash, count: hashes)
                literals.append((end, hashes, 0))
                index += 1  // The quotation mark that stays stands for the literal.
                blank(quotes - 1)
            case UInt8(ascii: "("):
                if !literals.isEmpty { literals[literals.count - 1].depth += 1 }
                index += 1
            case UInt8(ascii: ")"):
                if !literals.isEmpty { literals[literals.count - 1].depth -= 1 }
                index += 1
            default: index += 1
            }
        }
        return bytes
    }
}
