package import Core
package import Protocol
import Synchronization
import Work

/// Runs leased shards and tracks their progress.
package protocol ShardRunner: Sendable {
    /// Computes the shard and writes its blocks into the output, or sends them if this host cannot see the output.
    ///
    /// - Returns: a result or a failure; `nil` if the lease was revoked meanwhile.
    func run(_ lease: Lease, returning: any ShardOutput) async -> Result<ShardDone, TesseraError>?

    /// Cancels the attempt at its next block.
    func stop(_ attempt: Attempt)

    func stopAll()

    /// Of the attempts that run, sorted.
    var progress: [LeaseProgress] { get }
}

/// Runs leased shards on a pool of threads.
package final class LeaseRunner: ShardRunner {
    private let executor: ShardExecutor
    private let outputs: LocalOutputs
    private let inputs: LocalInputs
    private let active = Mutex<[Attempt: ShardProgress]>([:])

    package init(pool: ComputePool, inputs: LocalInputs, outputs: LocalOutputs) {
        executor = ShardExecutor(pool: pool, inputs: inputs)
        self.inputs = inputs
        self.outputs = outputs
    }

    package func run(_ lease: Lease, returning: any ShardOutput) async -> Result<ShardDone, TesseraError>? {
        let progress = ShardProgress()
        active.withLock { $0[lease.attempt] = progress }
        defer { active.withLock { $0[lease.attempt] = nil } }
        var direct: DirectOutput?
        do {
            direct = try lease.output.flatMap { try outputs.open($0, of: lease) }
            let result = try await executor.run(lease.work, output: direct ?? returning, progress: progress)
            return .success(
                ShardDone(
                    attempt: lease.attempt, result: result, delivery: direct == nil ? .relayed : .direct,
                    copyProblem: inputs.trouble(of: lease.work.files)?.description))
        } catch {
            guard !progress.isCancelled else { return nil }
            let error = TesseraError(wrapping: error)
            if direct?.hasFailed == true {
                outputs.avoid(lease.attempt.job)
            } else if error.code == .io {
                inputs.letGo(of: lease.work.files)
            }
            return .failure(inputs.explain(error, of: lease.work.files))
        }
    }

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
