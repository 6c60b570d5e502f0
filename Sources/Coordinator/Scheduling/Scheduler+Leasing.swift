import HeapModule
import Operators
import Protocol

extension Scheduler {
    /// Gives free slots to ready shards: jobs in order of submission, the largest shard of a job first.
    mutating func assign(at now: Duration) -> [Action] {
        resumePaused(at: now)
        guard canAssign else { return [] }
        canAssign = false
        var actions: [Action] = []
        /// Jobs whose shards fit no free slot.
        var passedOver: [JobTurn] = []
        /// Needs that no free slot holds.
        var unplaceable: Set<MemoryNeed> = []
        while !free.isEmpty, let turn = waitingJobs.popMin() {
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
    private mutating func nextMatch(in id: JobID, _ unplaceable: inout Set<MemoryNeed>) -> (shard: Int, worker: WorkerID)? {
        guard !free.isEmpty, let candidates = jobs[id]?.ready.largest else { return nil }
        for (shard, memory) in candidates where !unplaceable.contains(memory) {
            visitedShards += 1
            let failedHosts = jobs[id]?.shards[shard].failedHosts ?? [], avoids = jobs[id]?.shards[shard].avoids ?? []
            guard let worker = bestWorker(memory, failedHosts: failedHosts, avoids: avoids) else {
                if avoids.isEmpty { unplaceable.insert(memory) }
                continue
            }
            jobs[id]?.ready.removeLargest(of: memory)
            return (shard, worker)
        }
        return nil
    }

    /// The worker with memory enough and the smallest share of its slots taken, on a host where the shard has not failed if there
    /// is one.
    private func bestWorker(
        _ memory: MemoryNeed, failedHosts: Set<String>, avoids: Set<String>, except excluded: WorkerID? = nil
    ) -> WorkerID? {
        let hasOthers =
            !avoids.isEmpty
            && workers.values.contains { !avoids.contains($0.host) && !$0.isDraining && $0.size.holds(memory) }
        var best: (rank: (Int, Double, WorkerID), id: WorkerID)?
        for id in free where id != excluded {
            guard let worker = workers[id], worker.size.holds(memory), !hasOthers || !avoids.contains(worker.host) else {
                continue
            }
            let load = Double(worker.leases.count) / Double(max(1, worker.size.slots))
            let rank = (failedHosts.contains(worker.host) ? 1 : 0, load, id)
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
            paused.insert(ShardTimer(at: moment, number: number, id: id, shard: shard))
        } else {
            jobs[id]?.makeReady(shard)
            queue(id)
        }
    }

    /// Queues a job with ready shards.
    mutating func queue(_ id: JobID) {
        canAssign = true
        guard let number = jobs[id]?.number, jobs[id]?.isQueued == false, jobs[id]?.ready.isEmpty == false else { return }
        jobs[id]?.isQueued = true
        waitingJobs.insert(JobTurn(number: number, id: id))
    }

    private mutating func resumePaused(at now: Duration) {
        while let first = paused.min, first.at <= now {
            paused.removeMin()
            visitedShards += 1
            queue(first.id, first.shard, at: now)
        }
    }

    // MARK: Stragglers

    /// A second lease elsewhere for shards that take far longer than their cost lets expect; the first result wins.
    mutating func backUpStragglers(at now: Duration) -> [Action] {
        guard !free.isEmpty else { return [] }
        let lagging = workers.values.flatMap(\.leases).filter { isLagging($0, at: now) }
            .sorted { (jobs[$0.job]?.number ?? 0, $0.shard) < (jobs[$1.job]?.number ?? 0, $1.shard) }
        visitedShards += leaseCount
        return lagging.compactMap { attempt in
            guard let shard = jobs[attempt.job]?.shards[attempt.shard],
                let worker = bestWorker(
                    shard.memory, failedHosts: shard.failedHosts, avoids: shard.avoids, except: shard.leases.first?.worker)
            else { return nil }
            return lease(attempt.job, attempt.shard, to: worker, at: now)
        }
    }

    private func isLagging(_ attempt: Attempt, at now: Duration) -> Bool {
        guard let job = jobs[attempt.job], job.shards[attempt.shard].leases.count == 1,
            let lease = job.shards[attempt.shard].leases.first, let expected = job.expectedDuration(of: attempt.shard)
        else { return false }
        return now - lease.since > max(policy.stragglerFloor, expected * policy.stragglerFactor)
    }
}
