import Core
import Protocol

/// Outputs and journals that cannot be written for a while, and outputs that are taken away.
extension ClusterState {
    private static let checkInterval = Duration.seconds(10)

    func canPause(_ error: TesseraError) -> Bool { pausesJobs && error.code == .io }

    /// The job's output or the journal cannot be written. That may pass, or the job ends.
    ///
    /// - Parameter losesResults: whether bytes that were written and are not committed may be lost.
    mutating func cannotWrite(
        _ id: JobID, _ error: TesseraError, losesResults: Bool = false, at now: Duration
    ) -> [Effect] {
        guard canPause(error) else { return abandon(id, error, at: now) }
        if jobs[id]?.isRunning == true { pause(id, error, losesResults: losesResults, at: now) }
        return takeEffects()
    }

    /// The parts of a job's next plan have no space, or the plan is not in the journal. A job that goes on begins with its plan.
    mutating func cannotPlan(_ id: JobID, _ error: TesseraError, at now: Duration) -> [Effect] {
        if canPause(error) { jobs[id]?.awaitsPlan = true }
        return cannotWrite(id, error, at: now)
    }

    /// A job of an earlier coordinator cannot be taken up for now. To be called after each try.
    ///
    /// - Parameters:
    ///   - status: what is known of it, with the error.
    ///   - since: when the first try failed.
    mutating func delay(_ status: JobStatus, key: JobKey, since: Duration, at now: Duration) -> [Effect] {
        let isPaused = jobs[status.id]?.state == .paused
        jobs.add(delayed: status, key: key, since: since, at: now)
        if !isPaused, let error = status.error { happened(.paused(status.id, error.bounded), at: now) }
        return takeEffects()
    }

    mutating func pause(_ id: JobID, _ error: TesseraError, losesResults: Bool = false, at now: Duration) {
        if paused.insert(id).inserted, let next = jobs[id]?.nextProbe(after: now) {
            jobs[id]?.pause = JobPause(error: error.bounded, since: now, nextProbe: next)
            happened(.paused(id, error.bounded), at: now)
        }
        feed(.jobPaused(id, losesResults: losesResults), at: now)
    }

    /// Output and journal were tried.
    ///
    /// - Parameter error: why they cannot be written; `nil` when they can.
    mutating func probed(_ id: JobID, error: TesseraError?, at now: Duration) -> [Effect] {
        guard let record = jobs[id], record.isRunning || record.isPublishing else { return [] }
        if let error {
            guard canPause(error) else { return interrupt(id, as: .failed, error, at: now) }
            pause(id, error, at: now)
            // A probe that fails in the same way has nothing to add: people look for the file that could not be written.
            if jobs[id]?.pause?.error.problem != error.bounded.problem { jobs[id]?.pause?.error = error.bounded }
            guard record.pause != nil, let next = jobs[id]?.nextProbe(after: now) else { return takeEffects() }
            jobs[id]?.pause?.nextProbe = next
            jobs[id]?.pause?.isProbing = false
        } else if paused.remove(id) != nil {
            jobs[id]?.pause = nil
            happened(.resumed(id), at: now)
            if record.isPublishing { effects.append(.start(.publish(id))) }
            if record.awaitsPlan {
                jobs[id]?.awaitsPlan = false
                effects.append(.start(.plan(id)))
            }
            feed(.jobResumed(id), at: now)
        }
        return takeEffects()
    }

    /// An unfinished output that others removed or replaced is noticed soon, and not after all is computed.
    mutating func checkOutputs(at now: Duration) {
        guard now >= nextCheck else { return }
        nextCheck = now + Self.checkInterval
        for id in jobs.active.sorted(by: { ($0.high, $0.low) < ($1.high, $1.low) })
        where jobs[id]?.isRunning == true && !paused.contains(id) && checking.insert(id).inserted {
            effects.append(.start(.check(id)))
        }
    }

    /// - Parameter error: what is wrong with the unfinished output.
    mutating func checked(_ id: JobID, error: TesseraError?, at now: Duration) -> [Effect] {
        checking.remove(id)
        guard let error else { return [] }
        return cannotWrite(id, error, at: now)
    }

    mutating func probePaused(at now: Duration) {
        for id in paused.sorted(by: { ($0.high, $0.low) < ($1.high, $1.low) }) {
            guard let pause = jobs[id]?.pause, !pause.isProbing, pause.nextProbe <= now else { continue }
            jobs[id]?.pause?.isProbing = true
            effects.append(.start(.probe(id)))
        }
    }
}
