import NIOPosix

/// Threads for work that waits for disks, apart from those that carry messages and from every other kind of such work: a plan
/// that reads thousands of headers holds up no block, and an output that is made durable holds up no plan.
package struct BlockingPools: Sendable {
    /// Plans, by turns of the owners. Each thread holds a whole plan in the making.
    package let planning: BlockingPool
    /// Blocks that workers sent. Four keep a disk or a network file system busy.
    package let writing: BlockingPool
    /// Outputs that are published or removed. Two, because one may wait for minutes until a large output is durable, while
    /// another job is cancelled.
    package let publishing: BlockingPool
    /// Ranges of inputs for workers that do not have them. Four, as for blocks.
    package let reading: BlockingPool

    /// The journal. One, for its writes come one after the other anyway.
    let journal: BlockingPool
    /// Outputs that are made durable shard by shard. One: while it waits, further results gather for its next turn.
    let syncing: BlockingPool

    /// Three, so that an owner whose plans take long has two of them and the next owner need not wait.
    package static let planningThreads = 3

    /// - Parameter pool: makes a pool of so many threads.
    package init(_ pool: (_ threads: Int) -> BlockingPool = BlockingPool.init(threads:)) {
        planning = pool(Self.planningThreads)
        writing = pool(4)
        publishing = pool(2)
        reading = pool(4)
        journal = pool(1)
        syncing = pool(1)
    }
}

/// A few threads on which calls may block.
package final class BlockingPool: Sendable {
    /// Takes a call and makes it later, or tells it that the process is about to end.
    package typealias Submit = @Sendable (_ call: @escaping @Sendable (_ isActive: Bool) -> Void) -> Void

    private let submit: Submit
    private let shutDown: @Sendable () -> Void

    package convenience init(threads count: Int) {
        let threads = NIOThreadPool(numberOfThreads: count)
        threads.start()
        self.init(
            submit: { call in threads.submit { call($0 == .active) } }, shutDown: { threads.shutdownGracefully { _ in } })
    }

    package init(submit: @escaping Submit, shutDown: @escaping @Sendable () -> Void = {}) {
        self.submit = submit
        self.shutDown = shutDown
    }

    deinit { shutDown() }

    /// Runs `body` on one of the threads.
    ///
    /// `body` runs even if the calling task is cancelled, so that what removes an unfinished output is never left out.
    ///
    /// - Throws: what `body` throws; `CancellationError` when the process is about to end.
    package func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            submit { isActive in
                continuation.resume(with: isActive ? Swift.Result { try body() } : .failure(CancellationError()))
            }
        }
    }
}
