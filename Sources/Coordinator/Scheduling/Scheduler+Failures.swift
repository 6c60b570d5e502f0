import Core
import HeapModule
import Protocol

extension Scheduler {
    mutating func failed(_ attempt: Attempt, by worker: WorkerID, _ error: TesseraError, at now: Duration) -> [Action] {
        guard holdsLease(worker, attempt) else { return [.stale(worker, attempt)] }
        release(attempt, from: worker)
        return retry(attempt, after: error, by: worker, at: now)
    }

    /// Puts the shard back with a pause, or gives its job up: what one worker cannot do, another may.
    ///
    /// - Parameter worker: whose fault it is; `nil` when it is no worker's.
    mutating func retry(_ attempt: Attempt, after error: TesseraError, by worker: WorkerID?, at now: Duration) -> [Action] {
        guard var shard = jobs[attempt.job]?.shards[attempt.shard] else { return [] }
        if worker == nil, jobs[attempt.job]?.isPaused == true {
            // The reason of the pause, which counts against nobody.
            jobs[attempt.job]?.shards[attempt.shard].state = .open
            queue(attempt.job, attempt.shard, at: now)
            return []
        }
        var history = shard.history ?? FailureHistory()
        history.failed(error, by: worker.flatMap { workers[$0] })
        shard.history = history
        if shard.leases.isEmpty { shard.state = .open }
        if let worker { strike(worker, FailureCause(error).map { Blame(job: attempt.job, cause: $0) }, at: now) }
        let tried = ShardNeed(memory: shard.memory, avoids: Set(history.attempts.keys))
        let hasOthers = worker != nil && workers.values.contains { $0.couldDo(tried) }
        let pause = hasOthers ? policy.firstBackoff : policy.firstBackoff * (1 << min(history.count - 1, 16))
        shard.notBefore = now + min(policy.longestBackoff, pause)
        jobs[attempt.job]?.shards[attempt.shard] = shard
        guard !isHopeless(history, error, hasOthers: hasOthers) else {
            if let cause = history.commonCause { forgive(Blame(job: attempt.job, cause: cause)) }
            return fail(attempt.job, error)
        }
        queue(attempt.job, attempt.shard, at: now)
        return []
    }

    /// Whether no further attempt is worth its while.
    private func isHopeless(_ history: FailureHistory, _ error: TesseraError, hasOthers: Bool) -> Bool {
        let isEverywhere = history.hosts.count >= policy.hostLimit || history.count >= policy.failureLimit
        return switch FailureScope(error.code) {
        case .passing: !hasOthers && isEverywhere
        case .worker: !hasOthers
        case .job: !hasOthers || history.verdicts.count >= policy.verdictLimit
        }
    }

    /// A worker that fails again and again gets nothing for a while.
    private mutating func strike(_ worker: WorkerID, _ blame: Blame?, at now: Duration) {
        workers[worker]?.strikes += 1
        if let blame { workers[worker]?.blames[blame, default: 0] += 1 }
        guard let strikes = workers[worker]?.strikes, strikes >= policy.strikeLimit else { return }
        let rest = policy.firstRest * (1 << min(strikes - policy.strikeLimit, 16))
        workers[worker]?.restsUntil = now + min(policy.longestRest, rest)
        resting.insert(worker)
        updateFree(worker)
    }

    /// Takes the strikes back that workers have for what is nobody's fault, such as a damaged input that all of them read.
    private mutating func forgive(_ blame: Blame) {
        for id in workers.keys.sorted() {
            guard let count = workers[id]?.blames.removeValue(forKey: blame) else { continue }
            workers[id]?.strikes -= count
            if workers[id]?.strikes ?? 0 < policy.strikeLimit, resting.remove(id) != nil {
                workers[id]?.restsUntil = nil
                updateFree(id)
            }
        }
    }

    /// The worker's connection is gone: its leases go back. A shard that goes with worker after worker is taken for the cause,
    /// unless workers are lost without it as well; one process that comes back each time counts once.
    mutating func left(_ id: WorkerID, isLoss: Bool, at now: Duration) -> [Action] {
        let attempts = leases(of: id)
        var actions: [Action] = []
        if isLoss { losses += 1 }
        for attempt in attempts { release(attempt, from: id) }
        guard let worker = workers.removeValue(forKey: id) else { return [] }
        free.remove(id)
        resting.remove(id)
        // Shards that only this worker was left for may go to others again.
        canAssign = true
        for attempt in attempts {
            guard let shard = jobs[attempt.job]?.shards[attempt.shard] else { continue }
            var history = shard.history ?? FailureHistory()
            history.left(worker, isLoss: isLoss, number: losses)
            jobs[attempt.job]?.shards[attempt.shard].history = history
            let factor = 1 + history.lossesElsewhere(losses)
            guard history.lostHosts.count < factor * policy.hostLimit, history.lost.count < factor * policy.failureLimit else {
                let error = TesseraError(
                    .temporary, "\(history.lost.count) workers were lost while they worked on \(shard.label)",
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
            leaseCounts.expired += 1
            let attempt = attempt(end.id, shard: end.shard, epoch: end.epoch)
            guard jobs[end.id]?.shards[end.shard].leases.count == 1 else {
                release(attempt, from: lease.worker)
                actions.append(.revoke(lease.worker, attempt, reason: "the lease ran out"))
                continue
            }
            let label = jobs[end.id]?.shards[end.shard].label ?? ""
            actions += giveUp(
                attempt, of: lease.worker,
                TesseraError(
                    .temporary, "the lease ran out: nobody renewed the lease of \(label) in time",
                    advice: "look at the network between coordinator and workers, then submit the job again"), at: now)
        }
        return actions
    }

    /// Takes back leases of workers that are alive and get nowhere, such as one whose disk does not answer.
    mutating func giveUpStalled(at now: Duration) -> [Action] {
        guard now >= nextStallCheck else { return [] }
        nextStallCheck = now + .seconds(5)
        visitedShards += leaseCount
        let still = workers.values.flatMap(\.leases).filter { attempt in
            guard let lease = shard(of: attempt)?.lease(epoch: attempt.epoch) else { return false }
            return now - lease.progressAt > policy.stallFloor
        }
        var actions: [Action] = []
        for attempt in still.sorted() {
            guard let job = jobs[attempt.job], let lease = job.shards[attempt.shard].lease(epoch: attempt.epoch) else { continue }
            let pause = now - lease.progressAt
            guard pause > job.longestDuration(of: attempt.shard) * policy.stallFactor else { continue }
            leaseCounts.stalled += 1
            let error = TesseraError(
                .temporary, "\(job.shards[attempt.shard].label) made no progress for \(Int(pause.seconds)) s",
                advice: "look at the disks and mounts of that worker")
            actions += giveUp(attempt, of: lease.worker, error, at: now)
        }
        return actions
    }

    private mutating func giveUp(
        _ attempt: Attempt, of worker: WorkerID, _ error: TesseraError, at now: Duration
    ) -> [Action] {
        release(attempt, from: worker)
        return [.giveUp(worker, attempt, error)] + retry(attempt, after: error, by: worker, at: now)
    }

    private mutating func fail(_ job: JobID, _ error: TesseraError) -> [Action] {
        let revokes = end(job, reason: "the job failed")
        return revokes + [.jobFailed(job, error)]
    }
}
