package import Core

package enum JobState: String, Sendable, Hashable, Codable {
    /// Shards are running or waiting for workers.
    case running
    /// The output or the journal cannot be written, or an input is not there after a restart: nothing is done until that changes.
    /// `JobStatus.error` says why.
    case paused
    /// All shards are committed; the rest of the output is being written.
    case publishing
    case done, failed, cancelled

    package var isEnd: Bool { self == .done || self == .failed || self == .cancelled }
}

/// What a running job does while no worker has a shard of it.
package enum JobActivity: String, Sendable, Hashable, Codable, CaseIterable {
    /// Workers take the shards of other jobs first.
    case queued
    /// No worker is there that could take its shards, or it is planned again after a restart.
    case waiting
}

/// A failed attempt at a shard.
package struct ShardFailure: Sendable, Hashable, Codable {
    package let worker: String
    /// Where the worker connected from.
    package let address: String
    package let error: TesseraError

    package init(worker: String, address: String, error: TesseraError) {
        self.worker = worker
        self.address = address
        self.error = error
    }
}

package struct ShardStatus: Sendable, Hashable, Codable {
    package enum State: String, Sendable, Hashable, Codable {
        case pending, leased, committed
    }

    package var index: Int
    package var label: String
    package var state: State
    /// The workers that run the shard, or the one that finished it; for a shard that waits, those that failed it.
    package var workers: [String]
    package var attempts: Int
    /// Output bytes.
    package var bytesDone: Int
    package var bytesTotal: Int
    /// The last failed attempts, if there were any.
    package var failures: [ShardFailure]?
    /// `nil` from a coordinator that does not say.
    package var tensors: Int?
    /// The attempt that counts, or the first of those that run: seconds from the job's submission to its beginning, and how long
    /// it took; `nil` before it begins or ends, and where an earlier coordinator has not kept it.
    package var begunAfter: Double?
    package var seconds: Double?

    package init(
        index: Int, label: String, state: State, workers: [String], attempts: Int, bytesDone: Int, bytesTotal: Int,
        failures: [ShardFailure]? = nil
    ) {
        self.failures = failures
        self.index = index
        self.label = label
        self.state = state
        self.workers = workers
        self.attempts = attempts
        self.bytesDone = bytesDone
        self.bytesTotal = bytesTotal
    }
}

package struct JobStatus: Sendable, Hashable, Codable {
    package struct Shards: Sendable, Hashable, Codable {
        package var total: Int
        package var pending: Int
        package var leased: Int
        package var committed: Int

        package init(total: Int, pending: Int, leased: Int, committed: Int) {
            self.total = total
            self.pending = pending
            self.leased = leased
            self.committed = committed
        }
    }

    package var id: JobID
    /// Who submitted the job: the name in a certificate, `token:NAME`, `anonymous` without access control. `nil` for jobs of a
    /// version without owners.
    package var owner: String?
    /// What the submitter calls the job.
    package var name: String?
    package var state: JobState
    /// What keeps a running job from being worked on; `nil` where nothing does.
    package var activity: JobActivity?
    package var method: String
    package var output: String
    /// SHA-256 of the plan's canonical encoding.
    package var plan: Digest
    package var shards: Shards
    /// Finished bytes, and all bytes of the stages planned so far: output bytes, or input bytes for a stage that only analyses
    /// inputs.
    package var bytesDone: Int
    package var bytesTotal: Int
    /// Bytes of the output's tensors planned so far.
    package var bytesOutput: Int
    /// Input bytes of the whole job, each counted once.
    package var bytesInput: Int
    package var attempts: Int
    /// Seconds since 1970.
    package var submittedAt: Double
    /// Seconds from submission to now, or to the job's end.
    package var seconds: Double
    /// Why the job failed, or is paused.
    package var error: TesseraError?
    /// The reason why a running job makes no progress, if someone can act on it.
    package var blockedReason: String?
    /// What keeps some of its shards waiting while others are worked on, if someone can act on it.
    package var note: String?
    /// The job that workers take shards of first, while this one has none in work for that reason.
    package var behind: JobID?
    /// Seconds since the job is paused; `nil` for one that is not, and where nobody knows.
    package var secondsPaused: Double?
    /// Finished bytes per second of late, not counting the time in which the job waited; `nil` at its beginning, and while it is
    /// not worked on.
    package var bytesPerSecond: Double?
    /// How long shards were there to do and no worker had one of them, of `seconds`: since the coordinator's last start, and
    /// `nil` once a job has ended that an earlier start began.
    package var secondsWaited: Double?
    /// One page of shards, if the request named a job. The coordinator does not keep the shards of jobs that ended long ago.
    package var shardDetails: [ShardStatus]?

    package init(
        id: JobID, state: JobState, method: String, output: String, plan: Digest, shards: Shards, bytesDone: Int, bytesTotal: Int,
        bytesOutput: Int, bytesInput: Int, attempts: Int, submittedAt: Double, seconds: Double, error: TesseraError?,
        blockedReason: String? = nil, shardDetails: [ShardStatus]?, owner: String? = nil,
        name: String? = nil
    ) {
        self.id = id
        self.owner = owner
        self.name = name
        self.state = state
        self.method = method
        self.output = output
        self.plan = plan
        self.shards = shards
        self.bytesDone = bytesDone
        self.bytesTotal = bytesTotal
        self.bytesOutput = bytesOutput
        self.bytesInput = bytesInput
        self.attempts = attempts
        self.submittedAt = submittedAt
        self.seconds = seconds
        self.error = error
        self.blockedReason = blockedReason
        self.shardDetails = shardDetails
    }
}

extension JobStatus {
    /// What the job does, in a word: `state`, or what keeps a running job waiting.
    package var word: String { activity?.rawValue ?? state.rawValue }

    /// What submitters may see of the jobs of others: that there is a job, whose, of what size, and how far. Not its paths, its
    /// plan, its shards, nor the words of its errors.
    package var forOthers: JobStatus {
        var status = self
        status.output = ""
        status.name = nil
        status.plan = .none
        status.error = error.map { TesseraError($0.code, "shown to the job's owner only") }
        status.blockedReason = nil
        status.note = nil
        status.behind = nil
        status.shardDetails = nil
        return status
    }
}

package struct WorkerStatus: Sendable, Hashable, Codable {
    package enum State: String, Sendable, Hashable, Codable {
        case idle, busy, draining
    }

    package var id: Int
    package var name: String
    package var address: String
    package var build: String
    package var state: State
    package var threads: Int
    /// The worker's memory limit in bytes.
    package var memory: Int
    package var leases: Int
    package var shardsDone: Int
    /// Output bytes of the worker's committed shards.
    package var bytesDone: Int
    /// The part of `committedBytes` that the worker wrote directly into the output.
    package var bytesDirect: Int
    package var secondsConnected: Double
    /// Attempts that it failed since it last finished one, and why the last of them failed; `nil` for none.
    package var failedInARow: Int?
    package var lastError: TesseraError?
    /// How long the worker gets no shards because of that.
    package var secondsResting: Double?
    /// Output bytes of committed shards per second of late; `nil` before the worker has worked.
    package var bytesPerSecond: Double?
    /// Since the worker last said that it is there; `nil` from a coordinator that does not say.
    package var secondsSinceHeard: Double?
    /// Why the worker's host gets no shards: it computed something else than two others; `nil` for most.
    package var putAside: String?
    /// What is wrong with its copy of an input, which it fetched instead; `nil` for most.
    package var copyProblem: String?
    /// Why it has nothing to do although shards wait and other workers could do them; `nil` for most.
    package var idleReason: String?

    package init(
        id: Int, name: String, address: String, build: String, state: State, threads: Int, memory: Int, leases: Int,
        shardsDone: Int,
        bytesDone: Int, bytesDirect: Int, secondsConnected: Double, putAside: String? = nil
    ) {
        self.putAside = putAside
        self.id = id
        self.name = name
        self.address = address
        self.build = build
        self.state = state
        self.threads = threads
        self.memory = memory
        self.leases = leases
        self.shardsDone = shardsDone
        self.bytesDone = bytesDone
        self.bytesDirect = bytesDirect
        self.secondsConnected = secondsConnected
    }
}

/// A worker that left without a goodbye, and has not come back.
package struct LostWorker: Sendable, Hashable, Codable {
    package let name: String
    package let address: String
    /// How the connection ended.
    package let reason: String
    package let secondsAgo: Double
    /// Shards that it was working on.
    package let leases: Int

    package init(name: String, address: String, reason: String, secondsAgo: Double, leases: Int) {
        self.name = name
        self.address = address
        self.reason = reason
        self.secondsAgo = secondsAgo
        self.leases = leases
    }
}

/// A page of jobs in the order of submission, and of workers in the order of arrival.
package struct Status: Sendable, Hashable, Codable {
    package var jobs: [JobStatus]
    package var workers: [WorkerStatus]
    /// The workers that were lost in the last hour, the latest first; beside the first page of workers.
    package var lostWorkers: [LostWorker]?
    /// Whether the coordinator takes no more jobs and ends after those that it has; `nil` for no.
    package var draining: Bool?
    /// The total number of the requested items: jobs, or shards of one job.
    package var total: Int?
    /// `StatusRequest.after` of the next page of jobs or shards; `nil` on the last page.
    package var next: Int?
    /// `StatusRequest.workersAfter` of the next page of workers; `nil` on the last page.
    package var nextWorkers: Int?

    package init(
        jobs: [JobStatus], workers: [WorkerStatus], total: Int? = nil, next: Int? = nil, nextWorkers: Int? = nil
    ) {
        self.jobs = jobs
        self.workers = workers
        self.total = total
        self.next = next
        self.nextWorkers = nextWorkers
    }
}

extension Status {
    /// Checks the numbers that clients do arithmetic on.
    func validate(_ bounds: Bounds) throws(TesseraError) {
        for job in jobs {
            try bounds.progress(job.bytesDone, of: job.bytesTotal)
            try bounds.number(job.seconds, "seconds", 0...1e12)
            try bounds.number(job.secondsWaited ?? 0, "secondsWaited", 0...1e12)
            for shard in job.shardDetails ?? [] { try bounds.progress(shard.bytesDone, of: shard.bytesTotal) }
            for count in [job.attempts, job.shards.committed, job.shards.leased] {
                try bounds.number(count, "attempts", 0...Limits.byteCount)
            }
        }
        for worker in workers { try bounds.number(worker.secondsConnected, "secondsConnected", 0...1e12) }
        for worker in lostWorkers ?? [] { try bounds.number(worker.secondsAgo, "secondsAgo", 0...1e12) }
    }
}

extension Bounds {
    fileprivate func progress(_ done: Int, of total: Int) throws(TesseraError) {
        try number(total, "bytesTotal", 0...Limits.byteCount)
        try number(done, "bytesDone", 0...total)
    }
}
