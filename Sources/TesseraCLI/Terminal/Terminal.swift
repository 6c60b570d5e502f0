package import Core
import FoundationEssentials
import Glibc
import Synchronization

/// Output conventions: results go to stdout, everything else to stderr; colour is used on a terminal only.
package enum Terminal {
    static let isInteractive = isTerminal(STDERR_FILENO) && !isDumb
    package static let hasColour = isInteractive && getenv("NO_COLOR").map { $0.pointee == 0 } ?? true

    /// A terminal that cannot move its cursor.
    private static let isDumb = getenv("TERM").map { String(cString: $0) == "dumb" } ?? false

    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

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

    /// What is shared by all that is written to the terminal.
    private struct Output {
        var region = LiveRegion()
        /// Where the region is.
        var descriptor = STDERR_FILENO
        /// Whether stderr has JSON alone, one object a line.
        var isJSON = false
    }

    private static let output = Mutex(Output())

    /// From now on, notes and errors are JSON objects too: stderr is one stream for a program.
    static func speakJSON() { output.withLock { $0.isJSON = true } }

    package static var speaksJSON: Bool { output.withLock { $0.isJSON } }

    /// Writes a line to stderr, above the lines that change.
    static func note(_ text: String) {
        output.withLock { output in
            let isBeside = isTerminal(output.descriptor) && isTerminal(STDERR_FILENO)
            guard isBeside else { return write(text + "\n", to: STDERR_FILENO) }
            write(output.region.insert(text + "\n", width: size(output.descriptor).width), to: STDERR_FILENO)
        }
    }

    /// Shows lines that the next call replaces.
    static func showLive(_ lines: [String], on descriptor: Int32 = STDERR_FILENO) {
        _ = continuations
        output.withLock { output in
            // A shell has written below the lines meanwhile.
            if wasContinued.exchange(false, ordering: .relaxed) { output.region.leave() }
            output.descriptor = descriptor
            write(output.region.show(lines, width: size(descriptor).width), to: descriptor)
        }
    }

    /// What is shown stays.
    static func leaveLive() { output.withLock { $0.region.leave() } }

    /// Whether the process was stopped and goes on (Ctrl-Z and fg) since the lines were last shown.
    private static let wasContinued = Atomic(false)
    private static let continuations: Void = {
        _ = signal(SIGCONT) { _ in Terminal.wasContinued.store(true, ordering: .relaxed) }
    }()

    private static func write(_ text: String, to descriptor: Int32) {
        let bytes = Array(text.utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, bytes.count - done)
            }
            guard count > 0 || errno == EINTR else { return }
            done += max(0, count)
        }
    }

    package static func complain(_ problems: [TesseraError]) {
        for problem in problems { say("error", problem.description, .red, problem) }
    }

    /// - Parameter usage: the error and how the command is used, for people, as ArgumentParser has it.
    package static func complain(about error: TesseraError, usage: String) {
        guard !speaksJSON else { return complain([error]) }
        let prefix = "Error: "
        let lines = usage.hasPrefix(prefix) ? usage.dropFirst(prefix.count) : usage[...]
        note("\(styled("error:", .red)) \(lines.split(separator: "\n").map { String($0).printable }.joined(separator: "\n"))")
    }

    /// - Parameter text: one or more lines.
    package static func remark(_ text: String) {
        let lines = text.split(separator: "\n").map { String($0).printable }
        say("note", lines.joined(separator: "\n"), .yellow)
    }

    package static func warn(_ warnings: [TesseraError]) {
        for warning in warnings { say("warning", warning.description, .yellow, warning) }
    }

    /// The last line for programs says how the command ended.
    package static func end(exitCode: Int32) {
        guard speaksJSON else { return }
        note(JSONLine(EndEvent(time: Date().timestamp, exitCode: exitCode)).text)
    }

    /// - Parameter error: what the text is of, if it is an error's.
    private static func say(_ kind: String, _ text: String, _ style: Style, _ error: TesseraError? = nil) {
        if speaksJSON {
            return note(JSONLine(TextEvent(event: kind, time: Date().timestamp, text: text, error: error)).text)
        }
        let margin = String(repeating: " ", count: kind.count + 2)
        let lines = text.split(separator: "\n").enumerated().flatMap { number, line in
            let line = number == 0 ? "\(kind): \(line)" : margin + line
            return isInteractive && number == 0 ? line.wrapped(toColumns: width - 1, indent: margin.count) : [line]
        }
        note(styled("\(kind):", style) + lines.joined(separator: "\n").dropFirst(kind.count + 1))
    }

    /// The width of the terminal in columns; 80 if unknown.
    package static var width: Int { size(STDERR_FILENO).width }

    /// How wide lines on stdout should be; `nil` for no limit, where they go to a file or a program.
    package static var outputWidth: Int? { isTerminal(STDOUT_FILENO) ? size(STDOUT_FILENO).width - 1 : nil }

    /// Columns and rows of the terminal; 80 and 24 if unknown.
    static func size(_ descriptor: Int32) -> (width: Int, height: Int) {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }
}

/// One line of JSON with sorted keys.
struct JSONLine {
    let text: String

    init(_ value: some Encodable) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.dateEncodingStrategy = .iso8601
        text = (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self).printableJSON } ?? "{}"
    }
}

extension Date {
    /// UTC, to the second, as ISO 8601 has it: `2026-05-04T12:00:00Z`.
    var timestamp: String { ISO8601Format() }
}
