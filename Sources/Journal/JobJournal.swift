package import Core
package import Protocol
package import Work

/// Where jobs and their committed shards outlive the process that works on them.
///
/// Calls wait for a disk. What a call has been told is durable when it returns.
package protocol JobJournal: Sendable {
    /// Whether anything is kept. Without, nobody needs to make bytes durable before a shard counts.
    var keepsJobs: Bool { get }

    /// What earlier processes left.
    ///
    /// - Throws: `badData` for contents that no version of Tessera writes.
    func load() throws(TesseraError) -> JournalContents

    /// Keeps a job, before anything of its output is created.
    func add(_ job: JournaledJob) throws(TesseraError)

    /// Keeps the job's next plan, once its output is laid out.
    func add(_ plan: JournaledPlan, of job: JobID) throws(TesseraError)

    /// Keeps results of shards, all or none of them. Those of jobs that are not kept any more are left out.
    func commit(_ shards: [JournaledShard]) throws(TesseraError)

    /// Forgets plans and shards of a job whose output has to be begun again.
    func restart(_ job: JobID) throws(TesseraError)

    /// Keeps how a job ended, in place of its plans and shards.
    func end(_ status: JobStatus) throws(TesseraError)

    /// Forgets a job.
    func remove(_ job: JobID) throws(TesseraError)

    /// Writes something of no importance: whether the journal can be written.
    func probe() throws(TesseraError)
}

/// Keeps nothing: a coordinator that stops begins again without jobs.
package struct NoJournal: JobJournal {
    package init() {}

    package var keepsJobs: Bool { false }
    package func load() throws(TesseraError) -> JournalContents { JournalContents() }
    package func add(_ job: JournaledJob) throws(TesseraError) {}
    package func add(_ plan: JournaledPlan, of job: JobID) throws(TesseraError) {}
    package func commit(_ shards: [JournaledShard]) throws(TesseraError) {}
    package func restart(_ job: JobID) throws(TesseraError) {}
    package func end(_ status: JobStatus) throws(TesseraError) {}
    package func remove(_ job: JobID) throws(TesseraError) {}
    package func probe() throws(TesseraError) {}
}

/// What a journal holds.
package struct JournalContents: Sendable {
    /// Jobs that have not ended, in order of submission.
    package var jobs: [JournaledJob] = []
    /// Jobs that have, in order of submission. Of those that ended long ago nothing is kept.
    package var ended: [EndedJob] = []

    package init() {}

    package struct EndedJob: Sendable {
        package let status: JobStatus
        package let key: String

        package init(status: JobStatus, key: String) {
            self.status = status
            self.key = key
        }
    }
}

/// A submitted job.
package struct JournaledJob: Sendable {
    package let id: JobID
    /// What a second submission of the same job has in common with the first.
    package let key: String
    /// `PeerIdentity.owner` of the submitter.
    package let owner: String
    package var submission: Submit
    /// As the output store names the output.
    package let output: String
    /// Seconds since 1970.
    package let submittedAt: Double
    /// In order; one for each time that the job was planned and laid out.
    package var plans: [JournaledPlan] = []
    /// Committed shards of all plans, by number.
    package var shards: [JournaledShard] = []

    package init(id: JobID, key: String, owner: String, submission: Submit, output: String, submittedAt: Double) {
        self.id = id
        self.key = key
        self.owner = owner
        self.submission = submission
        self.output = output
        self.submittedAt = submittedAt
    }
}

/// A plan, by what has to be the same when it is made again.
package struct JournaledPlan: Sendable, Hashable {
    package let digest: Digest
    package let method: String
    package let shardCount: Int
    package let bytesInput: Int
    package let bytesOutput: Int
    /// `Plan.pinnedFiles`.
    package let pinnedFiles: [String: PinnedFile]

    package init(
        digest: Digest, method: String, shardCount: Int, bytesInput: Int, bytesOutput: Int, pinnedFiles: [String: PinnedFile]
    ) {
        self.digest = digest
        self.method = method
        self.shardCount = shardCount
        self.bytesInput = bytesInput
        self.bytesOutput = bytesOutput
        self.pinnedFiles = pinnedFiles
    }
}

/// When an attempt ran, in milliseconds.
package struct AttemptTime: Sendable, Hashable {
    /// From the job's submission.
    package let begun: Int
    package let lasted: Int

    package init(begun: Int, lasted: Int) {
        self.begun = begun
        self.lasted = lasted
    }
}

/// A shard whose bytes are durable, and what came out of it.
package struct JournaledShard: Sendable, Hashable {
    /// The attempt whose result it is.
    package let attempt: Attempt
    /// What people call the worker.
    package let worker: String
    package let delivery: Delivery
    package let result: ShardResult
    /// `nil` for a shard that a version without times kept.
    package let time: AttemptTime?

    package init(attempt: Attempt, worker: String, delivery: Delivery, result: ShardResult, time: AttemptTime? = nil) {
        self.time = time
        self.attempt = attempt
        self.worker = worker
        self.delivery = delivery
        self.result = result
    }
}
