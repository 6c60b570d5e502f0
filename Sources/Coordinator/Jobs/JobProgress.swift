import Core
import Protocol

/// How far a job has come, counted from its events as they happen: what a status message says is there at once, however many
/// shards.
struct JobProgress: Sendable {
    private struct Running {
        let epoch: UInt64
        let worker: String
        var bytesDone = 0
    }

    /// A shard's row in a status message, in as little memory as it takes.
    private struct Row {
        let shard: ShardSummary
        var attempts: UInt32 = 0
        /// Index into `names` of the worker whose result the shard has.
        var committer: UInt32?
    }

    private var rows: [Row] = []
    private var names: [String] = []
    private var indices: [String: UInt32] = [:]
    /// The attempts at each shard that are not over.
    private var running: [Int: [Running]] = [:]
    /// The last failed attempts at each shard.
    private var failures: [Int: [ShardFailure]] = [:]
    private var failureCount = 0
    /// The shard whose attempt failed last.
    private var lastFailed: Int?
    private var bytesRunning = 0
    private var bytesCommitted = 0
    private var committed = 0
    private var total = 0
    private(set) var bytesTotal = 0
    private(set) var attempts = 0

    /// Failures that are kept of one shard, and of all together.
    private static let failuresOfShard = 8, failureLimit = 1000

    /// Shards that are being committed count as leased.
    var shards: JobStatus.Shards {
        JobStatus.Shards(total: total, pending: total - running.count - committed, leased: running.count, committed: committed)
    }

    /// Bytes of committed shards, and of the furthest attempt at each other.
    var bytesDone: Int { bytesCommitted + bytesRunning }

    /// Rows that are kept: one for each shard, or none.
    var rowCount: Int { rows.count }

    mutating func apply(_ event: JobEvent) {
        switch event {
        case .planned(_, let plan):
            rows += plan.shards.map { Row(shard: $0) }
            total += plan.shards.count
            bytesTotal += plan.shards.reduce(0) { $0 + $1.byteCount }
        case .kept(_, let kept):
            for entry in kept where rows.indices.contains(entry.shard) {
                attempts += 1
                rows[entry.shard].attempts += 1
                commit(entry.shard, by: entry.worker)
            }
        case .leased(let attempt, let worker):
            attempts += 1
            rows[attempt.shard].attempts += 1
            running[attempt.shard, default: []].append(Running(epoch: attempt.epoch, worker: worker.name))
        case .progressed(let attempt, let bytes): progressed(attempt, min(max(0, bytes), rows[attempt.shard].shard.byteCount))
        case .committed(let attempt, let worker, _, _):
            remove(attempt.shard) { _ in true }
            commit(attempt.shard, by: worker.name)
        case .failed(let attempt, let worker, let error):
            remove(attempt.shard) { $0.epoch == attempt.epoch }
            note(ShardFailure(worker: worker.name, address: worker.address, error: error), of: attempt.shard)
        case .revoked(let attempt, _, _): remove(attempt.shard) { $0.epoch == attempt.epoch }
        case .ended:
            running = [:]
            bytesRunning = 0
        case .added, .stale, .paused, .resumed, .putAside, .copyDiffers, .workerJoined, .workerLeft: break
        }
    }

    private mutating func note(_ failure: ShardFailure, of shard: Int) {
        lastFailed = shard
        guard failureCount < Self.failureLimit else { return }
        var known = failures[shard] ?? []
        if known.count == Self.failuresOfShard { known.removeFirst() } else { failureCount += 1 }
        failures[shard] = known + [failure]
    }

    /// Which workers failed the shard that failed last, for people; `nil` where it was one.
    var whoFailed: String? {
        guard let last = lastFailed, let known = failures[last], known.count > 1 else { return nil }
        var names: [String] = []
        for failure in known {
            let name = "\(failure.worker) (\(failure.address))"
            if !names.contains(name) { names.append(name) }
        }
        return "\(rows.indices.contains(last) ? rows[last].shard.label : "a shard") failed on \(names.joined(separator: ", "))"
    }

    private mutating func commit(_ shard: Int, by worker: String) {
        committed += 1
        bytesCommitted += rows[shard].shard.byteCount
        rows[shard].committer = index(of: worker)
    }

    private mutating func progressed(_ attempt: Attempt, _ bytes: Int) {
        guard let index = running[attempt.shard]?.firstIndex(where: { $0.epoch == attempt.epoch }) else { return }
        bytesRunning -= bytesDone(of: attempt.shard)
        running[attempt.shard]?[index].bytesDone = bytes
        bytesRunning += bytesDone(of: attempt.shard)
    }

    private mutating func remove(_ shard: Int, where isOver: (Running) -> Bool) {
        bytesRunning -= bytesDone(of: shard)
        running[shard]?.removeAll(where: isOver)
        if running[shard]?.isEmpty == true { running[shard] = nil }
        bytesRunning += bytesDone(of: shard)
    }

    private func bytesDone(of shard: Int) -> Int { running[shard]?.map(\.bytesDone).max() ?? 0 }

    private mutating func index(of name: String) -> UInt32 {
        if let index = indices[name] { return index }
        let index = UInt32(names.count)
        names.append(name)
        indices[name] = index
        return index
    }

    /// The shard's row, or `nil` when rows are not kept any more.
    func row(_ index: Int) -> ShardStatus? {
        guard rows.indices.contains(index) else { return nil }
        let row = rows[index], attempts = running[index] ?? [], failures = failures[index] ?? []
        let current = row.committer.map { [names[Int($0)]] } ?? attempts.map(\.worker)
        return ShardStatus(
            index: index, label: row.shard.label,
            state: row.committer != nil ? .committed : attempts.isEmpty ? .pending : .leased,
            workers: current.isEmpty ? failures.map(\.worker) : current, attempts: Int(row.attempts),
            bytesDone: row.committer != nil ? row.shard.byteCount : bytesDone(of: index), bytesTotal: row.shard.byteCount,
            failures: failures.isEmpty ? nil : failures)
    }

    /// Lets the rows go and keeps the sums. To be called once the job has ended.
    mutating func dropRows() {
        rows = []
        failures = [:]
        names = []
        indices = [:]
    }
}
