import ArgumentParser
import Core
import FoundationEssentials
import Protocol

enum ProgressStyle: String, ExpressibleByArgument, CaseIterable, Sendable {
    /// A bar on a terminal, otherwise nothing.
    case auto
    case bar
    /// A line every few seconds.
    case plain
    /// A JSON line for each change.
    case json
    case none
}

/// Shows a job's progress on stderr.
struct ProgressDisplay {
    private let style: ProgressStyle
    private var lastLine = ""
    private var nextPlain = 0.0
    private static let plainInterval = 5.0

    init(_ style: ProgressStyle) { self.style = style == .auto ? (Terminal.isInteractive ? .bar : .none) : style }

    var isSilent: Bool { style == .none }

    mutating func show(_ job: JobStatus) {
        switch style {
        case .auto, .none: break
        case .bar: replaceLine(with: bar(job))
        case .plain:
            guard job.seconds >= nextPlain else { return }
            nextPlain = job.seconds + Self.plainInterval
            Terminal.note(summary(job))
        case .json:
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            guard let line = try? encoder.encode(job) else { return }
            let text = String(decoding: line, as: UTF8.self)
            if text != lastLine { Terminal.note(text) }
            lastLine = text
        }
    }

    /// Clears the progress line.
    mutating func finish() {
        if style == .bar { replaceLine(with: "") }
    }

    private mutating func replaceLine(with line: String) {
        guard line != lastLine else { return }
        lastLine = line
        Terminal.note("\r\u{1b}[K\(line)", terminator: "")
    }

    private func bar(_ job: JobStatus) -> String {
        let text = summary(job)
        let width = min(30, Terminal.width - text.count - 4)
        guard width >= 10 else { return String(text.prefix(Terminal.width - 1)) }
        let share = job.bytesTotal > 0 ? Double(job.bytesDone) / Double(job.bytesTotal) : 1
        let full = Int(share * Double(width))
        return Terminal.styled(String(repeating: "━", count: full), .cyan)
            + Terminal.styled(String(repeating: "─", count: width - full), .dim) + "  " + text
    }

    /// Bytes, rate, shards and time left.
    private func summary(_ job: JobStatus) -> String {
        let share = job.bytesTotal > 0 ? Double(job.bytesDone) / Double(job.bytesTotal) : 1
        var parts = [
            "\(Int(share * 100)) %", "\(Quantity.bytes(job.bytesDone)) of \(Quantity.bytes(job.bytesTotal))",
            Quantity.rate(job.bytesDone, job.seconds), "\(job.shards.committed)/\(job.shards.total) shards",
        ]
        if job.attempts > job.shards.committed + job.shards.leased {
            parts.append("\(job.attempts - job.shards.committed - job.shards.leased) repeated")
        }
        if job.state == .paused {
            parts.append("paused")
        } else if job.state == .publishing {
            parts.append("writing to disk")
        } else if let blockedReason = job.blockedReason {
            parts.append(blockedReason)
        } else if share > 0, share < 1 {
            parts.append("\(Quantity.seconds(job.seconds * (1 - share) / share)) left")
        }
        return parts.joined(separator: "  ")
    }
}
