import Core
import Protocol

/// Progress for a file or a log: dated lines, at intervals that stay useful over seconds and over days.
struct PlainProgress {
    private var pace = JobPace()
    private var last: (job: JobStatus, moment: Double)?
    /// Which job it is, where there are several.
    private let label: String?

    init(label: String? = nil) { self.label = label }

    /// Seconds between lines, and the least between two of them that say something new.
    private static let interval = 10.0, idleInterval = 60.0, leastInterval = 2.0

    /// What to say now: the first time, at each change of state, after every tenth of the job, every ten seconds while the job
    /// gets on, every minute otherwise, and at the end.
    ///
    /// - Parameters:
    ///   - moment: seconds on any clock.
    ///   - date: the same moment, for people.
    mutating func line(_ job: JobStatus, at moment: Double, date: String) -> String? {
        pace.note(job)
        guard isDue(job, at: moment) else { return nil }
        last = (job, moment)
        let padding = String(repeating: " ", count: job.percent < 10 ? 2 : job.percent < 100 ? 1 : 0)
        return [date, label, "\(padding)\(text(job))"].compactMap(\.self).joined(separator: "  ").printable
    }

    private func isDue(_ job: JobStatus, at moment: Double) -> Bool {
        guard let last else { return true }
        if job.state != last.job.state || (job.blockedReason == nil) != (last.job.blockedReason == nil) { return true }
        let waited = moment - last.moment
        if waited >= Self.leastInterval, job.percent / 10 > last.job.percent / 10 { return true }
        return waited >= (job.percent > last.job.percent ? Self.interval : Self.idleInterval)
    }

    private func text(_ job: JobStatus) -> String {
        var parts = [
            "\(job.percent) %", "\(Quantity.bytes(job.bytesDone)) of \(Quantity.bytes(job.bytesTotal))",
            "\(job.shards.committed) of \(job.shards.total) shards",
        ]
        if job.repeated > 0 { parts.append("\(job.repeated) repeated") }
        switch job.state {
        case .running:
            if let rate = pace.bytesPerSecond(of: job) { parts.append("\(Quantity.bytes(Int(min(rate, 1e18))))/s") }
            if let left = pace.secondsLeft(of: job) { parts.append("\(Quantity.wholeSeconds(left)) left") }
            if let reason = job.blockedReason { parts.append(reason) }
        case .publishing: parts.append("writing to disk")
        case .paused: parts.append("paused")
        case .done, .failed, .cancelled: parts.append("\(job.state.rawValue) after \(Quantity.seconds(job.seconds))")
        }
        // Of a job alone, the command itself says why.
        if label != nil, let error = job.error { parts.append("\(error)") }
        return parts.joined(separator: "  ")
    }
}
