import Core
import Operators
import Protocol

/// All jobs and workers of a coordinator, and who works on what.
///
/// A value: events go in with the moment they happened at, and effects come out. It feeds the scheduler, carries out its
/// decisions in the registries, and says what is left to do outside.
struct ClusterState {
    enum Effect {
        /// Hand the message to the worker's connection.
        case send(Message, to: @Sendable (Message) -> Void)
        /// Something happened; registries and counters know already.
        case happened(JobEvent)
        /// Do it where it may take time, and say how it went.
        case start(Step)
    }

    /// What takes time. Each step ends with a call of `ClusterState`.
    enum Step: Sendable {
        /// Ends with `committed`.
        case commit(CommitRecord)
        /// Make the next plan; ends with `extend` or `abandon`.
        case plan(JobID)
        /// Ends with `published`.
        case publish(JobID)
        /// Try whether output and journal can be written; ends with `probed`.
        case probe(JobID)
        /// See whether the unfinished output is still there; ends with `checked`.
        case check(JobID)
        /// Remove the unfinished output; ends with `removed`.
        case remove(JobID)
    }

    private(set) var scheduler: Scheduler
    var jobs: JobRegistry
    var workers = WorkerRegistry()
    private(set) var counters = ClusterCounters()
    /// `kernelIdentity` of the coordinator's machine.
    private let machine: String?
    /// Whether jobs wait for disks that cannot be written, or fail.
    let pausesJobs: Bool
    /// Jobs that are paused.
    var paused: Set<JobID> = []
    /// Jobs whose output is being checked, and when all are checked again.
    var checking: Set<JobID> = []
    var nextCheck = Duration.zero
    var effects: [Effect] = []

    init(
        policy: SchedulerPolicy = SchedulerPolicy(), incarnation: UInt32 = 0, limits: JobRegistry.Limits = JobRegistry.Limits(),
        machine: String? = nil, pausesJobs: Bool = true
    ) {
        self.pausesJobs = pausesJobs
        scheduler = Scheduler(policy: policy, incarnation: incarnation)
        jobs = JobRegistry(limits: limits)
        self.machine = machine
    }

    mutating func takeEffects() -> [Effect] {
        defer { effects = [] }
        return effects
    }

    mutating func happened(_ event: JobEvent, at now: Duration) {
        jobs.apply(event, at: now)
        workers.apply(event, at: now)
        counters.apply(event, at: now)
        effects.append(.happened(event))
    }

    // MARK: Jobs

    mutating func add(
        _ id: JobID, _ job: Job, key: JobKey, output: String, stages: PlannedStages, submittedAt: Double, at now: Duration
    ) -> [Effect] {
        resume(
            id, ResumedJob(job: job, plans: [stages], kept: []), key: key, output: output, submittedAt: submittedAt,
            startedAt: now, at: now)
    }

    /// Goes on with a job where an earlier coordinator stopped.
    ///
    /// - Parameter startedAt: when it was submitted, on this coordinator's clock.
    mutating func resume(
        _ id: JobID, _ resumed: ResumedJob, key: JobKey, output: String, submittedAt: Double, startedAt: Duration,
        at now: Duration
    ) -> [Effect] {
        let wasPaused = jobs[id]?.state == .paused
        jobs.add(id, key: key, output: output, job: resumed.job, startedAt: startedAt, submittedAt: submittedAt)
        happened(.added(id, output: output, owner: key.owner), at: now)
        for stages in resumed.plans { happened(.planned(id, stages.summary), at: now) }
        if !resumed.kept.isEmpty { happened(.kept(id, resumed.kept), at: now) }
        if wasPaused { happened(.resumed(id), at: now) }
        feed(
            .jobAdded(
                id, stages: resumed.plans.flatMap(\.costs), hasMoreStages: resumed.job.hasMoreStages,
                committed: Set(resumed.kept.map(\.shard))), at: now)
        return takeEffects()
    }

    /// Goes on with the next plan of a job, unless the job has ended meanwhile.
    mutating func extend(_ id: JobID, with stages: PlannedStages, at now: Duration) -> [Effect] {
        guard jobs[id]?.isRunning == true else { return [] }
        jobs[id]?.job?.take(stages)
        happened(.planned(id, stages.summary), at: now)
        feed(.stagesAdded(id, stages: stages.costs, hasMoreStages: jobs[id]?.job?.hasMoreStages ?? false), at: now)
        return takeEffects()
    }

    /// Ends a running job; one that is ending or has ended stays as it is.
    ///
    /// - Throws: `inputMissing` when there is no such job, `temporary` when its output is about to appear.
    mutating func cancel(_ id: JobID, reason: String, at now: Duration) throws(TesseraError) -> [Effect] {
        guard let record = jobs[id] else {
            throw TesseraError(.inputMissing, "the coordinator has no job \(id)", advice: "'tessera status' lists the jobs")
        }
        guard !record.isPublishing || record.pause != nil else {
            throw TesseraError(.temporary, "the job \(id) is finished but for its last step, and can no longer be cancelled")
        }
        return interrupt(id, as: .cancelled, TesseraError(.cancelled, reason), at: now)
    }

    /// Ends a running job that cannot go on.
    mutating func abandon(_ id: JobID, _ error: TesseraError, at now: Duration) -> [Effect] {
        guard jobs[id]?.isRunning == true else { return [] }
        return interrupt(id, as: .failed, error, at: now)
    }

    /// Ends a job in whatever phase it is.
    mutating func interrupt(_ id: JobID, as state: JobState, _ error: TesseraError, at now: Duration) -> [Effect] {
        feed(.jobCancelled(id), at: now)
        end(id, as: state, error)
        return takeEffects()
    }

    mutating func end(_ id: JobID, as state: JobState, _ error: TesseraError) {
        guard let record = jobs[id], record.isRunning || record.isPublishing else { return }
        paused.remove(id)
        jobs[id]?.pause = nil
        jobs[id]?.phase = .ending(state, error.bounded)
        effects.append(.start(.remove(id)))
    }

    /// The job's output has its name, or cannot be published.
    ///
    /// - Parameter mayRepeat: whether nothing is lost that only a worker can make again.
    mutating func published(_ id: JobID, error: TesseraError?, mayRepeat: Bool = false, at now: Duration) -> [Effect] {
        guard jobs[id]?.isPublishing == true else { return [] }
        if let error {
            if canPause(error), mayRepeat { pause(id, error, at: now) } else { end(id, as: .failed, error) }
        } else {
            jobs[id]?.phase = .ended(.done, nil, at: now)
            happened(.ended(id, .done, nil), at: now)
        }
        return takeEffects()
    }

    /// The job's unfinished output is gone.
    mutating func removed(_ id: JobID, at now: Duration) -> [Effect] {
        guard case .ending(let state, let error)? = jobs[id]?.phase else { return [] }
        jobs[id]?.phase = .ended(state, error, at: now)
        happened(.ended(id, state, error), at: now)
        return takeEffects()
    }

    // MARK: Workers

    mutating func attach(
        _ description: WorkerDescription, at now: Duration, send: @escaping @Sendable (Message) -> Void
    ) -> (id: Scheduler.WorkerID, effects: [Effect]) {
        let id = workers.add(description, at: now, send: send)
        happened(.workerJoined(workers.reference(to: id)), at: now)
        feed(
            .workerJoined(
                id, host: description.host, key: description.key, slots: description.threads, memory: description.tensorMemory),
            at: now)
        if workers.distrusted[description.host] != nil { feed(.workerDraining(id), at: now) }
        return (id, takeEffects())
    }

    mutating func drain(_ worker: Scheduler.WorkerID, at now: Duration) -> [Effect] {
        workers.drain(worker)
        feed(.workerDraining(worker), at: now)
        return takeEffects()
    }

    /// - Parameters:
    ///   - isLoss: whether the worker's process is taken to have ended, which may be the fault of its shards.
    ///   - isOrderly: whether the worker said goodbye.
    mutating func detach(
        _ worker: Scheduler.WorkerID, reason: String, isLoss: Bool, isOrderly: Bool, at now: Duration
    ) -> [Effect] {
        let reference = workers.reference(to: worker), leases = scheduler.leases(of: worker)
        guard let member = workers.remove(worker, at: now) else { return [] }
        for attempt in leases {
            revoked(attempt, reference, reason: "the worker left: \(reason)", isLost: !isOrderly, at: now)
        }
        if !isOrderly { workers.lost(member.description, because: reason, leases: leases.count, at: now) }
        happened(.workerLeft(reference, reason: reason, isOrderly: isOrderly), at: now)
        feed(.workerLeft(worker, isLoss: isLoss), at: now)
        return takeEffects()
    }

    private mutating func revoked(
        _ attempt: Attempt, _ worker: WorkerReference, reason: String, isLost: Bool = false, at now: Duration
    ) {
        jobs[attempt.job]?.job?.forget(attempt)
        happened(.revoked(attempt, worker, reason: reason, isLost: isLost), at: now)
    }

    // MARK: Attempts

    /// - Parameter waiting: leases that cannot get on because their blocks are not stored yet.
    mutating func heartbeat(
        _ worker: Scheduler.WorkerID, _ leases: [LeaseProgress], waiting: Set<Attempt> = [], at now: Duration
    ) -> [Effect] {
        workers.heard(worker, at: now)
        for entry in leases where scheduler.holdsLease(worker, entry.attempt) {
            happened(.progressed(entry.attempt, bytesDone: entry.bytesDone), at: now)
        }
        feed(.heartbeat(worker, leases, waiting: waiting), at: now)
        return takeEffects()
    }

    /// Bytes of the worker have arrived, or have not for long.
    mutating func heard(_ worker: Scheduler.WorkerID, isSilent: Bool, at now: Duration) -> [Effect] {
        if !isSilent { workers.heard(worker, at: now) }
        feed(isSilent ? .workerSilent(worker) : .workerHeard(worker), at: now)
        return takeEffects()
    }

    /// Where a block belongs, or `nil` when the attempt that it comes from is no longer wanted.
    mutating func target(
        of attempt: Attempt, from worker: Scheduler.WorkerID, tensor: Int, offset: Int, byteCount: Int
    ) throws(TesseraError) -> BlockTarget? {
        guard jobs[attempt.job]?.isRunning == true, scheduler.holdsLease(worker, attempt) else { return nil }
        return try jobs[attempt.job]?.job?.target(of: attempt, tensor: tensor, offset: offset, byteCount: byteCount)
    }

    mutating func stored(_ digests: [BlockPosition: Digest], of attempt: Attempt) {
        guard scheduler.isLeased(attempt) else { return }
        jobs[attempt.job]?.job?.stored(digests, of: attempt)
    }

    /// Bytes of what a worker says about its copies.
    private static let problemLimit = 1000

    mutating func finished(_ done: ShardDone, by worker: Scheduler.WorkerID, at now: Duration) -> [Effect] {
        let attempt = done.attempt
        guard scheduler.holdsLease(worker, attempt) else {
            happened(.stale(attempt, workers.reference(to: worker)), at: now)
            return takeEffects()
        }
        do throws(TesseraError) {
            try jobs[attempt.job]?.job?.report(done.result, of: attempt, delivery: done.delivery ?? .relayed)
            if let problem = done.copyProblem?.shortened(to: Self.problemLimit), workers[worker]?.copyProblem?.text != problem {
                happened(.copyDiffers(attempt.job, workers.reference(to: worker), problem: problem), at: now)
            }
            feed(.shardFinished(worker, attempt), at: now)
            return takeEffects()
        } catch {
            return failed(attempt, by: worker, error, at: now)
        }
    }

    mutating func failed(
        _ attempt: Attempt, by worker: Scheduler.WorkerID, _ error: TesseraError, at now: Duration
    ) -> [Effect] {
        if scheduler.holdsLease(worker, attempt) {
            failed(attempt, workers.reference(to: worker), error, at: now)
            // The worker could not write the output. Where the coordinator cannot either, it is not the worker's fault.
            if canPause(error), let place = jobs[attempt.job]?.job?.output.location, let file = error.file,
                FilePath.components(of: file).contains(FilePath.components(of: place.directory).last ?? "")
            {
                effects.append(.start(.probe(attempt.job)))
            }
        }
        feed(.shardFailed(worker, attempt, error), at: now)
        return takeEffects()
    }

    private mutating func failed(_ attempt: Attempt, _ worker: WorkerReference, _ error: TesseraError, at now: Duration) {
        jobs[attempt.job]?.job?.forget(attempt)
        happened(.failed(attempt, worker, error.bounded), at: now)
    }

    /// The answer to the step `commit`. It counts for nothing when the job has ended meanwhile.
    ///
    /// - Parameter error: what is wrong with the result, which is its worker's fault.
    mutating func committed(_ record: CommitRecord, error: TesseraError?, at now: Duration) -> [Effect] {
        let attempt = record.attempt
        guard scheduler.isCommitting(attempt) else { return [] }
        if let error {
            failed(attempt, record.worker, error, at: now)
            feed(.commitFailed(attempt, error, by: record.worker.id), at: now)
        } else {
            let bytes = jobs[attempt.job]?.job?.commit(record, host: workers[record.worker.id]?.description.host) ?? 0
            happened(.committed(attempt, record.worker, byteCount: bytes, record.delivery), at: now)
            feed(.shardCommitted(attempt), at: now)
        }
        return takeEffects()
    }

    mutating func tick(at now: Duration) -> [Effect] {
        probePaused(at: now)
        checkOutputs(at: now)
        feed(.tick, at: now)
        return takeEffects()
    }

    /// The process did not run for so long.
    mutating func stoodStill(for pause: Duration, at now: Duration) { feed(.stoodStill(pause), at: now) }

    // MARK: Scheduling

    mutating func feed(_ event: Scheduler.Event, at now: Duration) {
        for action in scheduler.handle(event, at: now) { perform(action, at: now) }
    }

    private mutating func perform(_ action: Scheduler.Action, at now: Duration) {
        switch action {
        case .lease(let worker, let attempt, let lasting):
            guard let send = workers[worker]?.send, let work = jobs[attempt.job]?.job?.work(attempt.shard) else { return }
            let lease = Lease(
                attempt: attempt, milliseconds: Int(lasting / .milliseconds(1)), work: work,
                output: jobs[attempt.job]?.job?.place(attempt.shard, machine: machine))
            happened(.leased(attempt, workers.reference(to: worker)), at: now)
            effects.append(.send(.lease(lease), to: send))
        case .revoke(let worker, let attempt, let reason):
            revoked(attempt, workers.reference(to: worker), reason: reason, at: now)
            guard let send = workers[worker]?.send else { return }
            effects.append(.send(.revoke(Revoke(attempt: attempt, reason: reason)), to: send))
        case .giveUp(let worker, let attempt, let error):
            failed(attempt, workers.reference(to: worker), error, at: now)
            guard let send = workers[worker]?.send else { return }
            effects.append(.send(.revoke(Revoke(attempt: attempt, reason: error.problem)), to: send))
        case .stale(let worker, let attempt): happened(.stale(attempt, workers.reference(to: worker)), at: now)
        case .commit(let worker, let attempt):
            let time = jobs[attempt.job]?.progress.time(of: attempt, at: now)
            happened(.reported(attempt, workers.reference(to: worker)), at: now)
            guard let record = jobs[attempt.job]?.job?.record(of: attempt, by: workers.reference(to: worker), time: time) else {
                let error = TesseraError(.temporary, "the result of shard \(attempt.shard) is not there")
                failed(attempt, workers.reference(to: worker), error, at: now)
                return feed(.commitFailed(attempt, error, by: nil), at: now)
            }
            effects.append(.start(.commit(record)))
        case .jobContinues(let id): goOn(id, at: now)
        case .jobFinished(let id):
            jobs[id]?.phase = .publishing
            effects.append(.start(.publish(id)))
        case .jobFailed(let id, var error):
            if let names = jobs[id]?.progress.whoFailed { error.problem += "; \(names)" }
            end(id, as: .failed, error)
        }
    }
}
