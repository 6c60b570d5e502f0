import Core
import Journal
import Protocol

/// One attempt at a shard: who made it, and when.
struct ShardRun: Sendable, Hashable {
    enum Outcome: UInt8, Sendable {
        case running, committed, failed
        /// Taken back from no fault of the attempt.
        case revoked
        /// Its worker vanished.
        case lost
    }

    /// Index into `JobProgress.names`.
    let worker: UInt32
    /// Milliseconds from the job's beginning; `nil` where an earlier coordinator has not kept it.
    let begun: UInt32?
    /// Milliseconds until the result came; `nil` before. An attempt whose result is not durable yet counts as running.
    let lasted: UInt32?
    let outcome: Outcome
}

/// A shard as the event stream tells of it.
struct ShardTrace: Sendable, Hashable {
    let index: Int
    let state: ShardStatus.State
    let attempts: Int
    let bytesDone: Int
    /// The last attempts that brought nothing, then the one that counts or those that are not over.
    let runs: [ShardRun]
}

/// How far a job has come, counted from its events as they happen: what a status message says is there at once, however many
/// shards.
struct JobProgress: Sendable {
    private struct Running {
        let epoch: UInt64
        /// Index into `names`.
        let worker: UInt32
        let begun: UInt32
        /// When the result came; `nil` before.
        var reported: UInt32?
        var bytesDone = 0
    }

    private struct Failure {
        let failure: ShardFailure
        let run: ShardRun
    }

    /// A shard's row in a status message, in as little memory as it takes.
    private struct Row {
        let shard: ShardSummary
        var attempts: UInt32 = 0
        /// The attempt whose result the shard has.
        var committed: ShardRun?
    }

    private var rows: [Row] = []
    /// Of all workers that runs name.
    private(set) var names: [String] = []
    private var indices: [String: UInt32] = [:]
    /// The attempts at each shard that are not over.
    private var running: [Int: [Running]] = [:]
    /// The last failed attempts at each shard.
    private var failures: [Int: [Failure]] = [:]
    private var failureCount = 0
    /// The last attempts at each shard that are over and neither committed nor failed.
    private var revoked: [Int: [ShardRun]] = [:]
    private var revokedCount = 0
    /// The shard whose attempt failed last.
    private var lastFailed: Int?
    private var bytesRunning = 0
    private var bytesCommitted = 0
    private var committed = 0
    private var total = 0
    private(set) var bytesTotal = 0
    private(set) var attempts = 0
    private var throughput = Throughput()
    private var waiting = WaitingTime()
    /// Whether an earlier coordinator did some of the shards.
    private(set) var isResumed = false
    /// What runs count their time from.
    private let startedAt: Duration

    init(startedAt: Duration = .zero) { self.startedAt = startedAt }

    /// Failures that are kept of one shard, and of all together.
    private static let failuresOfShard = 8, failureLimit = 1000
    /// The same for attempts that were taken back or lost.
    private static let revokedOfShard = 4, revokedLimit = 4000

    /// Shards that are being committed count as leased.
    var shards: JobStatus.Shards {
        JobStatus.Shards(total: total, pending: total - running.count - committed, leased: running.count, committed: committed)
    }

    /// Bytes of committed shards, and of the furthest attempt at each other.
    var bytesDone: Int { bytesCommitted + bytesRunning }

    /// Rows that are kept: one for each shard, or none.
    var rowCount: Int { rows.count }

    func bytesPerSecond(at now: Duration) -> Double? { throughput.bytesPerSecond(at: now) }

    /// How long shards were there to do and no worker had one of them.
    func secondsWaited(at now: Duration) -> Double { waiting.total(at: now).seconds }

    mutating func apply(_ event: JobEvent, at now: Duration = .zero) {
        let before = bytesDone
        count(event, at: now)
        let isIdle = running.isEmpty
        if case .ended = event { waiting.end(at: now) } else { waiting.note(isIdle && committed < total, at: now) }
        if case .kept = event {
            isResumed = true
            return
        }
        if bytesDone > before { throughput.add(bytesDone - before, at: now) }
        if isIdle { throughput.pause(at: now) } else { throughput.begin(at: now) }
    }

    private mutating func count(_ event: JobEvent, at now: Duration) {
        switch event {
        case .planned(_, let plan): add(plan.shards)
        case .repeated(_, let shards): add(shards)
        case .kept(_, let kept):
            for entry in kept where rows.indices.contains(entry.shard) {
                attempts += 1
                rows[entry.shard].attempts += 1
                commit(
                    entry.shard,
                    ShardRun(
                        worker: index(of: entry.worker), begun: entry.time.map { UInt32(clamping: $0.begun) },
                        lasted: entry.time.map { UInt32(clamping: $0.lasted) }, outcome: .committed))
            }
        case .leased(let attempt, let worker):
            attempts += 1
            rows[attempt.shard].attempts += 1
            running[attempt.shard, default: []].append(
                Running(epoch: attempt.epoch, worker: index(of: worker.name), begun: milliseconds(startedAt, now)))
        case .progressed(let attempt, let bytes): progressed(attempt, min(max(0, bytes), rows[attempt.shard].shard.byteCount))
        case .reported(let attempt, _):
            guard let index = running[attempt.shard]?.firstIndex(where: { $0.epoch == attempt.epoch }) else { return }
            let moment = milliseconds(startedAt, now)
            running[attempt.shard]?[index].reported = moment
        case .committed(let attempt, let worker, _, _):
            let run = run(of: attempt, by: worker, outcome: .committed, at: now)
            remove(attempt.shard) { _ in true }
            commit(attempt.shard, run)
        case .failed(let attempt, let worker, let error):
            let run = run(of: attempt, by: worker, outcome: .failed, at: now)
            remove(attempt.shard) { $0.epoch == attempt.epoch }
            let failure = ShardFailure(worker: worker.name, address: worker.address, error: error)
            note(Failure(failure: failure, run: run), of: attempt.shard)
        case .revoked(let attempt, let worker, _, let isLost):
            note(run(of: attempt, by: worker, outcome: isLost ? .lost : .revoked, at: now), of: attempt.shard)
            remove(attempt.shard) { $0.epoch == attempt.epoch }
        case .ended:
            running = [:]
            bytesRunning = 0
        case .added, .stale, .paused, .resumed, .unaudited, .putAside, .copyDiffers, .workerJoined, .workerLeft: break
        }
    }

    /// What is known of an attempt that is over. Its time ends when its result came: waiting for the journal is no work, and the
    /// worker's thread has begun another shard by then.
    private mutating func run(
        of attempt: Attempt, by worker: WorkerReference, outcome: ShardRun.Outcome, at now: Duration
    ) -> ShardRun {
        let running = running[attempt.shard]?.first { $0.epoch == attempt.epoch }
        let end = running?.reported ?? milliseconds(startedAt, now)
        return ShardRun(
            worker: index(of: worker.name), begun: running?.begun, lasted: running.map { max($0.begun, end) - $0.begun },
            outcome: outcome)
    }

    /// When the attempt, which has just ended, ran.
    func time(of attempt: Attempt, at now: Duration) -> AttemptTime? {
        guard let begun = running[attempt.shard]?.first(where: { $0.epoch == attempt.epoch })?.begun else { return nil }
        return AttemptTime(begun: Int(begun), lasted: Int(max(begun, milliseconds(startedAt, now)) - begun))
    }

    /// Saturates after 49 days.
    private func milliseconds(_ start: Duration, _ end: Duration) -> UInt32 {
        UInt32(clamping: Int((end - start) / .milliseconds(1)))
    }

    private mutating func note(_ failure: Failure, of shard: Int) {
        lastFailed = shard
        guard failureCount < Self.failureLimit else { return }
        var known = failures[shard] ?? []
        if known.count == Self.failuresOfShard { known.removeFirst() } else { failureCount += 1 }
        failures[shard] = known + [failure]
    }

    private mutating func note(_ run: ShardRun, of shard: Int) {
        guard run.begun != nil, revokedCount < Self.revokedLimit else { return }
        var known = revoked[shard] ?? []
        if known.count == Self.revokedOfShard { known.removeFirst() } else { revokedCount += 1 }
        revoked[shard] = known + [run]
    }

    /// Which workers failed the shard that failed last, for people; `nil` where it was one. Where all blame the same, none is
    /// named.
    var whoFailed: String? {
        guard let last = lastFailed, let known = failures[last]?.map(\.failure), known.count > 1 else { return nil }
        let latest = Dictionary(known.map { ("\($0.worker) \($0.address)", $0) }) { $1 }.values
        if FailureCause.common(latest.map { FailureCause($0.error) }, places: Set(latest.map(\.address)).count) != nil {
            return latest.count > 1 ? "all \(latest.count) workers that tried it say so" : nil
        }
        var names: [String] = []
        for failure in known {
            let name = "\(failure.worker) (\(failure.address))"
            if !names.contains(name) { names.append(name) }
        }
        return "\(rows.indices.contains(last) ? rows[last].shard.label : "a shard") failed on \(names.joined(separator: ", "))"
    }

    private mutating func add(_ shards: [ShardSummary]) {
        rows += shards.map { Row(shard: $0) }
        total += shards.count
        bytesTotal += shards.reduce(0) { $0 + $1.byteCount }
    }

    private mutating func commit(_ shard: Int, _ run: ShardRun) {
        committed += 1
        bytesCommitted += rows[shard].shard.byteCount
        rows[shard].committed = run
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
        let row = rows[index], failures = failures[index]?.map(\.failure) ?? [], current = currentRuns(of: index)
        let names = current.map { self.names[Int($0.worker)] }, last = current.first
        var status = ShardStatus(
            index: index, label: row.shard.label, state: state(of: index),
            workers: names.isEmpty ? failures.map(\.worker) : names, attempts: Int(row.attempts),
            bytesDone: row.committed != nil ? row.shard.byteCount : bytesDone(of: index), bytesTotal: row.shard.byteCount,
            failures: failures.isEmpty ? nil : failures)
        status.tensors = row.shard.tensorCount
        status.begunAfter = last?.begun.map { Double($0) / 1000 }
        status.seconds = last?.lasted.map { Double($0) / 1000 }
        return status
    }

    /// The first of the shards that are worked on, from `first` on.
    func runningShards(from first: Int, limit: Int) -> [Int] { Array(running.keys.filter { $0 >= first }.sorted().prefix(limit)) }

    private func state(of shard: Int) -> ShardStatus.State {
        rows[shard].committed != nil ? .committed : running[shard] == nil ? .pending : .leased
    }

    /// The attempt that counts, or those that are not over.
    private func currentRuns(of shard: Int) -> [ShardRun] {
        if let run = rows[shard].committed { return [run] }
        return (running[shard] ?? []).map { run in
            let lasted = run.reported.map { max(run.begun, $0) - run.begun }
            return ShardRun(worker: run.worker, begun: run.begun, lasted: lasted, outcome: .running)
        }
    }

    /// The shard as the event stream tells of it, with the last of its attempts; `nil` when rows are not kept any more.
    func trace(_ index: Int) -> ShardTrace? {
        guard rows.indices.contains(index) else { return nil }
        let row = rows[index]
        return ShardTrace(
            index: index, state: state(of: index), attempts: Int(row.attempts),
            bytesDone: row.committed != nil ? row.shard.byteCount : bytesDone(of: index),
            runs: pastRuns(of: index) + currentRuns(of: index))
    }

    /// The last attempts that brought nothing, in the order in which they began.
    private func pastRuns(of shard: Int) -> [ShardRun] {
        ((failures[shard] ?? []).map(\.run) + (revoked[shard] ?? [])).sorted { $0.begun ?? 0 < $1.begun ?? 0 }
    }

    func shard(_ index: Int) -> ShardSummary? { rows.indices.contains(index) ? rows[index].shard : nil }

    /// Lets the rows go and keeps the sums. To be called once the job has ended.
    mutating func dropRows() {
        rows = []
        failures = [:]
        revoked = [:]
        names = []
        indices = [:]
    }
}
