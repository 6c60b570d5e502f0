import NIOPosix

/// Threads for work that waits for disks, apart from those that carry messages and from every other kind of such work: a plan
/// that reads thousands of headers holds up no block, and an output that is made durable holds up no plan.
package struct BlockingPools: Sendable {
    /// Plans. Two, so that a small recipe does not wait behind a very large one; each holds a whole plan in the making.
    package let planning = BlockingPool(threads: 2)
    /// Blocks that workers sent. Four keep a disk or a network file system busy.
    package let writing = BlockingPool(threads: 4)
    /// Outputs that are published or removed. Two, because one may wait for minutes until a large output is durable, while
    /// another job is cancelled.
    package let publishing = BlockingPool(threads: 2)
    /// Ranges of inputs for workers that do not have them. Four, as for blocks.
    package let reading = BlockingPool(threads: 4)

    /// The journal. One, for its writes come one after the other anyway.
    let journal = BlockingPool(threads: 1)
    /// Outputs that are made durable shard by shard. One: while it waits, further results gather for its next turn.
    let syncing = BlockingPool(threads: 1)

    package init() {}
}

/// A few threads on which calls may block.
package final class BlockingPool: Sendable {
    private let threads: NIOThreadPool

    package init(threads count: Int) {
        threads = NIOThreadPool(numberOfThreads: count)
        threads.start()
    }

    deinit { threads.shutdownGracefully { _ in } }

    /// Runs `body` on one of the threads.
    ///
    /// `body` runs even if the calling task is cancelled, so that what removes an unfinished output is never left out.
    ///
    /// - Throws: what `body` throws; `CancellationError` when the process is about to end.
    package func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            threads.submit { state in
                continuation.resume(
                    with: state == .active ? Swift.Result { try body() } : .failure(CancellationError()))
            }
        }
    }
}
