public import ArgumentParser
import Core
import FoundationEssentials
public import Logging

/// How lines of a log are written.
enum LogFormat: String, CaseIterable, ExpressibleByArgument, Sendable {
    /// For people: `TIME LEVEL MESSAGE key=value`.
    case text
    /// For programs: an object a line.
    case json
}

/// Writes each event as one line with what it is about: job, shard, worker, host.
///
/// A peer's name or a path cannot forge lines: control characters are escaped.
struct LineLogHandler: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    private let format: LogFormat
    private let now: @Sendable () -> Date
    private let write: @Sendable (String) -> Void

    init(
        _ format: LogFormat, now: @escaping @Sendable () -> Date = { Date() }, write: @escaping @Sendable (String) -> Void
    ) {
        self.format = format
        self.now = now
        self.write = write
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }
        let time = now().ISO8601Format(.init(includingFractionalSeconds: true))
        switch format {
        case .json:
            // What the event says of itself wins over metadata of the same name.
            let own = ["time": time, "level": event.level.rawValue, "message": event.message.description].mapValues(Field.init)
            write(JSONLine(fields.mapValues(Field.init).merging(own) { $1 }).text)
        case .text:
            let level = event.level.rawValue.uppercased()
            let padding = String(repeating: " ", count: max(1, 8 - level.count))
            let words = fields.sorted { Self.order($0.key) < Self.order($1.key) }.map {
                "  \($0.key)=\(Self.quoted("\($0.value)"))"
            }
            write("\(time) \(level)\(padding)\(event.message.description.printable)\(words.joined())")
        }
    }

    /// A value of metadata in JSON: a number where it is one, else a text.
    private struct Field: Encodable {
        let value: any Encodable

        init(_ text: String) { value = text }

        init(_ metadata: Logger.MetadataValue) {
            value =
                switch metadata {
                case .stringConvertible(let number as any FixedWidthInteger & Encodable): number
                // JSON has no other numbers.
                case .stringConvertible(let number as Double) where number.isFinite: number
                default: "\(metadata)"
                }
        }

        func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }
    }

    /// What people look for first comes first.
    private static func order(_ key: String) -> String {
        let first = ["job", "shard", "label", "worker", "address"]
        return first.firstIndex(of: key).map { "0\($0)" } ?? (key == "host" ? "2" : "1\(key)")
    }

    private static func quoted(_ text: String) -> String {
        let text = text.printable
        let isPlain = !text.isEmpty && !text.contains { $0 == " " || $0 == "\"" || $0 == "=" }
        return isPlain ? text : "\"\(text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\""
    }
}

/// What a process logs, and how.
struct LogArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp("What to log: \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "level"))
    var logLevel = Logger.Level.info

    @Option(help: ArgumentHelp("How to log to stderr: text, or json with an object a line.", valueName: "format"))
    var logFormat = LogFormat.text

    /// - Parameter metadata: what all lines say.
    func logger(_ label: String, _ metadata: Logger.Metadata = [:]) -> Logger {
        let format = logFormat
        var log = Logger(label: label, factory: { _ in LineLogHandler(format, write: Terminal.note) })
        log.logLevel = logLevel
        for (key, value) in metadata { log[metadataKey: key] = value }
        log[metadataKey: "host"] = "\(ProcessInfo.processInfo.hostName)"
        return log
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// Discards everything, for commands that show progress instead of a log.
package let quietLog = Logger(label: "tessera", factory: { _ in SwiftLogNoOpLogHandler() })
