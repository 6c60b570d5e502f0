import Operators
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
    let memory: MemoryNeed
    let stage: Int
    var state = State.open
    private(set) var leases: [SchedulerLease] = []
    /// Rises with every lease: an attempt with a lower epoch than the current ones is stale for ever.
    private(set) var nextEpoch: UInt64 = 1
    /// Not to be leased before this moment.
    var notBefore = Duration.zero
    var failures = 0
    var failedHosts: Set<String> = []
    var workerLosses = 0

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
    private(set) var stageCount = 0
    private(set) var stage = 0
    var shards: [SchedulerShard] = []
    /// Whether more stages will be added.
    private var hasMoreStages: Bool
    /// Whether more stages were asked for and are not there yet.
    private var asksForStages = false
    var hasEnded = false
    var committedCount = 0
    /// Shards of the stages so far, all of which have to be committed before the next stage opens.
    private var openCount = 0
    /// Seconds per byte of cost of finished shards.
    private var throughputs: [Double] = []

    /// Where a job stands when nothing of its open stages is left to do.
    enum Advance {
        /// In a stage with work to do.
        case stage
        /// At the end of the stages that are known.
        case unknown
        case end
    }

    init(stages: [[ShardCost]], hasMoreStages: Bool) {
        self.hasMoreStages = hasMoreStages
        add(stages, hasMoreStages: hasMoreStages)
        openCount = stages.first?.count ?? 0
    }

    mutating func add(_ stages: [[ShardCost]], hasMoreStages: Bool) {
        let first = stageCount
        stageCount += stages.count
        shards += stages.enumerated().flatMap { stage, costs in
            costs.map { SchedulerShard(label: $0.label, cost: $0.cost, memory: $0.memory, stage: first + stage) }
        }
        if asksForStages { openCount += stages.first?.count ?? 0 }
        asksForStages = false
        self.hasMoreStages = hasMoreStages
    }

    /// Shards of the open stage that wait for a worker, the largest first so that none is left to run alone at the end.
    func pending(at now: Duration) -> [Int] {
        shards.indices.filter { shards[$0].stage == stage && shards[$0].isPending && shards[$0].notBefore <= now }
            .sorted { (shards[$1].cost, $0) < (shards[$0].cost, $1) }
    }

    /// Moves on to the next stage with shards once this one is committed. Says `unknown` once for each time that stages were added.
    mutating func advance() -> Advance {
        while committedCount == openCount, !asksForStages {
            stage += 1
            guard stage < stageCount else {
                // The next one that is added, also where there was none at all.
                stage = stageCount
                asksForStages = hasMoreStages
                return hasMoreStages ? .unknown : .end
            }
            openCount += shards.count { $0.stage == stage }
        }
        return .stage
    }

    mutating func noteDuration(of attempt: Attempt, at now: Duration) {
        guard let lease = shards[attempt.shard].leases.first(where: { $0.epoch == attempt.epoch }) else { return }
        throughputs.append((now - lease.since).seconds / Double(max(1, shards[attempt.shard].cost)))
    }

    /// How long the shard should take by the median pace of those that are finished; `nil` while there are too few to tell.
    func expectedDuration(of shard: Int) -> Duration? {
        guard throughputs.count >= 3 else { return nil }
        return .seconds(throughputs.sorted()[throughputs.count / 2] * Double(shards[shard].cost))
    }
}
