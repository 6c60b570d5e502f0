package import Core
package import Protocol
import Synchronization
import Work

/// Works on leased shards and knows how far each has come.
package final class LeaseRunner: Sendable {
    private let executor: ShardExecutor
    private let outputs: LocalOutputs
    private let inputs: LocalInputs
    private let active = Mutex<[Attempt: ShardProgress]>([:])

    package init(pool: ComputePool, inputs: LocalInputs, outputs: LocalOutputs) {
        executor = ShardExecutor(pool: pool, inputs: inputs)
        self.inputs = inputs
        self.outputs = outputs
    }

    /// Computes the shard and writes its blocks into the output, or sends them where the output is not to be seen.
    ///
    /// - Returns: what came out; a failure; or `nil` when the lease was taken back meanwhile.
    package func run(_ lease: Lease, returning: any ShardOutput) async -> Result<ShardDone, TesseraError>? {
        let progress = ShardProgress()
        active.withLock { $0[lease.attempt] = progress }
        defer { active.withLock { $0[lease.attempt] = nil } }
        do {
            let direct = try lease.output.flatMap { try outputs.open($0, of: lease) }
            let result = try await executor.run(lease.work, output: direct ?? returning, progress: progress)
            return .success(ShardDone(attempt: lease.attempt, result: result, delivery: direct == nil ? .relayed : .direct))
        } catch {
            return progress.isCancelled ? nil : .failure(inputs.explain(TesseraError(wrapping: error), of: lease.work.files))
        }
    }

    /// Gives the attempt up at the next block.
    package func stop(_ attempt: Attempt) { active.withLock { $0[attempt]?.cancel() } }

    package func stopAll() {
        active.withLock { active in
            for progress in active.values { progress.cancel() }
        }
    }

    package var progress: [LeaseProgress] {
        active.withLock { active in active.map { LeaseProgress(attempt: $0.key, bytesDone: $0.value.bytesDone) } }
            .sorted { $0.attempt < $1.attempt }
    }
}
