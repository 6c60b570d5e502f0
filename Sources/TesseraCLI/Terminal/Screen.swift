import Glibc

/// Shows lines on stdout. On a terminal, new lines replace the previous ones.
package struct Screen {
    package init() {}

    package func show(_ lines: [String], redraws: Bool) throws(ReaderGone) {
        if redraws, Terminal.isTerminal(STDOUT_FILENO) {
            try flushOutput()
            Terminal.showLive(lines, on: STDOUT_FILENO)
        } else {
            print(lines.map { "\($0)\n" }.joined(), terminator: "")
            try flushOutput()
        }
    }

    /// Takes away the lines that would be replaced.
    package func clear() { if Terminal.isTerminal(STDOUT_FILENO) { Terminal.showLive([], on: STDOUT_FILENO) } }

    /// Leaves the lines where they are; what follows appears below them.
    package func finish() { Terminal.leaveLive() }
}

/// Whoever read stdout has gone, as `head` does: nothing is left to do, and nothing to be said about it.
package struct ReaderGone: Error {
    /// As shells have it for a command that SIGPIPE ended.
    package static let exitCode = 128 + SIGPIPE

    package init() {}
}

/// Flushes stdout, for readers that wait for a line.
package func flushOutput() throws(ReaderGone) {
    if fflush(nil) != 0, errno == EPIPE { throw ReaderGone() }
}
