import Protocol

/// A job's place among the jobs with ready shards.
struct JobTurn: Sendable, Comparable {
    let number: Int
    let id: JobID

    static func < (left: JobTurn, right: JobTurn) -> Bool { left.number < right.number }
}

/// A moment at which a shard has to be looked at: the end of a lease, or of a pause after a failure.
struct ShardTimer: Sendable, Comparable {
    let at: Duration
    let number: Int
    let id: JobID
    let shard: Int
    /// The epoch of the lease that ends.
    var epoch: UInt64 = 0

    static func < (left: ShardTimer, right: ShardTimer) -> Bool {
        (left.at, left.number, left.shard, left.epoch) < (right.at, right.number, right.shard, right.epoch)
    }
}
