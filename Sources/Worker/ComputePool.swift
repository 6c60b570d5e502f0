import Dispatch
import NIOPosix
package import Operators
import Synchronization

/// The compute threads, and the memory for the tensors that they work on. A shard occupies one thread; idle threads help with the
/// loops of a large tensor.
package struct ComputePool: Sendable {
    package let threads: Int
    package let memory: MemoryBudget
    private let pool: NIOThreadPool

    /// - Parameter memory: bytes.
    package init(threads: Int, memory: Int) {
        self.threads = threads
        self.memory = MemoryBudget(bytes: memory)
        pool = NIOThreadPool(numberOfThreads: threads)
        pool.start()
    }

    /// Runs `body` on one of the threads.
    package func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await pool.runIfActive(body)
    }

    package func shutdown() async throws { try await pool.shutdownGracefully() }

    /// The loops of one shard. `isCancelled` is checked before every iteration.
    package func loops(isCancelled: @escaping @Sendable () -> Bool) -> any ParallelRunner {
        SharedLoops(pool: pool, threads: threads, isCancelled: isCancelled)
    }
}

/// Parallel loops, run by the caller together with idle threads of the pool.
///
/// Helpers queue behind the shards already in the pool's queue. A helper that starts late finds no index left and returns, so the
/// caller never waits for a thread that has not started.
struct SharedLoops: ParallelRunner {
    let pool: NIOThreadPool
    let threads: Int
    let isCancelled: @Sendable () -> Bool

    func checkCancellation() throws {
        if isCancelled() { throw CancellationError() }
    }

    func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        let loop = Loop(count: count, body: body, isCancelled: isCancelled)
        for _ in 1..<max(1, min(count, threads, limit)) {
            pool.submit { _ in loop.work() }
        }
        loop.work()
        try loop.wait()
    }

    private final class Loop: Sendable {
        private let count: Int
        private let body: @Sendable (Int) throws -> Void
        private let isCancelled: @Sendable () -> Bool
        private let next = Atomic(0)
        private let unfinished: Atomic<Int>
        private let failure = Mutex<(any Error)?>(nil)
        private let finished = DispatchSemaphore(value: 0)

        init(count: Int, body: @escaping @Sendable (Int) throws -> Void, isCancelled: @escaping @Sendable () -> Bool) {
            self.count = count
            self.body = body
            self.isCancelled = isCancelled
            unfinished = Atomic(count)
            if count == 0 { finished.signal() }
        }

        /// Takes indices until none is left. After a failure, the remaining indices are taken and skipped, so that the count adds
        /// up.
        func work() {
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < count else { return }
                do {
                    if failure.withLock({ $0 == nil }) {
                        if isCancelled() { throw CancellationError() }
                        try body(index)
                    }
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
                if unfinished.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0 { finished.signal() }
            }
        }

        func wait() throws {
            finished.wait()
            if let error = failure.withLock({ $0 }) { throw error }
        }
    }
}
