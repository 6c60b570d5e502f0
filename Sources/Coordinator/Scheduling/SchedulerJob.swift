import Operators
import Protocol

/// A lease of a shard.
struct SchedulerLease: Sendable {
    let worker: Scheduler.WorkerID
    let epoch: UInt64
    let since: Duration
    var ends: Duration
}

/// One shard of a scheduled job.
struct SchedulerShard: Sendable {
    enum State: Sendable {
        /// To be done; may have leases.
        case open
        /// A result is being committed.
        case committing(epoch: UInt64)
        case committed
    }

    let label: String
    let cost: Int
    let memory: MemoryNeed
    /// `ShardCost.avoids`.
    let avoids: Set<String>
    var state = State.open
    private(set) var leases: [SchedulerLease] = []
    /// Rises with every lease: an attempt with a lower epoch than the current ones is stale for ever.
    private var nextEpoch: UInt64 = 1
    /// Not to be leased before this moment.
    var notBefore = Duration.zero
    var failures = 0
    var failedHosts: Set<String> = []
    var workerLosses = 0

    init(_ cost: ShardCost) {
        label = cost.label
        self.cost = cost.cost
        memory = cost.memory
        avoids = cost.avoids
    }

    var isPending: Bool {
        if case .open = state { leases.isEmpty } else { false }
    }

    func lease(epoch: UInt64) -> SchedulerLease? { leases.first { $0.epoch == epoch } }

    mutating func addLease(to worker: Scheduler.WorkerID, since now: Duration, until end: Duration) -> UInt64 {
        defer { nextEpoch += 1 }
        leases.append(SchedulerLease(worker: worker, epoch: nextEpoch, since: now, ends: end))
        return nextEpoch
    }

    mutating func removeLease(epoch: UInt64) { leases.removeAll { $0.epoch == epoch } }

    mutating func renewLease(epoch: UInt64, until end: Duration) {
        guard let index = leases.firstIndex(where: { $0.epoch == epoch }) else { return }
        leases[index].ends = end
    }
}

/// One job in the schedule.
struct SchedulerJob: Sendable {
    /// Jobs in order of submission have rising numbers.
    let number: Int
    var shards: [SchedulerShard] = []
    /// Shards that can be leased now: of the open stages, without a lease, not paused after a failure.
    var ready = ReadyShards()
    /// Whether the job stands in the scheduler's queue of jobs with ready shards.
    var isQueued = false
    /// Shards with leases.
    private var running: Set<Int> = []
    var committedCount = 0
    /// The shards of each stage.
    private var stages: [Range<Int>] = []
    /// Stages that are open.
    private var openStages = 0
    /// Shards of the open stages, all of which have to be committed before the next stage opens.
    private var openCount = 0
    /// Whether more stages will be added.
    private var hasMoreStages: Bool
    /// Whether more stages were asked for and have not been added yet.
    private var asksForStages = false
    /// Seconds per unit of cost of finished shards.
    private var throughputs = MedianSample()

    /// Where a job stands when nothing of its open stages is left to do.
    enum Advance {
        /// In a stage with work to do.
        case stage
        /// At the end of the stages that are known.
        case unknown
        case end
    }

    init(number: Int, stages: [[ShardCost]], hasMoreStages: Bool, committed: Set<Int>) {
        self.number = number
        self.hasMoreStages = hasMoreStages
        add(stages, hasMoreStages: hasMoreStages)
        for shard in committed where shards.indices.contains(shard) {
            shards[shard].state = .committed
            committedCount += 1
        }
    }

    mutating func add(_ stages: [[ShardCost]], hasMoreStages: Bool) {
        for costs in stages {
            self.stages.append(shards.count..<shards.count + costs.count)
            shards += costs.map(SchedulerShard.init)
        }
        asksForStages = false
        self.hasMoreStages = hasMoreStages
    }

    /// Opens the next stage with shards to do once all open ones are committed. Says `unknown` once for each time that stages
    /// were added.
    mutating func advance() -> Advance {
        // Above, where an earlier coordinator committed shards of stages that are not open yet.
        while committedCount >= openCount, !asksForStages {
            guard openStages < stages.count else {
                asksForStages = hasMoreStages
                return hasMoreStages ? .unknown : .end
            }
            openCount += stages[openStages].count
            for shard in stages[openStages] where shards[shard].isPending { makeReady(shard) }
            openStages += 1
        }
        return .stage
    }

    mutating func makeReady(_ shard: Int) { ready.insert(shard, cost: shards[shard].cost, memory: shards[shard].memory) }

    // MARK: Leases

    mutating func addLease(of shard: Int, to worker: Scheduler.WorkerID, since now: Duration, until end: Duration) -> UInt64 {
        running.insert(shard)
        return shards[shard].addLease(to: worker, since: now, until: end)
    }

    mutating func removeLease(of shard: Int, epoch: UInt64) {
        shards[shard].removeLease(epoch: epoch)
        if shards[shard].leases.isEmpty { running.remove(shard) }
    }

    /// All leases, by shard.
    var leases: [(shard: Int, lease: SchedulerLease)] {
        running.sorted().flatMap { shard in shards[shard].leases.map { (shard, $0) } }
    }

    mutating func noteDuration(of shard: Int, epoch: UInt64, at now: Duration) {
        guard let lease = shards[shard].lease(epoch: epoch) else { return }
        throughputs.add((now - lease.since).seconds / Double(max(1, shards[shard].cost)))
    }

    /// How long the shard should take by the median throughput of finished shards; `nil` while there are too few to tell.
    func expectedDuration(of shard: Int) -> Duration? {
        guard throughputs.count >= 3, let median = throughputs.median else { return nil }
        return .seconds(median * Double(shards[shard].cost))
    }
}

extension Duration {
    var seconds: Double { self / .seconds(1) }
}
