import Journal
import Protocol
import Work

/// A shard's result that is about to count.
struct CommitRecord: Sendable, Hashable {
    let attempt: Attempt
    let worker: WorkerReference
    let result: ShardResult
    let delivery: Delivery
    /// The output's parts that hold the shard's bytes.
    let parts: Set<Int>

    var journaled: JournaledShard {
        JournaledShard(attempt: attempt, worker: worker.name, delivery: delivery, result: result)
    }
}
