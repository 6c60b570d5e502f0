import Checkpoints
import Protocol

/// A lease that is out.
struct SchedulerLease: Sendable {
    let worker: Scheduler.WorkerID
    let epoch: UInt64
    let since: Duration
    var ends: Duration
    /// Output bytes.
    var bytesDone = 0
}

/// One shard of a scheduled job.
struct SchedulerShard: Sendable {
    enum State: Sendable {
        /// To be done; may have leases.
        case open
        /// A result is being made durable.
        case committing(epoch: UInt64)
        case committed
    }

    let label: String
    let cost: Int
    let stage: Int
    var state = State.open
    private(set) var leases: [SchedulerLease] = []
    /// Rises with every lease: an attempt with a lower epoch than the current ones is stale for ever.
    private(set) var nextEpoch: UInt64 = 1
    /// Not to be leased before this moment.
    var notBefore = Duration.zero
    var failures = 0
    var failedHosts: Set<String> = []
    var deaths = 0

    var isPending: Bool {
        if case .open = state { leases.isEmpty } else { false }
    }

    mutating func addLease(to worker: Scheduler.WorkerID, since now: Duration, until end: Duration) -> UInt64 {
        defer { nextEpoch += 1 }
        leases.append(SchedulerLease(worker: worker, epoch: nextEpoch, since: now, ends: end))
        return nextEpoch
    }

    mutating func removeLease(epoch: UInt64) { leases.removeAll { $0.epoch == epoch } }

    mutating func renew(_ progress: LeaseProgress, until end: Duration) {
        guard let index = leases.firstIndex(where: { $0.epoch == progress.attempt.epoch }) else { return }
        leases[index].ends = end
        leases[index].bytesDone = progress.bytesDone
    }
}

/// One job in the schedule.
struct SchedulerJob: Sendable {
    var shards: [SchedulerShard]
    private let stageCount: Int
    private(set) var stage = 0
    var hasEnded = false
    var committedCount = 0
    /// Shards of the stages so far, all of which have to be committed before the next stage opens.
    private var openCount = 0
    /// Seconds per byte of cost of finished shards.
    private var paces: [Double] = []

    init(stages: [[ShardCost]]) {
        stageCount = stages.count
        shards = stages.enumerated().flatMap { stage, costs in
            costs.map { SchedulerShard(label: $0.label, cost: $0.cost, stage: stage) }
        }
        openCount = stages.first?.count ?? 0
    }

    /// Shards of the open stage that wait for a worker, the largest first so that none is left to run alone at the end.
    func pending(at now: Duration) -> [Int] {
        shards.indices.filter { shards[$0].stage == stage && shards[$0].isPending && shards[$0].notBefore <= now }
            .sorted { (shards[$1].cost, $0) < (shards[$0].cost, $1) }
    }

    /// Moves on to the next stage with shards once this one is committed.
    ///
    /// - Returns: whether the job has no stage left.
    mutating func advance() -> Bool {
        while committedCount == openCount {
            stage += 1
            guard stage < stageCount else { return true }
            openCount += shards.count { $0.stage == stage }
        }
        return false
    }

    mutating func noteDuration(of attempt: Attempt, at now: Duration) {
        guard let lease = shards[attempt.shard].leases.first(where: { $0.epoch == attempt.epoch }) else { return }
        paces.append((now - lease.since).seconds / Double(max(1, shards[attempt.shard].cost)))
    }

    /// How long the shard should take by the median pace of those that are finished; `nil` while there are too few to tell.
    func expectedDuration(of shard: Int) -> Duration? {
        guard paces.count >= 3 else { return nil }
        return .seconds(paces.sorted()[paces.count / 2] * Double(shards[shard].cost))
    }
}
