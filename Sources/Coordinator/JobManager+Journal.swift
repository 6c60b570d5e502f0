package import Core
package import Journal
import Logging
package import Protocol

/// What outlives the coordinator: results are committed through the journal, and jobs are resumed from it.
extension JobManager {
    /// Results that become durable together at most. One that waits longer only makes the next turn larger.
    private static let commitLimit = 1000

    // MARK: Commits

    /// Makes a result count. Results that come while others are made durable wait and follow them in one turn.
    func commit(_ record: CommitRecord) async {
        waitingCommits.append(record)
        guard !isCommitting else { return }
        isCommitting = true
        defer { isCommitting = false }
        while !waitingCommits.isEmpty {
            let turn = Array(waitingCommits.prefix(Self.commitLimit))
            waitingCommits.removeFirst(turn.count)
            await commit(turn)
        }
    }

    private func commit(_ turn: [CommitRecord]) async {
        for record in await madeDurable(turn).durable { perform(state.committed(record, error: nil, at: time.now())) }
    }

    /// First the bytes are durable, then the journal says so, then the shards count. Without a journal they count at once, since
    /// their blocks are written: nobody goes on with the job after a crash.
    ///
    /// - Returns: the results that count now, and why those of which jobs do not. Their jobs are paused or have failed; what
    ///   became of the shards is no worker's fault, and results that wait for nothing but this host's disks are held.
    private func madeDurable(
        _ turn: [CommitRecord]
    ) async -> (durable: [CommitRecord], failures: [JobID: TesseraError]) {
        var failures: [JobID: TesseraError] = [:]
        let believed = await checked(turn, &failures)
        guard journal.keepsJobs else {
            let durable = await secured(believed, &failures) { output, parts in try output.check(parts) }
            return (durable, failures)
        }
        let durable = await secured(believed, &failures) { output, parts in try output.sync(parts) }
        let journal = journal, shards = durable.map(\.journaled)
        let begin = time.now()
        let error = await failure { try await pools.journal.run { try journal.commit(shards) } }
        journalCounters.note(seconds: (time.now() - begin).seconds, hasFailed: error != nil)
        guard let error else { return (durable, failures) }
        for record in durable { hold(record, because: error, &failures) }
        return ([], failures)
    }

    /// Keeps a result until its job goes on: the shard is not computed again for the sake of this host's disk.
    private func hold(_ record: CommitRecord, because error: TesseraError, _ failures: inout [JobID: TesseraError]) {
        let id = record.attempt.job
        if failures.updateValue(error, forKey: id) == nil { cannotWrite(id, error: error) }
        // A job that cannot be paused has failed.
        if state.jobs[id]?.pause != nil { heldCommits[id, default: []].append(record) }
    }

    /// Reads a block of each result back that a worker says it wrote itself.
    ///
    /// - Returns: the results that are believed; the attempts of the others have failed.
    private func checked(
        _ records: [CommitRecord], _ failures: inout [JobID: TesseraError]
    ) async -> [CommitRecord] {
        guard settings.checksDirectBlocks else { return records }
        let reading = pools.reading
        let findings = await withTaskGroup(of: (Int, Result<TesseraError?, any Error>).self) { group in
            for (index, record) in records.enumerated() {
                guard let sample = state.jobs[record.attempt.job]?.job?.sample(of: record) else { continue }
                group.addTask {
                    do { return (index, .success(try await reading.run { try sample.problem() })) } catch {
                        return (index, .failure(error))
                    }
                }
            }
            var findings: [Int: Result<TesseraError?, any Error>] = [:]
            for await (index, finding) in group { findings[index] = finding }
            return findings
        }
        var believed: [CommitRecord] = []
        for (index, record) in records.enumerated() {
            switch findings[index] {
            case .success(let problem?)?:
                perform(state.committed(record, error: problem, at: time.now()))
            case .failure(let error)? where TesseraError(wrapping: error).code == .io:
                hold(record, because: TesseraError(wrapping: error), &failures)
            // What else keeps the output from being read is found out by those who write it.
            case .failure?, .success(nil)?, nil: believed.append(record)
            }
        }
        return believed
    }

    /// - Parameter secure: called with the output of each job and the parts that the results lie in.
    /// - Returns: the results of those jobs for which `secure` succeeds; the other jobs are paused or have failed.
    private func secured(
        _ records: [CommitRecord], _ failures: inout [JobID: TesseraError],
        by secure: @escaping @Sendable (any OutputTransaction, Set<Int>) throws -> Void
    ) async -> [CommitRecord] {
        var durable: [CommitRecord] = []
        let groups = Dictionary(grouping: records, by: \.attempt.job)
        // In one order, so that a run of the simulator can be repeated.
        for (id, records) in groups.sorted(by: { ($0.key.high, $0.key.low) < ($1.key.high, $1.key.low) }) {
            // Of a job that has ended meanwhile, nothing counts any more, nor what was given up when an earlier turn failed.
            let records = records.filter { state.scheduler.isCommitting($0.attempt) }
            guard let output = state.jobs[id]?.job?.output, !records.isEmpty else { continue }
            let parts = records.reduce(into: Set<Int>()) { $0.formUnion($1.parts) }
            if let error = await failure(of: { try await pools.syncing.run { try secure(output, parts) } }) {
                failures[id] = error
                cannotWrite(id, error: error, losesResults: true)
            } else {
                durable += records
            }
        }
        return durable
    }

    /// Sees whether the job's unfinished output is still there.
    func check(_ id: JobID) async {
        var error: TesseraError?
        if let output = state.jobs[id]?.job?.output {
            error = await failure { try await pools.publishing.run { try output.check([]) } }
        }
        perform(state.checked(id, error: error, at: time.now()))
    }

    /// Tries whether the job's output and the journal can be written. What a paused job waits to write is the best probe: a disk
    /// that takes a small write and not these would have the job paused again at once.
    func probe(_ id: JobID) async {
        guard let output = state.jobs[id]?.job?.output else { return }
        let journal = journal
        var error = await failure {
            try await pools.publishing.run { try output.probe() }
            try await pools.journal.run { try journal.probe() }
        }
        var durable: [CommitRecord] = []
        if error == nil, let held = heldCommits.removeValue(forKey: id) {
            let outcome = await madeDurable(held)
            (durable, error) = (outcome.durable, outcome.failures[id])
        }
        perform(state.probed(id, error: error, at: time.now()))
        for record in durable { perform(state.committed(record, error: nil, at: time.now())) }
    }

    /// Keeps how a job ended.
    func keep(_ status: JobStatus) async {
        guard journal.keepsJobs else { return }
        let journal = journal
        if let error = await failure(of: { try await pools.journal.run { try journal.end(status) } }) {
            log.error("the journal does not know that the job has ended", metadata: ["job": "\(status.id)", "error": "\(error)"])
        }
    }

    // MARK: Restarts

    /// Lists what an earlier process left in the journal, and removes what is left of the outputs of ended jobs. `run` takes the
    /// unfinished jobs up. To be called once, before anybody asks for anything.
    ///
    /// - Parameter planned: the only one of the unfinished jobs that is listed, with what `planned` says about an earlier output;
    ///   `nil` for all.
    /// - Throws: when the journal cannot be read.
    package func list(only planned: PlannedJob? = nil) async throws {
        guard journal.keepsJobs else { return }
        let journal = journal, planner = planner
        let contents = try await pools.journal.run { try journal.load() }
        for ended in contents.ended {
            let status = ended.status
            let key = JobKey(ended.key, owner: status.owner ?? PeerIdentity.unknownOwner)
            state.jobs.add(ended: status, key: key, at: time.now())
            try? await pools.publishing.run { planner.discard(status.id, output: status.output) }
        }
        for var job in contents.jobs where planned?.isSame(as: job) != false {
            if let planned { job.submission.options.overwrite = planned.submission.options.overwrite }
            delayedJobs[job.id] = DelayedJob(job: job, error: nil, since: nil, wait: .milliseconds(500), nextTry: time.now())
            var status = job.status(as: .running, at: time.wallClock())
            status.blockedReason = "is planned again since the coordinator was restarted, and then goes on by itself"
            state.jobs.add(delayed: status, key: JobKey(job.key, owner: job.owner), at: time.now())
        }
    }

    /// Lists what an earlier process left in the journal, as `list`, and takes the unfinished jobs up.
    ///
    /// - Returns: what became of each job that had not ended.
    /// - Throws: when the journal cannot be read.
    @discardableResult
    package func resume(only planned: PlannedJob? = nil) async throws -> [Resumption] {
        try await list(only: planned)
        var resumptions: [Resumption] = []
        for (id, delayed) in jobsToTakeUp { resumptions.append(Resumption(job: id, error: await resume(delayed.job))) }
        return resumptions
    }

    /// Jobs that wait, in order of submission.
    private var jobsToTakeUp: [(key: JobID, value: DelayedJob)] {
        delayedJobs.sorted { ($0.value.job.submittedAt, $0.key.low) < ($1.value.job.submittedAt, $1.key.low) }
    }

    /// Takes up jobs of an earlier process: all at first, and those for which an input or a disk was not there once it is.
    func resumeDelayedJobs() async {
        repeat {
            for (id, delayed) in jobsToTakeUp where delayed.nextTry <= time.now() && state.jobs[id]?.isRunning == true {
                _ = await resume(delayed.job)
            }
        } while (try? await time.sleep(.seconds(1))) != nil
    }

    /// Removes what an earlier process left of a job that is not taken up.
    package func discard(_ job: JournaledJob) async throws {
        let journal = journal, planner = planner
        try await pools.publishing.run { planner.discard(job.id, output: job.output) }
        try await pools.journal.run { try journal.remove(job.id) }
    }

    /// Removes what is left of a job that was given up before it could be taken up.
    func discardDelayed(_ record: JobRecord) async {
        delayedJobs[record.id] = nil
        if let status = record.status(at: time.now(), isFinal: true), status.state.isEnd { await keep(status) }
        let planner = planner
        try? await pools.publishing.run { planner.discard(record.id, output: record.output) }
        perform(state.removed(record.id, at: time.now()))
    }

    /// - Returns: why the job cannot go on; `nil` when it does, or is done.
    private func resume(_ journaled: JournaledJob) async -> TesseraError? {
        let planner = planner, id = journaled.id, key = JobKey(journaled.key, owner: journaled.owner)
        do {
            let resumed = try await pools.planning.run { () -> ResumedJob? in
                if planner.isPublished(id, output: journaled.output) { return nil }
                return try planner.resume(journaled)
            }
            guard state.jobs[id]?.isRunning != false else {
                // Given up meanwhile.
                if let output = resumed?.job.output { try? await pools.publishing.run { output.abort() } }
                return nil
            }
            delayedJobs[id] = nil
            guard let resumed else {
                await end(journaled, as: .done, nil)
                return nil
            }
            let age = settings.countsPauses ? Duration.seconds(max(0, time.wallClock() - journaled.submittedAt)) : .zero
            perform(
                state.resume(
                    id, resumed, key: key, output: journaled.output, submittedAt: journaled.submittedAt,
                    startedAt: time.now() - age, at: time.now()))
            return nil
        } catch {
            let error = (error as? Problems)?.all.first ?? TesseraError(wrapping: error)
            guard state.jobs[id]?.isRunning != false else { return nil }
            // A path may be outside the roots for no other reason than that its file system is not mounted.
            let mayPass = error.code.isTransient || (error.code == .notAllowed && !journaled.plans.isEmpty)
            if mayPass, settings.pausesJobs {
                delay(journaled, error)
            } else {
                log.error("the job cannot go on", metadata: ["job": "\(id)", "error": "\(error)"])
                await end(journaled, as: .failed, error)
            }
            return error
        }
    }

    /// Tries again after a while, with all that is done: a file system may only not be mounted yet.
    private func delay(_ journaled: JournaledJob, _ error: TesseraError) {
        let id = journaled.id, wait = min(.seconds(60), (delayedJobs[id]?.wait ?? .milliseconds(500)) * 2)
        let since = delayedJobs[id]?.since ?? time.now(), known = delayedJobs[id]?.error
        delayedJobs[id] = DelayedJob(job: journaled, error: error, since: since, wait: wait, nextTry: time.now() + wait)
        var status = journaled.status(as: .paused, at: time.wallClock())
        status.error = error.ofJobThatMayGoOn
        status.blockedReason = "cannot be taken up; the coordinator tries again in \(Int(wait.seconds)) s and goes on by itself"
        if let known, known != error, let problem = status.error {
            log.warning("job is still paused", metadata: ["job": "\(id)", "error": "\(problem)"])
        }
        let key = JobKey(journaled.key, owner: journaled.owner)
        perform(state.delay(status, key: key, since: since, at: time.now()))
    }

    /// Ends a job that is not worked on any more. One that fails for a reason that may pass, such as a file system that is not
    /// mounted, stays in the journal with all that is done, for the next start; so does one whose submitter comes back.
    private func end(_ journaled: JournaledJob, as end: JobState, _ error: TesseraError?) async {
        var status = journaled.status(as: end, at: time.wallClock())
        status.error = error
        delayedJobs[journaled.id] = nil
        state.jobs.add(ended: status, key: JobKey(journaled.key, owner: journaled.owner), at: time.now())
        // Clients may wait for the job since before the restart.
        perform([.happened(.ended(journaled.id, end, error))])
        if let error, error.code.isTransient || settings.submittersComeBack && !journaled.shards.isEmpty { return }
        await keep(status)
        let planner = planner
        try? await pools.publishing.run { planner.discard(journaled.id, output: journaled.output) }
    }
}

/// A job of an earlier process that cannot be taken up yet.
struct DelayedJob: Sendable {
    let job: JournaledJob
    /// Why the last try failed; `nil` before the first one.
    let error: TesseraError?
    /// When the first try failed.
    let since: Duration?
    /// Since the last try.
    let wait: Duration
    let nextTry: Duration
}

/// What became of a job that an earlier process left.
package struct Resumption: Sendable {
    package let job: JobID
    /// Why it does not go on.
    package let error: TesseraError?
}

extension TesseraError {
    /// For a job that was planned before: its recipe is right, and what is missing may come back.
    fileprivate var ofJobThatMayGoOn: TesseraError {
        var error = self
        switch code {
        case .inputMissing:
            error.advice = "it was there when the job was planned: mount its file system or put it back, or cancel the job"
        case .notAllowed:
            error.advice =
                "it was found when the job was planned: mount its file system or put it back, "
                + "or " + (advice ?? "check the permissions") + ", or cancel the job"
        default: break
        }
        return error
    }
}

extension JournaledJob {
    /// What is known of the job without its plans.
    fileprivate func status(as state: JobState, at now: Double) -> JobStatus {
        let total = plans.reduce(0) { $0 + $1.shardCount }, committed = state == .done ? total : min(total, shards.count)
        let bytes = plans.reduce(0) { $0 + $1.bytesOutput }
        // The journal does not know the sizes of shards: as if all were alike, until the job is planned again.
        let share = total > 0 ? Double(committed) / Double(total) : 0
        return JobStatus(
            id: id, state: state, method: plans.last?.method ?? "unknown", output: output,
            plan: plans.last?.digest ?? .none,
            shards: .init(total: total, pending: total - committed, leased: 0, committed: committed),
            bytesDone: state == .done ? bytes : min(bytes, Int(Double(bytes) * share)), bytesTotal: bytes, bytesOutput: bytes,
            bytesInput: plans.last?.bytesInput ?? 0, attempts: committed, submittedAt: submittedAt,
            seconds: max(0, now - submittedAt), error: nil, shardDetails: nil, owner: owner, name: submission.options.name)
    }
}
