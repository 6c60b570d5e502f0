import Core
import Protocol

/// What has happened since the coordinator started, counted from events. Bounded: no count is kept for a job or a worker.
struct ClusterCounters: Sendable {
    private(set) var jobsAdded = 0
    private(set) var jobsEnded: [JobState: Int] = [:]
    private(set) var pauses = 0
    private(set) var leases = 0
    /// Leases of shards that had one before.
    private(set) var retries = 0
    private(set) var committed: [Delivery: Int] = [:]
    /// Bytes of the output.
    private(set) var bytesCommitted: [Delivery: Int] = [:]
    private(set) var failures: [TesseraError.Code: Int] = [:]
    private(set) var revoked = 0
    private(set) var stale = 0
    private(set) var workersJoined = 0
    private(set) var workersLeft = 0
    /// From lease to commit.
    private(set) var shardSeconds = Histogram(bounds: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500])
    /// When the attempts that are not over began.
    private var begun: [Attempt: Duration] = [:]

    mutating func apply(_ event: JobEvent, at now: Duration) {
        switch event {
        case .added: jobsAdded += 1
        case .paused: pauses += 1
        case .leased(let attempt, _):
            leases += 1
            if attempt.epoch > 1 { retries += 1 }
            begun[attempt] = now
        case .committed(let attempt, _, let byteCount, let delivery):
            committed[delivery, default: 0] += 1
            bytesCommitted[delivery, default: 0] += byteCount
            if let start = begun.removeValue(forKey: attempt) { shardSeconds.observe((now - start).seconds) }
        case .failed(let attempt, _, let error):
            failures[error.code, default: 0] += 1
            begun[attempt] = nil
        case .revoked(let attempt, _, _, _):
            revoked += 1
            begun[attempt] = nil
        case .stale: stale += 1
        case .ended(let id, let state, _):
            jobsEnded[state, default: 0] += 1
            // Results that were being committed count for nothing.
            begun = begun.filter { $0.key.job != id }
        case .workerJoined: workersJoined += 1
        case .workerLeft: workersLeft += 1
        case .planned, .repeated, .kept, .progressed, .reported, .resumed, .unaudited, .putAside, .copyDiffers: break
        }
    }
}

/// Transactions of the journal that commit results.
struct JournalCounters: Sendable {
    private(set) var failures = 0
    private(set) var seconds = Histogram(bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])

    mutating func note(seconds duration: Double, hasFailed: Bool) {
        seconds.observe(duration)
        if hasFailed { failures += 1 }
    }
}
