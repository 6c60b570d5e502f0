/// The numbers behind the scheduler's decisions.
package struct SchedulerPolicy: Sendable {
    /// How long a lease lasts unless it is renewed.
    package var lease: Duration = .seconds(30)
    /// How much longer than the worker the coordinator waits, so that the worker has stopped when the shard is leased again.
    package var margin: Duration = .seconds(2)
    /// A shard that failed on this many hosts fails its job.
    package var hostLimit = 3
    /// A shard that failed this often fails its job, however few hosts there are.
    package var failureLimit = 5
    /// A shard whose worker died this often is taken for the cause, and fails its job.
    package var workerLossLimit = 3
    /// A failed shard waits this long, doubled with each failure, up to `longestBackoff`.
    package var firstBackoff: Duration = .milliseconds(500)
    package var longestBackoff: Duration = .seconds(30)
    /// A shard that takes this many times as long as its size lets expect gets a second worker.
    package var stragglerFactor = 3.0
    /// But not before it has run this long.
    package var stragglerFloor: Duration = .seconds(10)

    package init() {}
}
