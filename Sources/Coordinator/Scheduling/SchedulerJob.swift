import Operators
import Protocol

/// A lease of a shard.
struct SchedulerLease: Sendable {
    let worker: Scheduler.WorkerID
    let epoch: UInt64
    var since: Duration
    var ends: Duration
    /// Finished bytes, as the worker last said.
    var bytesDone = 0
    /// When they last grew.
    var progressAt: Duration
    /// Heartbeats since the worker last named the lease, which may have crossed it on its way.
    var unnamedBeats = 0

    /// Whether the worker does not know of the lease any more.
    var isForgotten: Bool { unnamedBeats > 1 }
}

/// One shard of a scheduled job.
struct SchedulerShard: Sendable {
    enum State: Sendable {
        /// To be done; may have leases.
        case open
        /// A result is being committed.
        case committing(epoch: UInt64, by: Scheduler.WorkerID)
        case committed
    }

    let label: String
    let cost: Int
    /// Bytes that progress counts.
    let byteCount: Int
    let memory: MemoryNeed
    /// `ShardCost.avoids`.
    let avoids: Set<String>
    var state = State.open
    private(set) var leases: [SchedulerLease] = []
    /// Rises with every lease: an attempt with a lower epoch than the current ones is stale for ever.
    private var nextEpoch: UInt64 = 1
    /// Not to be leased before this moment.
    var notBefore = Duration.zero
    var history: FailureHistory?

    init(_ cost: ShardCost) {
        label = cost.label
        self.cost = cost.cost
        byteCount = cost.byteCount
        memory = cost.memory
        avoids = cost.avoids
    }

    var need: ShardNeed { ShardNeed(memory: memory, avoids: history?.avoids ?? [], avoidedHosts: avoids) }

    var isPending: Bool {
        if case .open = state { leases.isEmpty } else { false }
    }

    func lease(epoch: UInt64) -> SchedulerLease? { leases.first { $0.epoch == epoch } }

    mutating func addLease(to worker: Scheduler.WorkerID, since now: Duration, until end: Duration) -> UInt64 {
        defer { nextEpoch += 1 }
        leases.append(SchedulerLease(worker: worker, epoch: nextEpoch, since: now, ends: end, progressAt: now))
        return nextEpoch
    }

    mutating func removeLease(epoch: UInt64) { leases.removeAll { $0.epoch == epoch } }

    mutating func changeLease(epoch: UInt64, _ body: (inout SchedulerLease) -> Void) {
        guard let index = leases.firstIndex(where: { $0.epoch == epoch }) else { return }
        body(&leases[index])
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
    /// Whether nothing may be leased for now.
    var isPaused = false
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

    mutating func makeReady(_ shard: Int) { ready.insert(shard, cost: shards[shard].cost, need: shards[shard].need) }

    mutating func forgiveFailures() {
        for shard in shards.indices where shards[shard].history != nil { shards[shard].history = nil }
    }

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

    // MARK: Estimates

    /// How long a shard may take by its cost and by the finished shards, whatever running ones let expect.
    func longestDuration(of shard: Int) -> Duration {
        let cost = shards[shard].cost
        return max(.microseconds(cost), .seconds((throughputs.median ?? 0) * Double(cost)))
    }

    /// Seconds per unit of cost, as finished shards took them; as long as these are few, also as those that run let expect. `nil`
    /// while nothing is known.
    func pace(at now: Duration) -> Double? {
        guard throughputs.count < 3 else { return throughputs.median }
        var sample = throughputs
        for (shard, lease) in leases {
            guard let fraction = fraction(of: shard, lease) else { continue }
            sample.add((now - lease.since).seconds / fraction / Double(max(1, shards[shard].cost)))
        }
        return sample.lowerMedian
    }

    /// How much of the shard the lease has done; `nil` while that is nothing.
    private func fraction(of shard: Int, _ lease: SchedulerLease) -> Double? {
        guard lease.bytesDone > 0, shards[shard].byteCount > 0 else { return nil }
        return min(1, Double(lease.bytesDone) / Double(shards[shard].byteCount))
    }

    /// How long the lease will still take, by its own rate so far. A lease that has made no progress, or none for long, is taken
    /// to need as long as it has waited for that.
    func remaining(of shard: Int, _ lease: SchedulerLease, at now: Duration) -> Duration {
        let still = now - lease.progressAt
        guard let fraction = fraction(of: shard, lease) else { return still }
        return max(still, .seconds((now - lease.since).seconds * (1 - fraction) / fraction))
    }
}

extension Duration {
    var seconds: Double { self / .seconds(1) }
}
