import Core
import HeapModule
import Protocol

extension Scheduler {
    mutating func failed(_ attempt: Attempt, by worker: WorkerID, _ error: TesseraError, at now: Duration) -> [Action] {
        guard holdsLease(worker, attempt) else { return [.stale(worker, attempt)] }
        release(attempt, from: worker)
        guard error.code.isTransient else { return fail(attempt.job, error) }
        return retry(attempt, after: error, host: workers[worker]?.host, at: now)
    }

    /// Puts the shard back with a pause, or gives its job up.
    mutating func retry(_ attempt: Attempt, after error: TesseraError, host: String?, at now: Duration) -> [Action] {
        guard var shard = jobs[attempt.job]?.shards[attempt.shard] else { return [] }
        shard.state = .open
        shard.failures += 1
        if let host { shard.failedHosts.insert(host) }
        shard.notBefore = now + min(policy.longestBackoff, policy.firstBackoff * (1 << min(shard.failures - 1, 16)))
        jobs[attempt.job]?.shards[attempt.shard] = shard
        guard shard.failedHosts.count < policy.hostLimit, shard.failures < policy.failureLimit else {
            return fail(attempt.job, error)
        }
        queue(attempt.job, attempt.shard, at: now)
        return []
    }

    /// The worker's connection is gone: its leases go back. A shard that goes with worker after worker is taken for the cause.
    mutating func left(_ worker: WorkerID, isLoss: Bool, at now: Duration) -> [Action] {
        let attempts = leases(of: worker)
        var actions: [Action] = []
        for attempt in attempts { release(attempt, from: worker) }
        if let size = workers.removeValue(forKey: worker)?.size {
            sizes[size, default: 0] -= 1
            if sizes[size] == 0 { sizes[size] = nil }
        }
        free.remove(worker)
        for attempt in attempts {
            guard var shard = jobs[attempt.job]?.shards[attempt.shard] else { continue }
            if isLoss { shard.workerLosses += 1 }
            jobs[attempt.job]?.shards[attempt.shard] = shard
            guard shard.workerLosses < policy.workerLossLimit else {
                let error = TesseraError(
                    .temporary, "\(shard.workerLosses) workers were lost while they worked on \(shard.label)",
                    advice: "look for what ended them, such as a lack of memory, then submit the job again")
                actions += fail(attempt.job, error)
                continue
            }
            queue(attempt.job, attempt.shard, at: now)
        }
        return actions
    }

    /// Takes back the leases that nobody renewed. That counts as a failure of a shard that nobody else works on.
    mutating func expire(at now: Duration) -> [Action] {
        var actions: [Action] = []
        while let end = leaseEnds.min, end.at <= now {
            leaseEnds.removeMin()
            visitedShards += 1
            guard let lease = jobs[end.id]?.shards[end.shard].lease(epoch: end.epoch) else { continue }
            guard lease.ends <= now else {
                // Renewed meanwhile.
                leaseEnds.insert(
                    ShardTimer(at: lease.ends, number: end.number, id: end.id, shard: end.shard, epoch: end.epoch))
                continue
            }
            let attempt = attempt(end.id, shard: end.shard, epoch: end.epoch)
            release(attempt, from: lease.worker)
            actions.append(.revoke(lease.worker, attempt, reason: "the lease ran out"))
            guard let shard = jobs[end.id]?.shards[end.shard], shard.isPending else { continue }
            let error = TesseraError(
                .temporary, "nobody renewed the lease of \(shard.label) in time",
                advice: "look at the network between coordinator and workers, then submit the job again")
            actions += retry(attempt, after: error, host: workers[lease.worker]?.host, at: now)
        }
        return actions
    }

    private mutating func fail(_ job: JobID, _ error: TesseraError) -> [Action] {
        let revokes = end(job, reason: "the job failed")
        return revokes + [.jobFailed(job, error)]
    }
}
