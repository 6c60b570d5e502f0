package import Protocol
package import Work

/// A shard's result that is about to count.
package struct CommitRecord: Sendable, Hashable {
    package let attempt: Attempt
    package let worker: WorkerReference
    package let result: ShardResult
    package let delivery: Delivery
}

/// Makes results of shards final.
///
/// What `commit` promises on return: the bytes of the shard are *written*, so that everybody who sees the output store reads
/// them. They are durable only when the job's output is committed, so a coordinator that stops before that has to begin the job
/// again.
package protocol CommitLog: Sendable {
    /// May take time. The scheduler hears of its end by an event.
    ///
    /// - Throws: when the result cannot be kept; the shard is then done again.
    func commit(_ record: CommitRecord) async throws
}

/// Keeps nothing beside the output: by the time a worker reports a result, its blocks are written.
package struct WrittenOutput: CommitLog {
    package init() {}

    package func commit(_ record: CommitRecord) async throws {}
}
