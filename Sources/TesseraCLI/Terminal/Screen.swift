import Glibc

/// Shows lines on stdout. On a terminal, new lines replace the previous ones.
package struct Screen {
    package init() {}

    package func show(_ lines: [String], redraws: Bool) {
        if redraws, Terminal.isTerminal(STDOUT_FILENO) {
            flushOutput()
            Terminal.showLive(lines, on: STDOUT_FILENO)
        } else {
            print(lines.map { "\($0)\n" }.joined(), terminator: "")
            flushOutput()
        }
    }

    /// Takes away the lines that would be replaced.
    package func clear() { if Terminal.isTerminal(STDOUT_FILENO) { Terminal.showLive([], on: STDOUT_FILENO) } }

    /// Leaves the lines where they are; what follows appears below them.
    package func finish() { Terminal.leaveLive() }
}

/// Flushes stdout, for readers that wait for a line.
package func flushOutput() { fflush(nil) }
