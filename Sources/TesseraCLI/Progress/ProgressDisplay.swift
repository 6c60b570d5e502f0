import ArgumentParser
import Core
import FoundationEssentials
import Glibc
import Protocol

package enum ProgressStyle: String, ExpressibleByArgument, CaseIterable, Sendable {
    /// `bar` on a terminal, otherwise `plain`.
    case auto
    /// A view that changes in place.
    case bar
    /// Dated lines at intervals.
    case plain
    /// A JSON object for each change; notes and errors are objects too.
    case json
    case none

    /// From now on, stderr has JSON alone if the arguments ask for that, mistakes in these arguments included. To be called
    /// before anything is said.
    package static func begin(_ arguments: [String]) {
        let words = arguments.prefix { $0 != "--" }
        let asksForJSON =
            zip(words, words.dropFirst()).contains { $0 == "--progress" && $1 == json.rawValue }
            || words.contains("--progress=\(json.rawValue)")
        if asksForJSON { Terminal.speakJSON() }
    }

    static let help = ArgumentHelp(
        "How to show progress: \(allCases.map(\.rawValue).joined(separator: ", ")). On a terminal, auto is bar; otherwise plain.",
        valueName: "style")
}

/// Shows a job's progress on stderr.
struct ProgressDisplay {
    private enum Form {
        case none
        case view(JobView)
        case plain(PlainProgress)
        case events(ProgressEvents)
    }

    /// Between looks at a job.
    static let interval = Duration.milliseconds(200)

    private var form: Form
    private let time = TimeSource.system

    init(_ style: ProgressStyle) {
        switch style {
        case .auto: form = Terminal.isInteractive ? .view(JobView()) : .plain(PlainProgress())
        case .bar: form = .view(JobView())
        case .plain: form = .plain(PlainProgress())
        case .json: form = .events(ProgressEvents())
        case .none: form = .none
        }
    }

    /// - Parameter status: one job with the shards that run, and the workers.
    mutating func show(_ status: Status) {
        guard let job = status.jobs.first else { return }
        let moment = time.now() / .seconds(1), date = Date().timestamp
        switch form {
        case .none: break
        case .view(var view):
            let size = Terminal.size(STDERR_FILENO)
            Terminal.showLive(view.lines(status, width: size.width, height: size.height))
            form = .view(view)
        case .plain(var progress):
            if let line = progress.line(job, at: moment, date: date) { Terminal.note(line) }
            form = .plain(progress)
        case .events(var events):
            if let event = events.event(status, at: moment, date: date) { Terminal.note(JSONLine(event).text) }
            form = .events(events)
        }
    }

    /// Clears the view.
    func finish() { if case .view = form { Terminal.showLive([]) } }
}
