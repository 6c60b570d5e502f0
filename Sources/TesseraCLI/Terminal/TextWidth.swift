import Core

/// Text in the cells of a terminal.
extension StringProtocol {
    /// Cells that the text takes. Escape sequences of colours take none, and characters of East Asian scripts two.
    var columns: Int {
        var count = 0, isEscape = false
        for character in self {
            if character == "\u{1b}" {
                isEscape = true
            } else if isEscape {
                isEscape = character != "m"
            } else {
                count += character.columns
            }
        }
        return count
    }

    /// The text, or where it is too wide its beginning and end with `…` between them: the ends of paths and names tell most.
    ///
    /// - Parameter width: in cells. The text has no colours.
    func shortened(toColumns width: Int) -> String {
        guard columns > width else { return String(self) }
        guard width > 1 else { return width == 1 ? "…" : "" }
        let front = (width - 1) / 2
        return prefix(columns: front) + "…" + String(String(reversed()).prefix(columns: width - 1 - front).reversed())
    }

    /// The text in lines of at most `width` cells, broken between words. A longer word has a line of its own.
    ///
    /// - Parameter indent: spaces at the beginning of all lines but the first.
    func wrapped(toColumns width: Int, indent: Int = 0) -> [String] {
        var lines: [String] = [], line = ""
        for word in split(separator: " ") {
            if line.isEmpty {
                line = String(word)
            } else if line.columns + 1 + word.columns <= width {
                line += " \(word)"
            } else {
                lines.append(line)
                line = String(repeating: " ", count: indent) + word
            }
        }
        return lines + [line]
    }

    /// As much of the beginning as has space.
    func prefix(columns width: Int) -> String {
        var text = "", left = width
        for character in self {
            left -= character.columns
            guard left >= 0 else { break }
            text.append(character)
        }
        return text
    }
}

extension Character {
    fileprivate var columns: Int {
        guard let scalar = unicodeScalars.first else { return 0 }
        switch scalar.value {
        // Unicode Standard Annex 11: the blocks whose characters are wide.
        case 0x1100...0x115f, 0x2e80...0x303e, 0x3041...0xa4cf, 0xac00...0xd7a3, 0xf900...0xfaff, 0xfe30...0xfe6f,
            0xff00...0xff60, 0xffe0...0xffe6, 0x1f300...0x1f64f, 0x1f900...0x1f9ff, 0x20000...0x3fffd:
            return 2
        default: return 1
        }
    }
}
