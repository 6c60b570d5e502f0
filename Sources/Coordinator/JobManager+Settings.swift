package import Core
package import Planning
package import Work

extension JobManager {
    /// How many jobs there may be at the same time.
    package struct JobLimits: Sendable {
        /// Jobs that have not ended, of all owners and of one.
        package var jobs = 1000
        package var jobsOfOwner = 500
        /// Submissions that are being planned or wait for that, of all owners and of one. Each holds its recipe.
        package var submissions = 128
        package var submissionsOfOwner = 32

        package init() {}
    }

    package struct Settings: Sendable {
        package var inputRoots: Roots
        /// Absolute path that every output must lie under; `nil` allows any.
        package var outputRoot: String?
        package var policy: SchedulerPolicy
        /// Refuses what no worker will ever have the memory for, where all workers are known.
        package var checkMemory: @Sendable (Plan) throws -> Void = { _ in }
        /// Whether the journal keeps a failed job with all that is done, for another process that goes on with it. Only where the
        /// same submission comes to that process, as with `tessera run`.
        package var keepsJob: @Sendable (_ after: TesseraError) -> Bool = { _ in false }
        /// Whether a job waits while its output or the journal cannot be written, instead of failing.
        package var pausesJobs = true
        /// Whether a job that cannot be taken up stays in the journal with all that is done, whatever the reason: its submitter
        /// is told, and submits it again.
        package var submittersComeBack = false
        /// Whether a job's time goes on while no process works on it.
        package var countsPauses = true
        /// Signs every output; `nil` for outputs without a signature.
        package var signingKey: SigningKey?
        /// Whether blocks that workers say they wrote are read back, one of each shard. Not where this process is the worker.
        package var checksDirectBlocks = true
        /// Of the files under the roots.
        package var digests = InputDigests()
        /// How long a plan may take. A thread that plans serves everybody.
        package var planningLimit = Duration.seconds(900)
        /// The same for a plan that reads all of its inputs.
        package var readingLimit = Duration.seconds(12 * 3600)
        package var limits = JobLimits()
        /// The share of a job's shards that is done again on another host, unless the job says another.
        package var auditShare = 0.0
        /// Version named in the manifest and to peers.
        package var build: String
        /// Part of every attempt; another number each time the coordinator starts.
        package var incarnation: UInt32

        package init(
            inputRoots: Roots, outputRoot: String? = nil, policy: SchedulerPolicy = SchedulerPolicy(), build: String,
            incarnation: UInt32
        ) {
            self.inputRoots = inputRoots
            self.outputRoot = outputRoot
            self.policy = policy
            self.build = build
            self.incarnation = incarnation
        }
    }
}
