package import Core
import Glibc
import Work

/// Output conventions: results go to stdout, everything else to stderr; colour is used on a terminal only.
package enum Terminal {
    static let isInteractive = isatty(STDERR_FILENO) == 1
    package static let hasColour =
        isInteractive && getenv("NO_COLOR") == nil && getenv("TERM").map { String(cString: $0) } != "dumb"

    package enum Style: String {
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case cyan = "36"
    }

    package static func styled(_ text: String, _ style: Style) -> String {
        hasColour ? "\u{1b}[\(style.rawValue)m\(text)\u{1b}[0m" : text
    }

    /// Writes to stderr, unbuffered.
    static func note(_ text: String, terminator: String = "\n") {
        let bytes = Array((text + terminator).utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress.map { $0 + done }, bytes.count - done) }
            guard count > 0 || errno == EINTR else { return }
            done += max(0, count)
        }
    }

    package static func complain(_ problems: [TesseraError]) {
        for problem in problems { note("\(styled("error:", .red)) \(problem)") }
    }

    static func remark(_ text: String) { note("\(styled("note:", .yellow)) \(text.printable)") }

    /// The width of the terminal in columns; 80 if unknown.
    static var width: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }
}

/// A table whose columns fit their contents.
package struct TextTable {
    package enum Alignment { case left, right }

    private var rows: [[String]] = []
    private let alignments: [Alignment]

    package init(_ columns: [(title: String, alignment: Alignment)]) {
        alignments = columns.map(\.alignment)
        rows = [columns.map(\.title)]
    }

    /// Control characters in the row are escaped.
    package mutating func add(_ row: [String]) { rows.append(row.map(\.printable)) }

    package var lines: [String] {
        let widths = alignments.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                return alignments[column] == .left ? cell + padding : padding + cell
            }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }
    }
}
