import Protocol

/// Signs of life.
extension Scheduler {
    /// A heartbeat renews the leases that it names.
    mutating func renew(_ progress: [LeaseProgress], of id: WorkerID, waiting: Set<Attempt>, at now: Duration) {
        heard(id)
        let end = now + policy.lease + policy.margin
        var unnamed = workers[id]?.leases ?? []
        for entry in progress where unnamed.remove(entry.attempt) != nil {
            change(entry.attempt) { lease in
                lease.ends = end
                lease.unnamedBeats = 0
                guard entry.bytesDone > lease.bytesDone || waiting.contains(entry.attempt) else { return }
                lease.bytesDone = max(lease.bytesDone, entry.bytesDone)
                lease.progressAt = now
            }
        }
        for attempt in unnamed { change(attempt) { $0.unnamedBeats += 1 } }
    }

    /// Bytes of the worker arrive, if only of a large message: it has what heartbeats would name, had they room.
    mutating func heard(_ id: WorkerID, at now: Duration) {
        heard(id)
        let end = now + policy.lease + policy.margin
        for attempt in workers[id]?.leases ?? [] {
            change(attempt) { if !$0.isForgotten { $0.ends = end } }
        }
    }

    private mutating func heard(_ id: WorkerID) {
        guard workers[id]?.isSilent == true else { return }
        workers[id]?.isSilent = false
        updateFree(id)
    }

    /// Nobody can be blamed for the time in which this process did not run.
    mutating func stoodStill(for pause: Duration, at now: Duration) {
        let end = now + policy.lease + policy.margin
        for attempt in workers.values.flatMap(\.leases) {
            change(attempt) { lease in
                lease.ends = max(lease.ends, end)
                lease.since += pause
                lease.progressAt += pause
            }
        }
    }

    private mutating func change(_ attempt: Attempt, _ body: (inout SchedulerLease) -> Void) {
        jobs[attempt.job]?.shards[attempt.shard].changeLease(epoch: attempt.epoch, body)
    }
}
