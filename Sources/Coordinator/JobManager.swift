import Checkpoints
package import Core
package import Journal
package import Logging
import Planning
package import Protocol
import Synchronization

/// The coordinator's jobs and workers, for connections and commands: passes what happens to `ClusterState` and does what is left
/// to do.
///
/// It owns no socket: connections, or the worker of `tessera run`, attach themselves with a closure that takes messages. Nothing
/// here waits for a disk or encodes a message; all that takes time is a step on a pool of its own.
package actor JobManager {
    package typealias WorkerID = Scheduler.WorkerID

    let settings: Settings
    let log: Logger
    let time: TimeSource
    let journal: any JobJournal
    let planner: JobPlanner
    /// Threads for what blocks, also for the connections.
    package nonisolated let pools: BlockingPools
    /// Where tasks run that must outlive the one that starts them; `nil` for the threads that all tasks share.
    nonisolated let executor: (any TaskExecutor)?
    /// Of both ports.
    nonisolated let refusals: RefusalLog
    /// What happens to jobs and workers.
    package nonisolated let events = JobEventStream()
    var state: ClusterState
    /// Results that wait until the ones before them are committed.
    var waitingCommits: [CommitRecord] = []
    var isCommitting = false
    /// Results of paused jobs that are not durable because this host's disks fail.
    var heldCommits: [JobID: [CommitRecord]] = [:]
    var journalCounters = JournalCounters()
    /// To the job port.
    nonisolated let connections = Mutex(0)
    /// `nil` before it is open, and for a coordinator without one.
    nonisolated let jobPort = Mutex<JobPort?>(nil)
    /// Jobs of an earlier process that cannot be taken up yet, and when that is tried again.
    var delayedJobs: [JobID: DelayedJob] = [:]
    /// Jobs whose output is being begun, by their keys.
    var beginning: [JobKey: (output: String, task: Task<Submitted, any Error>)] = [:]
    /// Submissions that are being planned, by their owners.
    private var submissions: [String: Int] = [:]
    private var planningTurns = FairTurns<CheckedContinuation<Void, Never>>(slots: BlockingPools.planningThreads)
    private var waiters = JobWaiters()
    private var isDraining = false
    private let (steps, stepInput) = AsyncStream<ClusterState.Step>.makeStream()
    private let newID: @Sendable () -> JobID

    /// How often leases are checked for their end.
    private static let tickInterval = Duration.milliseconds(250)

    /// - Parameters:
    ///   - executor: where all of the caller's tasks run, if not on the threads that all tasks share.
    ///   - newID: names jobs, never twice the same.
    package init(
        settings: Settings, log: Logger, time: TimeSource = .system, outputs: (any OutputStore)? = nil,
        journal: any JobJournal = NoJournal(), pools: BlockingPools = BlockingPools(),
        executor: (any TaskExecutor)? = nil, newID: @escaping @Sendable () -> JobID = JobID.random
    ) {
        self.pools = pools
        self.executor = executor
        self.newID = newID
        self.settings = settings
        self.log = log
        self.time = time
        self.journal = journal
        refusals = RefusalLog(log: log, time: time)
        planner = JobPlanner(
            settings: settings,
            outputs: outputs ?? LocalOutputStore(root: settings.outputRoot, ownFiles: Manifest.files(ofOutput:)),
            journal: journal, time: time)
        state = ClusterState(
            policy: settings.policy, incarnation: settings.incarnation, machine: kernelIdentity(),
            pausesJobs: settings.pausesJobs)
    }

    /// Keeps time and takes the steps of jobs, until cancelled. Then nothing of unfinished jobs stays, unless the journal keeps
    /// them.
    ///
    /// - Parameter onTick: called some times a second, as long as jobs and workers are looked after.
    package func run(onTick: @escaping @Sendable (ClusterSummary) -> Void = { _ in }) async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.keepTime(onTick) }
            group.addTask { await self.resumeDelayedJobs() }
            for await step in steps { group.addTask { await self.take(step) } }
            group.cancelAll()
        }
        isDraining = true
        guard !journal.keepsJobs else {
            if !state.jobs.active.isEmpty {
                log.notice(
                    "unfinished jobs are kept for the next start", metadata: ["jobs": .stringConvertible(state.jobs.active.count)]
                )
            }
            return
        }
        await interrupt()
    }

    /// Ends all jobs at once and removes what they have made.
    package func interrupt() async {
        let error = TesseraError(.cancelled, "the coordinator was interrupted")
        for id in state.jobs.active {
            perform(state.interrupt(id, as: .cancelled, error, at: time.now()))
            await remove(id)
        }
    }

    private func keepTime(_ onTick: @Sendable (ClusterSummary) -> Void) async {
        var before = time.now()
        while (try? await time.sleep(Self.tickInterval)) != nil {
            let now = time.now(), late = now - before - Self.tickInterval
            if late > Limits.standstill {
                log.warning(
                    "this process stood still, nobody is blamed for that",
                    metadata: ["seconds": .stringConvertible(Int(late.seconds))])
                state.stoodStill(for: late, at: now)
            }
            before = now
            perform(state.tick(at: now))
            onTick(state.summary(takesJobs: takesJobs))
        }
    }

    func perform(_ effects: [ClusterState.Effect]) {
        for effect in effects {
            switch effect {
            case .send(let message, let send): send(message)
            case .start(let step): stepInput.yield(step)
            case .happened(let event):
                log.note(event)
                events.send(event)
                if case .ended(let id, _, _) = event {
                    waiters.ended(id)
                    heldCommits[id] = nil
                }
            }
        }
    }

    // MARK: Steps

    private func take(_ step: ClusterState.Step) async {
        switch step {
        case .commit(let record): await commit(record)
        case .plan(let id): await continueJob(id)
        case .publish(let id): await publish(id)
        case .probe(let id): await probe(id)
        case .check(let id): await check(id)
        case .remove(let id): await remove(id)
        }
    }

    func failure(of body: () async throws -> Void) async -> TesseraError? {
        do { try await body() } catch { return TesseraError(wrapping: error) }
        return nil
    }

    private func continueJob(_ id: JobID) async {
        guard let record = state.jobs[id], let job = record.job else { return }
        do {
            let planner = planner, owner = record.key.owner
            guard let stages = try await planning(of: owner, { try planner.next(after: job, id: id) }) else { return }
            perform(state.extend(id, with: stages, at: time.now()))
        } catch {
            perform(state.cannotPlan(id, TesseraError(wrapping: error), at: time.now()))
        }
    }

    private func publish(_ id: JobID) async {
        guard let record = state.jobs[id], let job = record.job else { return }
        let publisher = Publisher(output: job.output, settings: settings)
        let name = FilePath.components(of: record.output).last ?? record.output
        let report = job.report(of: record, seconds: (time.now() - record.startedAt).seconds)
        var error = await failure {
            try await pools.publishing.run { try publisher.write(job, named: name, report: report) }
        }
        // Without a journal this is the first time that the parts are made durable.
        let mayRepeat = error != nil || journal.keepsJobs
        if error == nil { error = await failure { try await pools.publishing.run { try job.output.commit() } } }
        if error == nil, var status = record.status(at: time.now()) {
            status.state = .done
            await keep(status)
        }
        perform(state.published(id, error: error, mayRepeat: mayRepeat, at: time.now()))
    }

    func remove(_ id: JobID) async {
        guard let record = state.jobs[id] else { return }
        guard let output = record.job?.output else { return await discardDelayed(record) }
        guard !isKept(record) else { return perform(state.removed(id, at: time.now())) }
        // First, so that no later coordinator goes on with a job that has been given up.
        if let status = record.status(at: time.now(), isFinal: true), status.state.isEnd { await keep(status) }
        try? await pools.publishing.run { output.abort() }
        perform(state.removed(id, at: time.now()))
    }

    /// Whether the job's work stays although it has failed: it is of use to a process that goes on with it.
    private func isKept(_ record: JobRecord) -> Bool {
        guard journal.keepsJobs, case .ending(.failed, let error?) = record.phase else { return false }
        return settings.keepsJob(error) && record.progress.shards.committed > 0
    }

    // MARK: Jobs

    /// Plans the job and queues its shards. A job of the same owner that is there already is not made twice: see
    /// `Submit.idempotencyKey`.
    ///
    /// - Parameters:
    ///   - peer: its `owner` becomes the job's.
    ///   - isWanted: whether somebody still waits for the plan, which is given up otherwise.
    /// - Throws: `Problems` with everything that is wrong with the recipe and its inputs, or `TesseraError` for the output.
    package func submit(
        _ submission: Submit, by peer: PeerIdentity, isWanted: @escaping @Sendable () -> Bool = { true }
    ) async throws -> Submitted {
        guard !isDraining else { throw Self.shuttingDown }
        return try await submit(try await plan(submission, owner: peer.owner, isWanted: isWanted), by: peer)
    }

    package func submit(_ planned: PlannedJob, by peer: PeerIdentity) async throws -> Submitted {
        while let other = beginning[planned.key] {
            if case .success(let submitted) = await other.task.result { return submitted }
        }
        if let same = await sameJob(planned, of: peer) {
            let shards = same.status(at: time.now())?.shards ?? same.progress.shards
            let remark =
                same.hasEnded
                ? "this output was made by the job \(same.id)"
                : "goes on as the job \(same.id), which has \(shards.committed) of \(shards.total) shards"
            let plan = planned.stages.plan
            return Submitted(job: same.id, remarks: plan.remarks + [remark], warnings: plan.warnings)
        }
        try checkOutput(of: planned)
        try checkJobs(of: peer.owner)
        // A task of its own, so that a second submission can wait for it.
        let task = Task(executorPreference: executor) { try await self.begin(planned) }
        beginning[planned.key] = (planned.output, task)
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    /// - Throws: as `submit`. Nothing is created.
    package func plan(
        _ submission: Submit, owner: String, isWanted: @escaping @Sendable () -> Bool = { true }
    ) async throws -> PlannedJob {
        let all = submissions.values.reduce(0, +), own = submissions[owner, default: 0]
        guard all < settings.limits.submissions, own < settings.limits.submissionsOfOwner else {
            throw TesseraError(
                .temporary, "\(own) submissions of '\(owner)' and \(all) in all are being planned, as many as may be at once",
                advice: "submit the job again when some have been planned")
        }
        submissions[owner] = own + 1
        defer {
            let left = submissions[owner, default: 1] - 1
            submissions[owner] = left > 0 ? left : nil
        }
        let planner = planner, isEnding = Atomic(false)
        return try await withTaskCancellationHandler {
            try await planning(of: owner) {
                try planner.plan(submission, owner: owner) { isWanted() && !isEnding.load(ordering: .relaxed) }
            }
        } onCancel: {
            isEnding.store(true, ordering: .relaxed)
        }
    }

    /// Runs `body` on one of the threads that plan, when it is the owner's turn.
    private func planning<Result: Sendable>(
        of owner: String, _ body: @escaping @Sendable () throws -> Result
    ) async throws -> Result {
        await withCheckedContinuation { waiting in
            for next in planningTurns.ask(waiting, of: owner) { next.resume() }
        }
        defer { for next in planningTurns.end(of: owner) { next.resume() } }
        return try await pools.planning.run(body)
    }

    private func begin(_ planned: PlannedJob) async throws -> Submitted {
        defer { beginning[planned.key] = nil }
        let id = newID(), planner = planner, journal = journal, submittedAt = time.wallClock()
        let journaled = JournaledJob(
            id: id, key: planned.key.text, owner: planned.key.owner, submission: planned.submission, output: planned.output,
            submittedAt: submittedAt)
        do {
            let job = try await planning(of: planned.key.owner) {
                try journal.add(journaled)
                return try planner.begin(planned, id: id)
            }
            guard !isDraining, !Task.isCancelled else {
                try await pools.publishing.run { job.output.abort() }
                try Task.checkCancellation()
                throw Self.shuttingDown
            }
            perform(
                state.add(
                    id, job, key: planned.key, output: planned.output, stages: planned.stages, submittedAt: submittedAt,
                    at: time.now()))
            return Submitted(job: id, remarks: planned.stages.plan.remarks, warnings: planned.stages.plan.warnings)
        } catch {
            try? await pools.journal.run { try journal.remove(id) }
            throw error
        }
    }

    /// The job that the submission asks for, if it is there already.
    private func sameJob(_ planned: PlannedJob, of peer: PeerIdentity) async -> JobRecord? {
        guard let record = state.jobs.last(withKey: planned.key, of: peer) else { return nil }
        if record.isRunning || record.isPublishing { return record }
        guard record.state == .done else { return nil }
        if planned.submission.idempotencyKey != nil { return record }
        // Without a key of its own, a finished job is meant only where its output is still there and is not to be replaced.
        guard !planned.submission.options.overwrite else { return nil }
        let planner = planner, id = record.id
        let isThere = try? await planning(of: planned.key.owner) { planner.isPublished(id, output: planned.output) }
        return isThere == true ? record : nil
    }

    private static let shuttingDown = TesseraError(.temporary, "the coordinator is shutting down and takes no more jobs")

    /// The job's output cannot be written: it is paused, or ends.
    ///
    /// - Parameter losesResults: whether bytes that were written and are not committed may be lost.
    func cannotWrite(_ id: JobID, error: TesseraError, losesResults: Bool = false) {
        perform(state.cannotWrite(id, error, losesResults: losesResults, at: time.now()))
    }

    /// Ends a running job that cannot go on.
    package func abandon(_ id: JobID, error: TesseraError) { perform(state.abandon(id, error, at: time.now())) }

    /// Takes no more jobs; returns when those that are there have ended.
    func drain() async {
        isDraining = true
        log.notice("no more jobs are taken", metadata: ["jobs": .stringConvertible(state.jobs.active.count)])
        while !Task.isCancelled, let id = state.jobs.active.first { _ = await end(of: id) }
    }

    var takesJobs: Bool { !isDraining }

    /// The job's state once it has ended, however it ended, or as it is when the waiting is cancelled.
    package func end(of id: JobID) async -> JobStatus? {
        if state.jobs[id]?.hasEnded == false {
            let number = waiters.number()
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    if Task.isCancelled { return continuation.resume() }
                    waiters.add(continuation, number: number, for: id)
                }
            } onCancel: {
                Task { await self.stopWaiting(number, for: id) }
            }
        }
        return state.jobs[id]?.status(at: time.now())
    }

    private func stopWaiting(_ number: Int, for id: JobID) { waiters.stop(number, for: id) }
}
