/// The numbers behind the scheduler's decisions.
package struct SchedulerPolicy: Sendable {
    /// How long a lease lasts unless it is renewed.
    package var lease: Duration = .seconds(30)
    /// How much longer than the worker the coordinator waits, so that the worker has stopped when the shard is leased again.
    package var margin: Duration = .seconds(2)
    /// A shard that failed on this many hosts fails its job when nobody is left who has not tried it. So does at once a shard
    /// whose workers died on this many hosts.
    package var hostLimit = 3
    /// The same for a shard that failed this often, or took this many worker processes with it, however few hosts there are.
    /// For each process that ended meanwhile without the shard, it takes as many more.
    package var failureLimit = 5
    /// A shard of which this many workers say that nobody can do it fails its job.
    package var verdictLimit = 2
    /// A failed shard waits this long; doubled with each failure, up to `longestBackoff`, when all workers have tried it.
    package var firstBackoff: Duration = .milliseconds(500)
    package var longestBackoff: Duration = .seconds(30)
    /// A worker that fails this many attempts in a row gets nothing for a while: `firstRest`, doubled with each further failure
    /// up to `longestRest`.
    package var strikeLimit = 3
    package var firstRest: Duration = .seconds(1)
    package var longestRest: Duration = .seconds(60)
    /// A shard without progress gets a second worker when it takes this many times as long as its size lets expect.
    package var stragglerFactor = 3.0
    /// One with progress, when what is left would take this many times as long as the whole shard does elsewhere.
    package var remainderFactor = 2.0
    /// But not before it has run this long.
    package var stragglerFloor: Duration = .seconds(10)
    /// The same where no other shard of the job tells how long it should take.
    package var blindStragglerFloor: Duration = .seconds(60)
    /// A lease without progress for this many times as long as the whole shard should take is taken back, however alive its
    /// worker.
    package var stallFactor = 10.0
    /// But not before this time.
    package var stallFloor: Duration = .seconds(120)

    package init() {}
}
