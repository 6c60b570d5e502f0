package import Core
package import Journal
package import Protocol

/// A worker as events name it.
package struct WorkerReference: Sendable, Hashable {
    package let id: Scheduler.WorkerID
    package let name: String
    /// Where it connected from, or `local`.
    package let address: String
}

/// A shard as progress knows it.
package struct ShardSummary: Sendable, Hashable {
    package let label: String
    /// Bytes that progress counts: of the output, or of the inputs where nothing but statistics comes out.
    package let byteCount: Int
    package let tensorCount: Int

    package init(label: String, byteCount: Int, tensorCount: Int = 1) {
        self.label = label
        self.byteCount = byteCount
        self.tensorCount = tensorCount
    }
}

/// A plan for people to read.
package struct PlanDescription: Sendable, Hashable, Encodable {
    package struct Input: Sendable, Hashable, Encodable {
        /// As the recipe has it.
        package let name: String
        package let files: Int
        package let bytes: Int
    }

    package struct Part: Sendable, Hashable, Encodable {
        package let file: String
        package let tensors: Int
        package let bytes: Int
    }

    /// What messages call the recipe, and its text.
    package let recipeName: String
    package let recipe: String
    package let method: String
    package let digest: Digest
    package let inputs: [Input]
    /// The output's safetensors files.
    package let parts: [Part]
    /// What is odd about the recipe and probably a mistake.
    package let warnings: [TesseraError]
    package let remarks: [String]

    /// Bytes that it takes, more or less.
    var size: Int {
        let texts = warnings.map(\.description) + remarks
        return recipe.utf8.count + texts.reduce(0) { $0 + $1.utf8.count } + 100 * (inputs.count + parts.count)
    }
}

/// What planning found out about a job. A job with several plans has the numbers of all of them.
package struct PlanSummary: Sendable, Hashable {
    package let method: String
    package let digest: Digest
    /// Bytes of all inputs, each counted once.
    package let bytesInput: Int
    /// Bytes of the tensors that this plan adds to the output.
    package let bytesOutput: Int
    /// The shards that this plan adds, in order.
    package let shards: [ShardSummary]
    /// For people; `nil` once the job has ended long ago.
    package let description: PlanDescription?

    package init(
        method: String, digest: Digest, bytesInput: Int, bytesOutput: Int, shards: [ShardSummary],
        description: PlanDescription? = nil
    ) {
        self.description = description
        self.method = method
        self.digest = digest
        self.bytesInput = bytesInput
        self.bytesOutput = bytesOutput
        self.shards = shards
    }
}

/// A shard that is not done again.
package struct KeptShard: Sendable, Hashable {
    package let shard: Int
    /// The name of the worker that did it.
    package let worker: String
    /// `nil` where an earlier version kept the shard.
    package let time: AttemptTime?

    package init(shard: Int, worker: String, time: AttemptTime? = nil) {
        self.shard = shard
        self.worker = worker
        self.time = time
    }
}

/// Everything that happens to jobs and workers, said once, where a decision has been carried out.
///
/// Counters, status, the log and whoever waits for a job read these events and nothing else.
package enum JobEvent: Sendable, Hashable {
    case added(JobID, output: String, owner: String)
    /// A plan is laid out and its shards wait for workers; jobs with analysis stages are planned more than once.
    case planned(JobID, PlanSummary)
    /// Shards are done again by an audit, under numbers behind all others.
    case repeated(JobID, [ShardSummary])
    /// Shards that an earlier coordinator committed, as the journal names them and their workers.
    case kept(JobID, [KeptShard])
    case leased(Attempt, WorkerReference)
    /// Bytes of the shard, as progress counts them.
    case progressed(Attempt, bytesDone: Int)
    /// The attempt's result has come. Its worker may begin another shard; this one counts once the result is durable.
    case reported(Attempt, WorkerReference)
    /// - Parameter byteCount: bytes of the shard's output.
    case committed(Attempt, WorkerReference, byteCount: Int, Delivery)
    /// The attempt is over and its shard, unless others work on it, waits again.
    case failed(Attempt, WorkerReference, TesseraError)
    /// As `failed`, but nothing is wrong with the attempt: another was faster, the worker left, the lease ran out, the job ended.
    ///
    /// - Parameter isLost: whether the worker vanished without a goodbye.
    case revoked(Attempt, WorkerReference, reason: String, isLost: Bool = false)
    /// A result came that nobody waits for any more.
    case stale(Attempt, WorkerReference)
    /// The job's output or the journal cannot be written: its leases are taken back, and nothing is done until that works again.
    case paused(JobID, TesseraError)
    case resumed(JobID)
    /// The job has ended, and its unfinished output is removed or its finished output published.
    case ended(JobID, JobState, TesseraError?)
    /// Shards that an audit was to look at, and that no second host has done: there was none.
    case unaudited(JobID, shards: Int)
    /// The job's audit shows that a host computes wrongly: it gets no more shards. The worker is one of those there.
    case putAside(JobID, host: String, worker: String, reason: String)
    /// The worker's copy of an input is not the plan's file, and the worker fetches that instead.
    case copyDiffers(JobID, WorkerReference, problem: String)
    case workerJoined(WorkerReference)
    /// - Parameter isOrderly: whether it said goodbye; the others are lost.
    case workerLeft(WorkerReference, reason: String, isOrderly: Bool)

    /// `nil` for workers that come and go.
    package var job: JobID? {
        switch self {
        case .added(let id, _, _), .planned(let id, _), .repeated(let id, _), .unaudited(let id, _), .kept(let id, _),
            .paused(let id, _), .resumed(let id), .ended(let id, _, _), .putAside(let id, _, _, _), .copyDiffers(let id, _, _):
            id
        case .leased(let attempt, _), .progressed(let attempt, _), .reported(let attempt, _),
            .committed(let attempt, _, _, _), .failed(let attempt, _, _), .revoked(let attempt, _, _, _), .stale(let attempt, _):
            attempt.job
        case .workerJoined, .workerLeft: nil
        }
    }
}
