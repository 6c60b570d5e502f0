import Protocol

/// What a coordinator does, in a line for people.
package struct ClusterSummary: Sendable, Hashable, CustomStringConvertible {
    package var workers: Int
    /// Jobs that have not ended, and how many of these are paused.
    package var jobs: Int
    package var paused: Int
    /// Shards of these jobs that are planned, and how many of them are committed.
    package var shards: Int
    package var committed: Int
    /// Whether more jobs are taken.
    package var takesJobs: Bool

    package var description: String {
        var text = "\(jobs) \(jobs == 1 ? "job" : "jobs")"
        if jobs > 0 { text += ", \(committed) of \(shards) shards committed" }
        if paused > 0 { text += ", \(paused) paused" }
        text += ", \(workers) \(workers == 1 ? "worker" : "workers")"
        return takesJobs ? text : "takes no more jobs; \(text)"
    }
}

extension ClusterState {
    func summary(takesJobs: Bool) -> ClusterSummary {
        var summary = ClusterSummary(
            workers: workers.members.count, jobs: jobs.active.count, paused: paused.count, shards: 0, committed: 0,
            takesJobs: takesJobs)
        for id in jobs.active {
            guard let shards = jobs[id]?.progress.shards else { continue }
            summary.shards += shards.total
            summary.committed += shards.committed
        }
        return summary
    }
}
