extension String {
    /// The text for a terminal or a log: on one line, and with whatever would move the cursor or reorder characters escaped as
    /// `\u{1B}`.
    ///
    /// Names and paths come from recipes, checkpoints and peers, who must not be able to forge lines.
    package var printable: String {
        guard unicodeScalars.contains(where: \.isUnprintable) else { return self }
        var text = ""
        for scalar in unicodeScalars {
            text += scalar.isUnprintable ? scalar.escaped(asASCII: true) : String(scalar)
        }
        return text
    }

    /// The same for a text that is JSON, whose strings are escaped as JSON has it: `\u009b`.
    package var printableJSON: String {
        guard unicodeScalars.contains(where: { $0.value >= 0x7f && $0.isUnprintable }) else { return self }
        var text = ""
        for scalar in unicodeScalars {
            guard scalar.value >= 0x7f, scalar.isUnprintable else {
                text.unicodeScalars.append(scalar)
                continue
            }
            for unit in UTF16.encode(scalar) ?? UTF16.EncodedScalar() {
                let digits = String(unit, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
        }
        return text
    }
}

extension Unicode.Scalar {
    fileprivate var isUnprintable: Bool {
        switch value {
        case 0..<0x20, 0x7f..<0xa0: true  // control characters
        case 0x061c, 0x2028...0x202e, 0x2066...0x2069: true  // line separators, and marks that change the direction
        case 0x200b...0x200f, 0x2060...0x2064, 0xfeff: true  // what has no width, and more of those marks
        case 0xe0000...0xe007f: true  // tags, which nobody sees
        default: false
        }
    }
}

extension String {
    /// The text as a shell takes it for one word that it does not change.
    package var shellWord: String {
        let isPlain =
            !isEmpty
            && utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "/._-+=:,@%".utf8.contains(byte)
                }
            }
        return isPlain ? self : "'\(replacing("'", with: "'\\''"))'"
    }

    /// The text, or its beginning where it has more than so many bytes.
    package func shortened(to limit: Int) -> String {
        utf8.count <= limit ? self : String(decoding: utf8.prefix(limit), as: UTF8.self) + "…"
    }
}

extension TesseraError {
    /// The error with texts of a length that a message, a log and a terminal can bear; a worker may send any, and names and
    /// values of recipes and files may be megabytes.
    package var bounded: TesseraError {
        func bounded(_ text: String) -> String { text.shortened(to: 2000) }
        return TesseraError(
            code, bounded(problem), file: file.map(bounded), line: line, tensor: tensor.map(bounded), advice: advice.map(bounded))
    }
}
