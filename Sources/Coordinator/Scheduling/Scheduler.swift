package import Core
import HeapModule
package import Operators
package import Protocol

/// What the scheduler has to know of a shard.
package struct ShardCost: Sendable, Hashable {
    /// What messages call it.
    package let label: String
    /// How long the shard takes compared with others: estimated microseconds of one thread.
    package let cost: Int
    /// Bytes that progress counts; 0 where nothing is known of progress.
    package let byteCount: Int
    /// What a worker needs for one of its tensors.
    package let memory: MemoryNeed
    /// Hosts that must not do it, as long as there are others.
    package let avoids: Set<String>

    package init(
        label: String, cost: Int, byteCount: Int = 0, memory: MemoryNeed = MemoryNeed(), avoids: Set<String> = []
    ) {
        self.avoids = avoids
        self.label = label
        self.cost = cost
        self.byteCount = byteCount
        self.memory = memory
    }
}

/// Decides which worker works on which shard, and when a result counts.
///
/// A value: it sees events with the moment they happened at, and says what is to be done. It holds no socket, task, file or
/// clock, so the simulator drives it exactly as the coordinator does. What it keeps, whatever happens:
/// a shard is committed once; a result of any lease but a current one is stale; a worker has at most as many leases as slots, and
/// none that its memory is too small for;
/// a stage begins when the one before it is committed; a job ends.
package struct Scheduler: Sendable {
    /// Workers are numbered by the driver, never twice the same.
    package typealias WorkerID = Int

    package enum Event: Sendable {
        /// - Parameters:
        ///   - stages: the shards of each stage; shards are numbered through all stages.
        ///   - hasMoreStages: whether the job asks for more stages when these are committed.
        ///   - committed: shards that are committed already, for a job that an earlier coordinator began.
        case jobAdded(JobID, stages: [[ShardCost]], hasMoreStages: Bool = false, committed: Set<Int> = [])
        /// The answer to `jobContinues`.
        case stagesAdded(JobID, stages: [[ShardCost]], hasMoreStages: Bool)
        case jobCancelled(JobID)
        /// Nothing of the job is leased until it is resumed.
        ///
        /// - Parameter losesResults: whether results that are being committed are lost.
        case jobPaused(JobID, losesResults: Bool = false)
        case jobResumed(JobID)
        /// - Parameters:
        ///   - key: names the worker's process, whichever connection it has; `nil` for one that has no other connection.
        ///   - memory: bytes for the tensors that it works on.
        case workerJoined(WorkerID, host: String, key: String? = nil, slots: Int, memory: Int = .max)
        case workerDraining(WorkerID)
        /// - Parameter isLoss: whether the worker's process is taken to have ended, so that a shard that takes worker after
        ///   worker with it fails its job.
        case workerLeft(WorkerID, isLoss: Bool = true)
        /// - Parameter waiting: leases that cannot get on because this host has not stored their blocks yet.
        case heartbeat(WorkerID, [LeaseProgress], waiting: Set<Attempt> = [])
        /// Something came from the worker, if only a part of a message.
        case workerHeard(WorkerID)
        /// Nothing has come from the worker for so long that it may be gone.
        case workerSilent(WorkerID)
        case shardFinished(WorkerID, Attempt)
        case shardFailed(WorkerID, Attempt, TesseraError)
        /// The answers to `commit`.
        case shardCommitted(Attempt)
        /// With the worker whose fault it is, if it is a worker's.
        case commitFailed(Attempt, TesseraError, by: WorkerID?)
        case tick
        /// The process stood still for so long: nobody could be heard meanwhile.
        case stoodStill(Duration)
    }

    package enum Action: Sendable, Hashable {
        case lease(WorkerID, Attempt, lasting: Duration)
        case revoke(WorkerID, Attempt, reason: String)
        /// As `revoke`, but the attempt has failed.
        case giveUp(WorkerID, Attempt, TesseraError)
        /// Make the result durable, then answer with `shardCommitted` or `commitFailed`.
        case commit(WorkerID, Attempt)
        /// The result is not wanted any more; nothing is wrong with it.
        case stale(WorkerID, Attempt)
        /// All stages that are known are committed: say which come next.
        case jobContinues(JobID)
        case jobFinished(JobID)
        case jobFailed(JobID, TesseraError)
    }

    /// What decides which shards a worker can hold.
    struct WorkerSize: Hashable {
        let slots: Int
        /// Bytes.
        let memory: Int

        func holds(_ need: MemoryNeed) -> Bool { need.byteCount(threads: slots) <= memory }
    }

    struct Worker {
        let host: String
        /// Tells worker processes apart, also where they share host and name.
        let key: String
        let size: WorkerSize
        var isDraining = false
        var isSilent = false
        /// Attempts that it failed since it last finished one.
        var strikes = 0
        /// Those of them that blame something which may prove to be nobody's fault.
        var blames: [Blame: Int] = [:]
        /// Gets nothing before this moment.
        var restsUntil: Duration?
        var leases: Set<Attempt> = []

        var freeSlots: Int { isDraining || isSilent || restsUntil != nil ? 0 : max(0, size.slots - leases.count) }

        /// Whether the worker can do such a shard and is not to be avoided.
        func couldDo(_ need: ShardNeed) -> Bool {
            !isDraining && size.holds(need.memory) && !need.avoids.contains(key) && !need.avoidedHosts.contains(host)
        }
    }

    /// What a worker says was wrong with a job that has not ended.
    struct Blame: Hashable {
        let job: JobID
        let cause: FailureCause
    }

    /// What became of leases since the beginning, beside results and failures.
    struct LeaseCounts: Sendable {
        /// Not renewed in time.
        var expired = 0
        /// Taken back for lack of progress.
        var stalled = 0
        /// Second leases of shards that take long.
        var backups = 0
    }

    let policy: SchedulerPolicy
    /// Which start of the coordinator this is: part of every attempt.
    let incarnation: UInt32
    /// Jobs that have not ended.
    var jobs: [JobID: SchedulerJob] = [:]
    private var nextNumber = 0
    var workers: [WorkerID: Worker] = [:]
    /// How many workers there are of each size.
    var sizes: [WorkerSize: Int] = [:]
    /// Workers with free slots.
    var free: Set<WorkerID> = []
    /// Workers that rest after failures.
    var resting: Set<WorkerID> = []
    /// Whether a worker became free or a shard became ready since the last assignment. Without that, what is left fits nowhere.
    var canAssign = false
    /// Jobs with ready shards, in order of submission.
    var waitingJobs: Heap<JobTurn> = []
    /// Shards that wait after a failure.
    var delayed: Heap<ShardTimer> = []
    /// One entry for each lease, at the latest end that was known when it was inserted; leases that are over leave theirs behind
    /// for a while.
    var leaseEnds: Heap<ShardTimer> = []
    var leaseCount = 0
    /// How often a worker's process has ended while it was connected.
    var losses = 0
    /// When leases are looked through for those without progress.
    var nextStallCheck = Duration.zero
    var leaseCounts = LeaseCounts()
    /// How many shards were looked at since the beginning: what an event costs.
    package internal(set) var visitedShards = 0

    /// - Parameter incarnation: another number each time the coordinator starts, so that results of leases from before are stale.
    package init(policy: SchedulerPolicy = SchedulerPolicy(), incarnation: UInt32 = 0) {
        self.policy = policy
        self.incarnation = incarnation
    }

    package mutating func handle(_ event: Event, at now: Duration) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .jobAdded(let id, let stages, let hasMoreStages, let committed):
            guard jobs[id] == nil else { break }
            jobs[id] = SchedulerJob(
                number: nextNumber, stages: stages, hasMoreStages: hasMoreStages, committed: committed)
            nextNumber += 1
            actions += advance(id)
        case .stagesAdded(let id, let stages, let hasMoreStages):
            guard jobs[id] != nil else { break }
            jobs[id]?.add(stages, hasMoreStages: hasMoreStages)
            actions += advance(id)
        case .jobCancelled(let id): actions += end(id, reason: "the job was cancelled")
        case .jobPaused(let id, let losesResults): actions += pause(id, losesResults: losesResults, at: now)
        case .jobResumed(let id):
            jobs[id]?.isPaused = false
            queue(id)
        case .workerJoined(let id, let host, let key, let slots, let memory):
            workers[id] = Worker(host: host, key: key ?? "\(id)", size: WorkerSize(slots: slots, memory: memory))
            sizes[WorkerSize(slots: slots, memory: memory), default: 0] += 1
            updateFree(id)
        case .workerDraining(let id):
            workers[id]?.isDraining = true
            // Shards that waited for this worker may go to others again.
            canAssign = true
            updateFree(id)
        case .workerLeft(let id, let isLoss): actions += left(id, isLoss: isLoss, at: now)
        case .heartbeat(let id, let progress, let waiting): renew(progress, of: id, waiting: waiting, at: now)
        case .workerHeard(let id): heard(id, at: now)
        case .workerSilent(let id):
            workers[id]?.isSilent = true
            updateFree(id)
        case .shardFinished(let id, let attempt): actions += finished(attempt, by: id, at: now)
        case .shardFailed(let id, let attempt, let error): actions += failed(attempt, by: id, error, at: now)
        case .shardCommitted(let attempt): actions += committed(attempt)
        case .commitFailed(let attempt, let error, let worker): actions += commitFailed(attempt, error, by: worker, at: now)
        case .stoodStill(let pause): stoodStill(for: pause, at: now)
        case .tick:
            actions += expire(at: now)
            actions += giveUpStalled(at: now)
            actions += assign(at: now)
            return actions + backUpStragglers(at: now)
        }
        return actions + assign(at: now)
    }

    // MARK: Results

    private mutating func finished(_ attempt: Attempt, by worker: WorkerID, at now: Duration) -> [Action] {
        guard holdsLease(worker, attempt) else { return [.stale(worker, attempt)] }
        let others = jobs[attempt.job]?.shards[attempt.shard].leases.filter { $0.epoch != attempt.epoch } ?? []
        jobs[attempt.job]?.noteDuration(of: attempt.shard, epoch: attempt.epoch, at: now)
        workers[worker]?.strikes = 0
        workers[worker]?.blames = [:]
        release(attempt, from: worker)
        let revokes = others.map { other in
            let stale = self.attempt(attempt.job, shard: attempt.shard, epoch: other.epoch)
            release(stale, from: other.worker)
            return Action.revoke(other.worker, stale, reason: "another worker was faster")
        }
        jobs[attempt.job]?.shards[attempt.shard].state = .committing(epoch: attempt.epoch, by: worker)
        return revokes + [.commit(worker, attempt)]
    }

    private mutating func committed(_ attempt: Attempt) -> [Action] {
        guard isCommitting(attempt) else { return [] }
        jobs[attempt.job]?.shards[attempt.shard].state = .committed
        jobs[attempt.job]?.committedCount += 1
        return advance(attempt.job)
    }

    private mutating func commitFailed(
        _ attempt: Attempt, _ error: TesseraError, by worker: WorkerID?, at now: Duration
    ) -> [Action] {
        guard isCommitting(attempt) else { return [] }
        return retry(attempt, after: error, by: worker, at: now)
    }

    /// Opens the next stage when the open ones are complete, and ends the job with its last.
    private mutating func advance(_ id: JobID) -> [Action] {
        let advance = jobs[id]?.advance()
        queue(id)
        switch advance {
        case .stage, nil: return []
        case .unknown: return [.jobContinues(id)]
        case .end: return end(id, reason: "the job is finished") + [.jobFinished(id)]
        }
    }

    /// Takes back all leases of the job, and forgets failures: the reason of the pause may have been theirs.
    private mutating func pause(_ id: JobID, losesResults: Bool, at now: Duration) -> [Action] {
        guard var ended = jobs[id]?.leases.map({ (shard: $0.shard, epoch: $0.lease.epoch, worker: $0.lease.worker) }) else {
            return []
        }
        jobs[id]?.isPaused = true
        jobs[id]?.forgiveFailures()
        for shard in (losesResults ? jobs[id]?.shards.indices : nil) ?? 0..<0 {
            guard case .committing(let epoch, let worker)? = jobs[id]?.shards[shard].state else { continue }
            jobs[id]?.shards[shard].state = .open
            ended.append((shard, epoch, worker))
        }
        return ended.map { shard, epoch, worker in
            let attempt = attempt(id, shard: shard, epoch: epoch)
            release(attempt, from: worker)
            queue(id, shard, at: now)
            return .revoke(worker, attempt, reason: "the job is paused")
        }
    }

    // MARK: Ends

    /// Takes the job out of the schedule and its leases back. Nothing of the job is kept.
    mutating func end(_ id: JobID, reason: String) -> [Action] {
        guard let job = jobs.removeValue(forKey: id) else { return [] }
        for (worker, entry) in workers where !entry.blames.isEmpty {
            workers[worker]?.blames = entry.blames.filter { $0.key.job != id }
        }
        return job.leases.map { shard, lease in
            let attempt = attempt(id, shard: shard, epoch: lease.epoch)
            release(attempt, from: lease.worker)
            return Action.revoke(lease.worker, attempt, reason: reason)
        }
    }

    func attempt(_ job: JobID, shard: Int, epoch: UInt64) -> Attempt {
        Attempt(job: job, shard: shard, epoch: epoch, incarnation: incarnation)
    }

    mutating func release(_ attempt: Attempt, from worker: WorkerID) {
        if workers[worker]?.leases.remove(attempt) != nil { leaseCount -= 1 }
        updateFree(worker)
        jobs[attempt.job]?.removeLease(of: attempt.shard, epoch: attempt.epoch)
    }

    mutating func updateFree(_ worker: WorkerID) {
        if workers[worker]?.freeSlots ?? 0 == 0 {
            free.remove(worker)
        } else if free.insert(worker).inserted {
            canAssign = true
        }
    }

    // MARK: Queries

    /// Whether this worker may still finish this attempt.
    package func holdsLease(_ worker: WorkerID, _ attempt: Attempt) -> Bool { workers[worker]?.leases.contains(attempt) ?? false }

    /// Whether some worker may still finish this attempt.
    package func isLeased(_ attempt: Attempt) -> Bool { shard(of: attempt)?.lease(epoch: attempt.epoch) != nil }

    /// Whether an answer to `commit` still counts.
    package func isCommitting(_ attempt: Attempt) -> Bool {
        if case .committing(attempt.epoch, _)? = shard(of: attempt)?.state { true } else { false }
    }

    func shard(of attempt: Attempt) -> SchedulerShard? {
        guard attempt.incarnation == incarnation, let job = jobs[attempt.job], job.shards.indices.contains(attempt.shard) else {
            return nil
        }
        return job.shards[attempt.shard]
    }

    /// A shard that waits although workers are there, since all of them are too small for it.
    package func oversizedShard(of id: JobID) -> (label: String, memory: MemoryNeed)? {
        guard let job = jobs[id], !workers.isEmpty else { return nil }
        return job.ready.largest.filter { _, need in sizes.keys.allSatisfy { !$0.holds(need.memory) } }
            .max { $0.need.memory.byteCount(threads: 1) < $1.need.memory.byteCount(threads: 1) }
            .map { (job.shards[$0.shard].label, $0.need.memory) }
    }

    /// Attempts that the worker failed since it last finished one, and until when it gets nothing for that.
    package func strikes(of worker: WorkerID) -> (count: Int, restsUntil: Duration?) {
        (workers[worker]?.strikes ?? 0, workers[worker]?.restsUntil)
    }

    package func leaseCount(of worker: WorkerID) -> Int { workers[worker]?.leases.count ?? 0 }

    /// The worker's leases: jobs in order of submission, shards by number.
    package func leases(of worker: WorkerID) -> [Attempt] {
        (workers[worker]?.leases ?? []).sorted {
            (jobs[$0.job]?.number ?? 0, $0.shard, $0.epoch) < (jobs[$1.job]?.number ?? 0, $1.shard, $1.epoch)
        }
    }

    /// Entries that the scheduler holds: of jobs, of their shards, and in its queues.
    package var entryCount: Int {
        jobs.values.reduce(jobs.count) { $0 + $1.shards.count } + waitingJobs.count + delayed.count + leaseEnds.count
    }
}
