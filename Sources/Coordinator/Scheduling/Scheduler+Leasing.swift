import HeapModule
import Operators
import Protocol

extension Scheduler {
    /// Gives free slots to ready shards: jobs in order of submission, the largest shard of a job first.
    mutating func assign(at now: Duration) -> [Action] {
        endDelays(at: now)
        endRests(at: now)
        guard canAssign else { return [] }
        canAssign = false
        var actions: [Action] = []
        /// Jobs whose shards fit no free slot.
        var passedOver: [JobTurn] = []
        /// Needs that no free slot meets.
        var unplaceable: Set<ShardNeed> = []
        while !free.isEmpty, let turn = waitingJobs.popMin() {
            guard jobs[turn.id]?.isPaused != true else {
                jobs[turn.id]?.isQueued = false
                continue
            }
            while let (shard, worker) = nextMatch(in: turn.id, &unplaceable) {
                actions.append(lease(turn.id, shard, to: worker, at: now))
            }
            if jobs[turn.id]?.ready.isEmpty == false {
                passedOver.append(turn)
            } else {
                jobs[turn.id]?.isQueued = false
            }
        }
        for turn in passedOver { waitingJobs.insert(turn) }
        return actions
    }

    /// Takes the job's largest shard that fits a free slot out of its ready shards.
    private mutating func nextMatch(in id: JobID, _ unplaceable: inout Set<ShardNeed>) -> (shard: Int, worker: WorkerID)? {
        guard !free.isEmpty, let candidates = jobs[id]?.ready.largest else { return nil }
        for (shard, need) in candidates where !unplaceable.contains(need) {
            visitedShards += 1
            guard let worker = bestWorker(for: need, jobs[id]?.shards[shard].history) else {
                unplaceable.insert(need)
                continue
            }
            jobs[id]?.ready.removeLargest(of: need)
            return (shard, worker)
        }
        return nil
    }

    /// The worker with memory enough that failed the shard least often, if possible on a host where nobody did, with the smallest
    /// share of its slots taken. A worker that failed the shard, or went away with it, gets it again only when there is no other,
    /// not even a busy one; nor does a host that the shard avoids.
    private func bestWorker(for need: ShardNeed, _ history: FailureHistory?, insteadOf holder: WorkerID? = nil) -> WorkerID? {
        let holderKey = holder.flatMap { workers[$0]?.key }
        let mayRepeat = need.isChoosy && holder == nil && !workers.values.contains { $0.couldDo(need) }
        var best: (rank: (Int, Int, Double, WorkerID), id: WorkerID)?
        for id in free {
            guard let worker = workers[id], worker.key != holderKey,
                mayRepeat ? worker.size.holds(need.memory) : worker.couldDo(need)
            else { continue }
            let load = Double(worker.leases.count) / Double(max(1, worker.size.slots))
            let rank = (history?.attempts[worker.key] ?? 0, history?.hosts.contains(worker.host) == true ? 1 : 0, load, id)
            if best.map({ rank < $0.rank }) ?? true { best = (rank, id) }
        }
        return best?.id
    }

    private mutating func lease(_ id: JobID, _ shard: Int, to worker: WorkerID, at now: Duration) -> Action {
        let end = now + policy.lease + policy.margin
        let epoch = jobs[id]?.addLease(of: shard, to: worker, since: now, until: end) ?? 0
        let attempt = attempt(id, shard: shard, epoch: epoch)
        workers[worker]?.leases.insert(attempt)
        updateFree(worker)
        leaseCount += 1
        leaseEnds.insert(ShardTimer(at: end, number: jobs[id]?.number ?? 0, id: id, shard: shard, epoch: epoch))
        if leaseEnds.count > 2 * leaseCount + 1024 {
            leaseEnds = Heap(leaseEnds.unordered.filter { jobs[$0.id]?.shards[$0.shard].lease(epoch: $0.epoch) != nil })
        }
        return .lease(worker, attempt, lasting: policy.lease)
    }

    // MARK: Queues

    /// Queues a shard that waits for a worker: now, or after its pause.
    mutating func queue(_ id: JobID, _ shard: Int, at now: Duration) {
        // No copy of the job is held here, or every change would copy all of its shards.
        guard let number = jobs[id]?.number, jobs[id]?.shards[shard].isPending == true else { return }
        let moment = jobs[id]?.shards[shard].notBefore ?? now
        if moment > now {
            delayed.insert(ShardTimer(at: moment, number: number, id: id, shard: shard))
        } else {
            jobs[id]?.makeReady(shard)
            queue(id)
        }
    }

    /// Queues a job with ready shards.
    mutating func queue(_ id: JobID) {
        canAssign = true
        guard let number = jobs[id]?.number, jobs[id]?.isQueued == false, jobs[id]?.isPaused == false,
            jobs[id]?.ready.isEmpty == false
        else { return }
        jobs[id]?.isQueued = true
        waitingJobs.insert(JobTurn(number: number, id: id))
    }

    private mutating func endDelays(at now: Duration) {
        while let first = delayed.min, first.at <= now {
            delayed.removeMin()
            visitedShards += 1
            queue(first.id, first.shard, at: now)
        }
    }

    private mutating func endRests(at now: Duration) {
        for id in resting where workers[id]?.restsUntil ?? .zero <= now {
            resting.remove(id)
            workers[id]?.restsUntil = nil
            updateFree(id)
        }
    }

    // MARK: Stragglers

    /// A second lease elsewhere for shards that will take far longer than they would there; the first result wins. Where there
    /// are fewer free slots than such shards, those that would end last come first.
    mutating func backUpStragglers(at now: Duration) -> [Action] {
        guard !free.isEmpty else { return [] }
        var paces: [JobID: Double] = [:]
        for id in Set(workers.values.flatMap(\.leases).map(\.job)) { paces[id] = jobs[id]?.pace(at: now) }
        let lagging = workers.values.flatMap(\.leases)
            .compactMap { attempt in lag(of: attempt, paces[attempt.job], at: now).map { (attempt, $0) } }
            .sorted {
                ($1.1, jobs[$0.0.job]?.number ?? 0, $0.0.shard) < ($0.1, jobs[$1.0.job]?.number ?? 0, $1.0.shard)
            }
        visitedShards += leaseCount
        return lagging.compactMap { attempt, _ in
            guard let shard = jobs[attempt.job]?.shards[attempt.shard],
                let worker = bestWorker(for: shard.need, shard.history, insteadOf: shard.leases.first?.worker)
            else { return nil }
            leaseCounts.backups += 1
            return lease(attempt.job, attempt.shard, to: worker, at: now)
        }
    }

    /// How long a shard will still take that another worker would have done sooner; `nil` for one that had better be left alone.
    private func lag(of attempt: Attempt, _ pace: Double?, at now: Duration) -> Duration? {
        guard let job = jobs[attempt.job], job.shards[attempt.shard].leases.count == 1,
            let lease = job.shards[attempt.shard].leases.first
        else { return nil }
        let remaining = job.remaining(of: attempt.shard, lease, at: now), age = now - lease.since
        if workers[lease.worker]?.isSilent == true { return remaining }
        let cost = job.shards[attempt.shard].cost
        guard let pace else {
            let expected = Duration.microseconds(cost) * policy.stallFactor
            return age > max(policy.blindStragglerFloor, expected) ? remaining : nil
        }
        let expected = Duration.seconds(pace * Double(cost))
        let factor = lease.bytesDone == 0 ? policy.stragglerFactor : policy.remainderFactor
        return age > policy.stragglerFloor && remaining > expected * factor ? remaining : nil
    }
}
