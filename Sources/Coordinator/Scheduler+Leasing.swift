import Protocol

extension Scheduler {
    /// Gives free slots to waiting shards: jobs in order of submission, and what is left to shards that lag behind.
    mutating func assign(at now: Duration) -> [Action] {
        var actions: [Action] = []
        for id in order {
            guard hasFreeSlot else { return actions }
            for shard in jobs[id]?.pending(at: now) ?? [] {
                guard hasFreeSlot else { return actions }
                guard let worker = bestWorker(for: id, shard) else { continue }
                actions.append(lease(id, shard, to: worker, at: now))
            }
        }
        return actions + backUpStragglers(at: now)
    }

    private var hasFreeSlot: Bool { workers.values.contains { $0.freeSlots > 0 } }

    /// The worker with memory enough and the smallest share of its slots taken, on a host where the shard has not failed if there is one.
    private func bestWorker(for job: JobID, _ shard: Int, otherThan excluded: Set<WorkerID> = []) -> WorkerID? {
        guard let own = jobs[job]?.shards[shard] else { return nil }
        let failedHosts = own.failedHosts
        return workers.filter { $0.value.freeSlots > 0 && $0.value.holds(own.memory) && !excluded.contains($0.key) }.min {
            left, right in
            func rank(_ entry: (key: WorkerID, value: Worker)) -> (Int, Double, WorkerID) {
                let load = Double(entry.value.leases.count) / Double(max(1, entry.value.slots))
                return (failedHosts.contains(entry.value.host) ? 1 : 0, load, entry.key)
            }
            return rank(left) < rank(right)
        }?.key
    }

    private mutating func lease(_ job: JobID, _ shard: Int, to worker: WorkerID, at now: Duration) -> Action {
        let end = now + policy.lease + policy.margin
        let epoch = jobs[job]?.shards[shard].addLease(to: worker, since: now, until: end) ?? 0
        let attempt = attempt(job, shard: shard, epoch: epoch)
        workers[worker]?.leases.insert(attempt)
        return .lease(worker, attempt, lasting: policy.lease)
    }

    /// A second lease elsewhere for shards that take far longer than their size lets expect; the first result wins.
    private mutating func backUpStragglers(at now: Duration) -> [Action] {
        var actions: [Action] = []
        for id in order {
            guard hasFreeSlot, let job = jobs[id] else { break }
            for shard in job.shards.indices where job.shards[shard].leases.count == 1 {
                guard let expected = job.expectedDuration(of: shard), let lease = job.shards[shard].leases.first,
                    now - lease.since > max(policy.stragglerFloor, expected * policy.stragglerFactor),
                    let worker = bestWorker(for: id, shard, otherThan: [lease.worker])
                else { continue }
                actions.append(self.lease(id, shard, to: worker, at: now))
            }
        }
        return actions
    }
}
