import Core
import Operators
import Planning
import Protocol
import Work
import Worker

/// Reads the tensors of opened models on all threads, several tensors at a time, within a memory.
struct TensorWalk: Sendable {
    private let threads: Int
    private let memory: Int

    /// - Parameter memory: bytes, for everything.
    init(threads: Int, memory: Int) {
        self.threads = threads
        self.memory = WorkerMemory(total: memory, threads: threads, isConnected: false).tensors
    }

    /// Calls `body` for each item, on a thread of its own, with loops that idle threads share.
    ///
    /// - Parameters:
    ///   - files: are open from the first item to the last, and have to be the same then.
    ///   - need: the memory for an item.
    /// - Returns: the results in the order of the items.
    /// - Throws: what `body` throws; `usage` when an item needs more memory than there is; `badData` for files that have changed.
    func run<Item: Sendable, Result: Sendable>(
        _ items: [Item], of files: [InputFile], need: @escaping @Sendable (Item) -> MemoryNeed,
        _ body: @escaping @Sendable (Item, [any ByteSource], TensorLoops) throws -> Result
    ) async throws -> [Result] {
        let inputs = LocalInputs(planningHostWith: .wholeMachine), open = try files.map(inputs.open)
        let pool = ComputePool(threads: threads, memory: memory)
        let results: [Result]
        do {
            results = try await run(items, on: pool, need: need) { try body($0, open, $1) }
        } catch {
            try? await pool.shutdown()
            throw error
        }
        try await pool.shutdown()
        for file in open { try file.checkUnchanged() }
        return results
    }

    private func run<Item: Sendable, Result: Sendable>(
        _ items: [Item], on pool: ComputePool, need: @escaping @Sendable (Item) -> MemoryNeed,
        _ body: @escaping @Sendable (Item, TensorLoops) throws -> Result
    ) async throws -> [Result] {
        let loops = TensorLoops(runner: pool.loops { false }, memory: pool.memory)
        return try await withThrowingTaskGroup(of: (Int, Result).self) { group in
            var results: [Int: Result] = [:]
            for (number, item) in items.enumerated() {
                if number >= threads, let (done, result) = try await group.next() { results[done] = result }
                let bytes = need(item).byteCount(threads: threads)
                guard bytes <= pool.memory.total else {
                    throw TesseraError(
                        .usage, "\(bytes) bytes of memory are needed, and there are \(pool.memory.total)",
                        advice: "raise --memory, or take fewer --threads")
                }
                group.addTask {
                    let reserved = await pool.memory.reserveWhenFree(bytes)
                    defer { reserved.release() }
                    return (number, try await pool.run { try body(item, loops) })
                }
            }
            for try await (done, result) in group { results[done] = result }
            return items.indices.compactMap { results[$0] }
        }
    }
}

/// What the work on one tensor uses besides its own thread.
struct TensorLoops: Sendable {
    let runner: any ParallelRunner
    let memory: MemoryBudget
}
