import Core
import Protocol

/// What happens in a cluster, for a file or a pipe: dated lines about the jobs that are worked on, as `PlainProgress` has them,
/// and about workers that come and go.
struct StatusLog {
    private var jobs: [JobID: PlainProgress] = [:]
    private var ended: Set<JobID> = []
    private var workers: [String: String]?

    /// - Parameters:
    ///   - moment: seconds on any clock.
    ///   - date: the same moment, for people.
    mutating func lines(_ status: Status, at moment: Double, date: String) -> [String] {
        let isFirst = workers == nil
        var lines = workerLines(status, date: date)
        // Of those that ended long ago their number is enough, unless the user asked for one of them.
        let old = isFirst && status.jobs.count > 1 ? status.jobs.filter(\.state.isEnd) : []
        if !old.isEmpty { lines.append("\(date)  \(old.count) \(old.count == 1 ? "job has" : "jobs have") ended") }
        ended.formUnion(old.map(\.id))
        for job in status.jobs where !ended.contains(job.id) {
            let name = job.name.map { " \($0)" } ?? ""
            var progress = jobs[job.id] ?? PlainProgress(label: "job \(job.id.description.prefix(8))\(name)")
            if let line = progress.line(job, at: moment, date: date) { lines.append(line) }
            jobs[job.id] = job.state.isEnd ? nil : progress
            if job.state.isEnd { ended.insert(job.id) }
        }
        return lines
    }

    private mutating func workerLines(_ status: Status, date: String) -> [String] {
        let now = Dictionary(status.workers.map { ($0.name, $0.state.rawValue) }) { first, _ in first }
        defer { workers = now }
        guard let before = workers else {
            return ["\(date)  \(now.count == 1 ? "1 worker is" : "\(now.count) workers are") connected"]
        }
        let lost = Dictionary((status.lostWorkers ?? []).map { ($0.name, $0.reason) }) { first, _ in first }
        let came = now.filter { before[$0.key] != $0.value }.map { "\(date)  worker \($0.key)  \($0.value)" }
        let left = before.keys.filter { now[$0] == nil }.map { name in
            "\(date)  worker \(name)  \(lost[name].map { "lost: \($0)" } ?? "left")"
        }
        return (came + left).map(\.printable).sorted { $0.precedesNaturally($1) }
    }
}
