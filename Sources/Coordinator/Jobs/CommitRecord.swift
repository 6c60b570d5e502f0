import Journal
import Protocol
import Work

/// A shard's result that is about to count.
struct CommitRecord: Sendable, Hashable {
    let attempt: Attempt
    /// The number under which the journal keeps the result: another than the attempt's where a shard is done again.
    let shard: Int
    let worker: WorkerReference
    let result: ShardResult
    let delivery: Delivery
    /// The output's parts that hold the shard's bytes.
    let parts: Set<Int>
    /// Of the attempt, until its result arrived.
    let time: AttemptTime?

    var journaled: JournaledShard {
        JournaledShard(
            attempt: Attempt(job: attempt.job, shard: shard, epoch: attempt.epoch, incarnation: attempt.incarnation),
            worker: worker.name, delivery: delivery, result: result, time: time)
    }
}
