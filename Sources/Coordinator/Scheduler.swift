package import Core
package import Operators
package import Protocol

/// What the scheduler has to know of a shard.
package struct ShardCost: Sendable, Hashable {
    /// What messages call it.
    package let label: String
    /// Bytes to read, as a measure of the time it takes.
    package let cost: Int
    /// What a worker needs for one of its tensors.
    package let memory: MemoryNeed

    package init(label: String, cost: Int, memory: MemoryNeed = MemoryNeed()) {
        self.label = label
        self.cost = cost
        self.memory = memory
    }
}

/// Decides which worker works on which shard, and when a result counts.
///
/// A value: it sees events with the moment they happened at, and says what is to be done. It holds no socket, task, file or clock, so the
/// simulator drives it exactly as the coordinator does. What it keeps, whatever happens:
/// a shard is committed once; a result of any lease but a current one is stale; a worker has at most as many leases as slots, and none that
/// its memory is too small for;
/// a stage begins when the one before it is committed; a job ends.
package struct Scheduler: Sendable {
    /// Workers are numbered by the driver, never twice the same.
    package typealias WorkerID = Int

    package enum Event: Sendable {
        /// - Parameters:
        ///   - stages: the shards of each stage; shards are numbered through all stages.
        ///   - hasMoreStages: whether the job asks for more stages when these are committed.
        case jobAdded(JobID, stages: [[ShardCost]], hasMoreStages: Bool = false)
        /// The answer to `jobContinues`.
        case stagesAdded(JobID, stages: [[ShardCost]], hasMoreStages: Bool)
        case jobCancelled(JobID)
        /// - Parameter memory: bytes for the tensors that it works on.
        case workerJoined(WorkerID, host: String, slots: Int, memory: Int = .max)
        case workerDraining(WorkerID)
        /// - Parameter isLoss: whether the worker is taken to be gone, so that a shard that takes worker after worker with it fails its job.
        case workerLeft(WorkerID, isLoss: Bool = true)
        case heartbeat(WorkerID, [LeaseProgress])
        case shardFinished(WorkerID, Attempt)
        case shardFailed(WorkerID, Attempt, TesseraError)
        /// The answers to `commit`.
        case shardCommitted(Attempt)
        case commitFailed(Attempt, TesseraError)
        case tick
    }

    package enum Action: Sendable, Hashable {
        case lease(WorkerID, Attempt, lasting: Duration)
        case revoke(WorkerID, Attempt, reason: String)
        /// Make the result durable, then answer with `shardCommitted` or `commitFailed`.
        case commit(WorkerID, Attempt)
        /// The result is not wanted any more; nothing is wrong with it.
        case stale(WorkerID, Attempt)
        /// All stages that are known are committed: say which come next.
        case jobContinues(JobID)
        case jobFinished(JobID)
        case jobFailed(JobID, TesseraError)
    }

    struct Worker {
        let host: String
        let slots: Int
        let memory: Int
        var isDraining = false
        var leases: Set<Attempt> = []

        var freeSlots: Int { isDraining ? 0 : max(0, slots - leases.count) }

        func holds(_ need: MemoryNeed) -> Bool { need.byteCount(threads: slots) <= memory }
    }

    let policy: SchedulerPolicy
    var jobs: [JobID: SchedulerJob] = [:]
    /// Jobs that have not ended, in the order of submission.
    var order: [JobID] = []
    var workers: [WorkerID: Worker] = [:]

    /// Which start of the coordinator this is: part of every attempt.
    let incarnation: UInt32

    /// - Parameter incarnation: another number each time the coordinator starts, so that results of leases from before are stale.
    package init(policy: SchedulerPolicy = SchedulerPolicy(), incarnation: UInt32 = 0) {
        self.policy = policy
        self.incarnation = incarnation
    }

    package mutating func handle(_ event: Event, at now: Duration) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .jobAdded(let id, let stages, let hasMoreStages):
            guard jobs[id] == nil else { break }
            jobs[id] = SchedulerJob(stages: stages, hasMoreStages: hasMoreStages)
            order.append(id)
            actions += finishStages(of: id)
        case .stagesAdded(let id, let stages, let hasMoreStages):
            guard jobs[id]?.hasEnded == false else { break }
            jobs[id]?.add(stages, hasMoreStages: hasMoreStages)
            actions += finishStages(of: id)
        case .jobCancelled(let id): actions += end(id, reason: "the job was cancelled")
        case .workerJoined(let id, let host, let slots, let memory):
            workers[id] = Worker(host: host, slots: slots, memory: memory)
        case .workerDraining(let id): workers[id]?.isDraining = true
        case .workerLeft(let id, let isLoss): actions += left(id, isLoss: isLoss, at: now)
        case .heartbeat(let id, let progress): renew(progress, of: id, at: now)
        case .shardFinished(let id, let attempt): actions += finished(attempt, by: id, at: now)
        case .shardFailed(let id, let attempt, let error): actions += failed(attempt, by: id, error, at: now)
        case .shardCommitted(let attempt): actions += committed(attempt)
        case .commitFailed(let attempt, let error): actions += commitFailed(attempt, error, at: now)
        case .tick: actions += expire(at: now)
        }
        return actions + assign(at: now)
    }

    // MARK: Results

    private mutating func renew(_ progress: [LeaseProgress], of worker: WorkerID, at now: Duration) {
        for entry in progress where holdsLease(worker, entry.attempt) {
            jobs[entry.attempt.job]?.shards[entry.attempt.shard].renew(entry, until: now + policy.lease + policy.margin)
        }
    }

    private mutating func finished(_ attempt: Attempt, by worker: WorkerID, at now: Duration) -> [Action] {
        guard holdsLease(worker, attempt) else { return [.stale(worker, attempt)] }
        let others = jobs[attempt.job]?.shards[attempt.shard].leases.filter { $0.epoch != attempt.epoch } ?? []
        jobs[attempt.job]?.noteDuration(of: attempt, at: now)
        release(attempt, from: worker)
        let revokes = others.map { other in
            let stale = self.attempt(attempt.job, shard: attempt.shard, epoch: other.epoch)
            release(stale, from: other.worker)
            return Action.revoke(other.worker, stale, reason: "another worker was faster")
        }
        jobs[attempt.job]?.shards[attempt.shard].state = .committing(epoch: attempt.epoch)
        return revokes + [.commit(worker, attempt)]
    }

    private mutating func committed(_ attempt: Attempt) -> [Action] {
        guard isCommitting(attempt) else { return [] }
        jobs[attempt.job]?.shards[attempt.shard].state = .committed
        jobs[attempt.job]?.committedCount += 1
        return finishStages(of: attempt.job)
    }

    private mutating func commitFailed(_ attempt: Attempt, _ error: TesseraError, at now: Duration) -> [Action] {
        guard isCommitting(attempt) else { return [] }
        return retry(attempt, after: error, host: nil, at: now)
    }

    private func isCommitting(_ attempt: Attempt) -> Bool {
        guard attempt.incarnation == incarnation, let job = jobs[attempt.job], !job.hasEnded,
            case .committing(attempt.epoch) = job.shards[attempt.shard].state
        else {
            return false
        }
        return true
    }

    /// Opens the next stage when one is complete, and ends the job with its last.
    private mutating func finishStages(of id: JobID) -> [Action] {
        switch jobs[id]?.advance() {
        case .stage, nil: return []
        case .unknown: return [.jobContinues(id)]
        case .end:
            _ = end(id, reason: "the job is finished")
            return [.jobFinished(id)]
        }
    }

    // MARK: Ends

    /// Takes the job out of the schedule and its leases back.
    mutating func end(_ id: JobID, reason: String) -> [Action] {
        guard let job = jobs[id], !job.hasEnded else { return [] }
        jobs[id]?.hasEnded = true
        order.removeAll { $0 == id }
        return job.shards.indices.flatMap { shard in
            job.shards[shard].leases.map { lease in
                let attempt = attempt(id, shard: shard, epoch: lease.epoch)
                release(attempt, from: lease.worker)
                return Action.revoke(lease.worker, attempt, reason: reason)
            }
        }
    }

    func attempt(_ job: JobID, shard: Int, epoch: UInt64) -> Attempt {
        Attempt(job: job, shard: shard, epoch: epoch, incarnation: incarnation)
    }

    mutating func release(_ attempt: Attempt, from worker: WorkerID) {
        workers[worker]?.leases.remove(attempt)
        jobs[attempt.job]?.shards[attempt.shard].removeLease(epoch: attempt.epoch)
    }

    // MARK: Queries

    /// Whether this worker may still finish this attempt.
    package func holdsLease(_ worker: WorkerID, _ attempt: Attempt) -> Bool { workers[worker]?.leases.contains(attempt) ?? false }

    /// The first shard that waits although workers are there, since all of them are too small for it.
    package func oversizedShard(of id: JobID) -> (label: String, memory: MemoryNeed)? {
        guard let job = jobs[id], !job.hasEnded, !workers.isEmpty else { return nil }
        return job.shards.lazy.filter { $0.stage == job.stage && $0.isPending }
            .first { shard in workers.values.allSatisfy { !$0.holds(shard.memory) } }.map { ($0.label, $0.memory) }
    }

    package func leaseCount(of worker: WorkerID) -> Int { workers[worker]?.leases.count ?? 0 }

    /// The shards of a job, in order.
    package func shards(of id: JobID) -> [ShardView] { jobs[id]?.shards.map(ShardView.init) ?? [] }
}

/// A shard as status reports show it.
package struct ShardView: Sendable, Hashable {
    package let state: ShardStatus.State
    package let workers: [Scheduler.WorkerID]
    package let attempts: Int
    /// Output bytes, as far as the furthest attempt has come.
    package let bytesDone: Int

    fileprivate init(_ shard: SchedulerShard) {
        state =
            switch shard.state {
            case .committed: .committed
            case .committing: .leased
            case .open: shard.leases.isEmpty ? .pending : .leased
            }
        workers = shard.leases.map(\.worker)
        attempts = Int(shard.nextEpoch - 1)
        bytesDone = shard.leases.map(\.bytesDone).max() ?? 0
    }
}
