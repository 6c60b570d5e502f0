import Core
import Protocol

/// What two submissions of the same job have in common.
struct JobKey: Sendable, Hashable {
    let text: String
    /// Jobs of different owners are never the same.
    let owner: String

    init(_ text: String, owner: String) {
        self.text = text
        self.owner = owner
    }
}

/// Why and since when nothing is done for a job.
struct JobPause: Sendable {
    var error: TesseraError
    let since: Duration
    /// When it is tried whether the job can go on.
    var nextProbe: Duration
    var isProbing = false
}

/// A job in the coordinator's list, from its submission until it is let go.
struct JobRecord: Sendable {
    enum Phase: Sendable {
        case running
        case publishing
        /// Nothing more is done for the job; its unfinished output is being removed.
        case ending(JobState, TesseraError?)
        case ended(JobState, TesseraError?, at: Duration)
    }

    let id: JobID
    /// Jobs in order of submission have rising numbers.
    let number: Int
    let key: JobKey
    let output: String
    /// What the submitter calls the job.
    let name: String?
    let startedAt: Duration
    /// Seconds since 1970.
    let submittedAt: Double
    var phase = Phase.running
    /// In the phases `running` and `publishing`.
    var pause: JobPause?
    /// Whether the job's next plan has failed and is made again.
    var awaitsPlan = false
    /// How long the next pause lasts at least: longer each time, until a shard is committed.
    var nextWait = JobRecord.firstWait
    private static let firstWait = Duration.seconds(1), longestWait = Duration.seconds(60)
    /// Plan and results; `nil` once the job has ended.
    var job: Job?
    private(set) var progress: JobProgress
    /// The last plan.
    private(set) var plan: PlanSummary?
    private var bytesOutput = 0
    /// What is known of a job that an earlier coordinator worked on.
    private var journaled: JobStatus?
    /// Since when it cannot be taken up.
    private var delayedSince: Duration?

    init(
        id: JobID, number: Int, key: JobKey, output: String, job: Job?, name: String? = nil, startedAt: Duration,
        submittedAt: Double
    ) {
        self.id = id
        self.number = number
        self.key = key
        self.output = output
        self.name = name ?? job?.options.name
        self.job = job
        self.startedAt = startedAt
        self.submittedAt = submittedAt
        progress = JobProgress(startedAt: startedAt)
    }

    /// A job that has ended, as an earlier coordinator left it.
    init(ended status: JobStatus, number: Int, key: JobKey, at now: Duration) {
        self.init(
            id: status.id, number: number, key: key, output: status.output, job: nil, name: status.name, startedAt: now,
            submittedAt: status.submittedAt)
        phase = .ended(status.state, status.error, at: now)
        journaled = status
        journaled?.owner = key.owner
    }

    /// A job that waits to be taken up where an earlier coordinator stopped.
    ///
    /// - Parameter since: when that first failed; `nil` before the first try.
    init(delayed status: JobStatus, number: Int, key: JobKey, since: Duration?, at now: Duration) {
        self.init(ended: status, number: number, key: key, at: now)
        phase = .running
        delayedSince = since
    }

    /// What status messages call the phase. A job that is ending is still running for those who wait for its end.
    var state: JobState {
        switch phase {
        case .running where pause != nil || journaled?.state == .paused, .publishing where pause != nil: .paused
        case .running, .ending: .running
        case .publishing: .publishing
        case .ended(let state, _, _): state
        }
    }

    /// Whether an earlier coordinator began the job and this one has not planned it again yet.
    var awaitsTakeUp: Bool { isRunning && journaled != nil }
    var isRunning: Bool { if case .running = phase { true } else { false } }
    var isPublishing: Bool { if case .publishing = phase { true } else { false } }
    var hasEnded: Bool { if case .ended = phase { true } else { false } }

    mutating func apply(_ event: JobEvent, at now: Duration = .zero) {
        progress.apply(event, at: now)
        if case .committed = event { nextWait = Self.firstWait }
        guard case .planned(_, let plan) = event else { return }
        bytesOutput += plan.bytesOutput
        // The shards are in `progress`.
        self.plan = plan.without(description: false)
    }

    /// Rows of shards that are kept, with what else grows with the job, counted as so many rows.
    var rowCount: Int { progress.rowCount + (plan?.description?.size ?? 0) / 64 }

    /// - Returns: when to try whether the job can go on, doubled each time.
    mutating func nextProbe(after now: Duration) -> Duration {
        defer { nextWait = min(Self.longestWait, nextWait * 2) }
        return now + nextWait
    }

    /// Why recipe, plan and shards are not there, for people; `nil` where they are.
    var lack: String? {
        if journaled != nil {
            return hasEnded
                ? "recipe, plan and shards of jobs that have ended are not kept over a restart of the coordinator"
                : "the coordinator was restarted and has not planned the job again yet"
        }
        return hasEnded && plan?.description == nil
            ? "so many jobs have ended since that recipe, plan and shards of this one are not kept any more" : nil
    }

    mutating func dropRows() {
        progress.dropRows()
        plan = plan?.without(description: true)
    }

    /// Costs the same for every number of shards.
    ///
    /// - Parameter isFinal: whether a job that is ending is described as it will be when it has ended.
    func status(
        at now: Duration, blockedReason: String? = nil, shards: [ShardStatus]? = nil, isFinal: Bool = false
    ) -> JobStatus? {
        if var status = journaled {
            switch phase {
            case .ended(let state, let problem, _): status.end(as: state, problem)
            case .ending(let state, let problem) where isFinal: status.end(as: state, problem)
            case .running, .publishing, .ending: status.secondsPaused = delayedSince.map { (now - $0).seconds }
            }
            return status
        }
        guard let plan else { return nil }
        var error: TesseraError?, end = now, state = state, blockedReason = blockedReason
        switch phase {
        case .running, .publishing:
            guard let pause else { break }
            error = pause.error
            blockedReason = """
                paused for \(Int((now - pause.since).seconds)) s; the coordinator tries again in \
                \(Int(max(0, (pause.nextProbe - now).seconds).rounded(.up))) s and goes on by itself
                """
        case .ended(_, let problem, let moment): (error, end) = (problem, moment)
        case .ending(let final, let problem) where isFinal: (state, error) = (final, problem)
        case .ending: break
        }
        var status = JobStatus(
            id: id, state: state, method: plan.method, output: output, plan: plan.digest, shards: progress.shards,
            bytesDone: progress.bytesDone, bytesTotal: progress.bytesTotal, bytesOutput: bytesOutput, bytesInput: plan.bytesInput,
            attempts: progress.attempts, submittedAt: submittedAt, seconds: (end - startedAt).seconds, error: error,
            blockedReason: blockedReason, shardDetails: shards, owner: key.owner, name: name)
        status.secondsPaused = pause.map { (now - $0.since).seconds }
        // How long a job waited before a restart is not known: nothing adds up to the whole of its time.
        if isRunning || !progress.isResumed { status.secondsWaited = progress.secondsWaited(at: end) }
        if isRunning, pause == nil { status.bytesPerSecond = progress.bytesPerSecond(at: now) }
        return status
    }
}

extension JobStatus {
    fileprivate mutating func end(as state: JobState, _ error: TesseraError?) {
        (self.state, self.error, activity, blockedReason) = (state, error, nil, nil)
    }
}

extension PlanSummary {
    /// Without the shards, and if wanted without the description.
    fileprivate func without(description isDropped: Bool) -> PlanSummary {
        PlanSummary(
            method: method, digest: digest, bytesInput: bytesInput, bytesOutput: bytesOutput, shards: [],
            description: isDropped ? nil : description)
    }
}
