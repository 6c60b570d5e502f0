import Core
import HeapModule
import Protocol

/// A cluster without machines around the values that hold something for each shard, the scheduler and the counters of a job: what
/// a coordinator decides and counts, without messages, disks and plans.
///
/// Shards take 10 to 60 simulated seconds, workers send heartbeats every 5 s, and every result is committed at once.
package struct CoordinatorLoad {
    private struct Finish: Comparable {
        let at: Duration
        let worker: Scheduler.WorkerID
        let attempt: Attempt

        static func < (left: Finish, right: Finish) -> Bool { (left.at, left.attempt) < (right.at, right.attempt) }
    }

    private static let slots = 8
    private static let tick = Duration.milliseconds(250)

    private let job = JobID(high: 1, low: 1)
    private var scheduler = Scheduler()
    private var progress = JobProgress()
    private var running: [Scheduler.WorkerID: Set<Attempt>] = [:]
    private var finishes: Heap<Finish> = []
    private var hasEnded = false
    /// What happened to shards: leases, entries of heartbeats, results and commits.
    package private(set) var shardEvents = 0

    /// Adds the workers and a job of `shards` shards.
    package init(workers: Int, shards: Int) {
        let costs = (0..<shards).map { ShardCost(label: "layers.\($0)", cost: 10_000_000 + Self.scattered($0) * 50) }
        let summary = PlanSummary(
            method: "linear", digest: .none, bytesInput: 0, bytesOutput: 0,
            shards: costs.map { ShardSummary(label: $0.label, byteCount: 1) })
        progress.apply(.planned(job, summary))
        obey(scheduler.handle(.jobAdded(job, stages: [costs]), at: .zero), at: .zero)
        for worker in 1...max(1, workers) {
            running[worker] = []
            obey(scheduler.handle(.workerJoined(worker, host: "host \(worker)", slots: Self.slots), at: .zero), at: .zero)
        }
    }

    /// 0 to 999,999, in no order.
    private static func scattered(_ number: Int) -> Int { number &* 7_919 % 1_000_000 }

    /// Runs the job to its end.
    package mutating func run() {
        var now = Duration.zero, beat = 0
        let workers = running.count
        while !hasEnded {
            now += Self.tick
            while let next = finishes.min, next.at <= now {
                finishes.removeMin()
                finish(next)
            }
            // A twentieth of the workers at each tick: each of them every 5 s.
            for worker in stride(from: beat % 20, to: workers, by: 20) { heartbeat(worker + 1, at: now) }
            beat += 1
            obey(scheduler.handle(.tick, at: now), at: now)
        }
    }

    private mutating func finish(_ finish: Finish) {
        let attempt = finish.attempt
        guard running[finish.worker]?.remove(attempt) != nil else { return }
        shardEvents += 2
        obey(scheduler.handle(.shardFinished(finish.worker, attempt), at: finish.at), at: finish.at)
        progress.apply(.committed(attempt, WorkerReference(id: finish.worker, name: "w", address: "h"), byteCount: 1, .direct))
        obey(scheduler.handle(.shardCommitted(attempt), at: finish.at), at: finish.at)
    }

    private mutating func heartbeat(_ worker: Scheduler.WorkerID, at now: Duration) {
        let entries = (running[worker] ?? []).map { LeaseProgress(attempt: $0, bytesDone: 0) }
        shardEvents += entries.count
        for entry in entries { progress.apply(.progressed(entry.attempt, bytesDone: entry.bytesDone)) }
        obey(scheduler.handle(.heartbeat(worker, entries), at: now), at: now)
    }

    private mutating func obey(_ actions: [Scheduler.Action], at now: Duration) {
        for action in actions {
            switch action {
            case .lease(let worker, let attempt, _):
                shardEvents += 1
                progress.apply(.leased(attempt, WorkerReference(id: worker, name: "w", address: "h")))
                running[worker]?.insert(attempt)
                let seconds = 10 + Double(Self.scattered(attempt.shard)) / 20_000
                finishes.insert(Finish(at: now + .seconds(seconds), worker: worker, attempt: attempt))
            case .revoke(let worker, let attempt, let reason):
                progress.apply(.revoked(attempt, WorkerReference(id: worker, name: "w", address: "h"), reason: reason))
                running[worker]?.remove(attempt)
            case .jobFinished, .jobFailed: hasEnded = true
            case .commit, .stale, .giveUp, .jobContinues: break
            }
        }
    }
}
