import Glibc

/// Shows lines on stdout. On a terminal, new lines replace the previous ones.
package struct Screen {
    private let isTerminal = isatty(STDOUT_FILENO) == 1
    private var shownLines = 0

    package init() {}

    package mutating func show(_ lines: [String], redraws: Bool) {
        var text = ""
        if redraws, isTerminal, shownLines > 0 { text += "\u{1b}[\(shownLines)A" }
        let clear = redraws && isTerminal ? "\u{1b}[K" : ""
        for line in lines { text += "\(line)\(clear)\n" }
        if redraws, isTerminal, lines.count < shownLines {
            text += String(repeating: "\u{1b}[K\n", count: shownLines - lines.count) + "\u{1b}[\(shownLines - lines.count)A"
        }
        shownLines = lines.count
        print(text, terminator: "")
        flushOutput()
    }
}

/// Flushes stdout, for readers that wait for a line.
package func flushOutput() { fflush(nil) }
