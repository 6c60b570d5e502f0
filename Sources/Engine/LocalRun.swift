package import Coordinator
package import Core
import Journal
package import Logging
import Planning
package import Protocol
package import Work
import Worker

/// A job on this machine: the coordinator's job manager and a worker in one process, without a port between them.
package struct LocalRun: Sendable {
    let manager: JobManager
    private let state: RunState?
    private let pool: ComputePool
    private let memory: WorkerMemory

    /// - Parameters:
    ///   - signingKey: signs the output; `nil` for one that is not signed.
    ///   - digests: of the inputs.
    ///   - state: keeps the job until it has ended; `nil` for one that is not worth that.
    package init(
        threads: Int, memory: Int, signingKey: SigningKey? = nil, digests: InputDigests = InputDigests(),
        state: RunState? = nil, log: Logger
    ) {
        var policy = SchedulerPolicy()
        // With one worker there is no other host to try, and nobody to renew leases for.
        policy.hostLimit = 1
        policy.lease = .seconds(365 * 86_400)
        // Nor does anybody say how far the worker is.
        policy.stallFloor = policy.lease
        var settings = JobManager.Settings(
            inputRoots: .wholeMachine, policy: policy, build: tesseraVersion,
            incarnation: state?.journal.incarnation ?? 1)
        settings.signingKey = signingKey
        settings.digests = digests
        let memory = WorkerMemory(total: memory, threads: threads, isConnected: false)
        settings.checkMemory = { (plan) throws(TesseraError) in
            let least = WorkerMemory.least(for: plan.largestNeed, threads: threads)
            guard least > memory.total else { return }
            throw TesseraError(
                .usage,
                "the job needs \(Quantity.bytes(least)) of memory with \(threads) threads, but --memory is "
                    + Quantity.bytes(memory.total),
                file: plan.recipeName, tensor: plan.largestTensor, advice: "raise --memory or lower --threads")
        }
        settings.checksDirectBlocks = false
        // Who waits for the command is told, and starts it again.
        settings.pausesJobs = false
        settings.replacesJobs = true
        self.state = state
        // The disk may have space later, and a file system may come back.
        settings.keepsJob = { $0.code.isTransient }
        manager = JobManager(settings: settings, log: log, journal: state?.journal ?? NoJournal())
        pool = ComputePool(threads: threads, memory: memory.tensors)
        self.memory = memory
    }

    /// Runs one job to its end, or goes on with it where an earlier process was killed.
    ///
    /// - Parameter watch: looks at the job while it runs; ends when cancelled.
    package func run(_ submission: Submit, watch: @escaping @Sendable (JobManager, Submitted) async -> Void) async throws
        -> JobStatus
    {
        defer { state?.removeIfDone() }
        let earlier = try await manager.resume()
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await manager.run() }
            let answer: Submitted
            do {
                answer = try await manager.submit(submission, by: .local)
            } catch {
                // What an earlier run did is kept when the recipe has a mistake, but not when the user has had enough.
                guard Task.isCancelled else { throw error }
                await manager.interrupt()
                throw CancellationError()
            }
            let submitted = Submitted(
                job: answer.job, remarks: answer.remarks + (await giveUp(earlier.filter { $0.job != answer.job })))
            let (messages, input) = AsyncStream<Message>.makeStream()
            let worker = await manager.attach(
                WorkerDescription(
                    name: "local", address: "local", build: tesseraVersion, threads: pool.threads, memory: memory.total,
                    tensorMemory: memory.tensors),
                send: { input.yield($0) })
            group.addTask { await work(as: worker, on: messages) }
            defer {
                input.finish()
                group.cancelAll()
            }
            group.addTask { await watch(manager, submitted) }
            var status = await manager.end(of: submitted.job)
            if status?.state.isEnd == false {
                // Interrupted. A job whose output is about to appear can only be waited for.
                try? await manager.cancel(submitted.job, reason: "cancelled", by: .local)
                status = await Task { await manager.end(of: submitted.job) }.value
                status?.error?.advice =
                    "nothing of its output is kept; a run that is killed instead goes on with the same command"
            }
            guard var status else { throw TesseraError(.internal, "the job \(submitted.job) is gone") }
            if let error = status.error, state?.holds(submitted.job) == true {
                let kept =
                    "\(status.shards.committed) of \(status.shards.total) shards are kept: the same command goes on with them"
                status.error?.advice = error.advice.map { "\($0); \(kept)" } ?? kept
            }
            return status
        }
    }

    /// Removes what earlier processes made of other jobs with the same output.
    ///
    /// - Returns: remarks about them.
    private func giveUp(_ others: [Resumption]) async -> [String] {
        for other in others where other.error == nil {
            try? await manager.cancel(other.job, reason: "another job takes its place", by: .local)
        }
        return others.map { other in
            "begins anew: the unfinished output of an earlier run was of no use, "
                + (other.error.map { "\($0)" } ?? "since recipe, inputs or options were others")
        }
    }

    private func work(as worker: JobManager.WorkerID, on messages: AsyncStream<Message>) async {
        let runner = LeaseRunner(
            pool: pool, inputs: LocalInputs(planningHostWith: .wholeMachine), outputs: LocalOutputs(mode: .direct))
        await withDiscardingTaskGroup { group in
            for await message in messages {
                switch message {
                case .lease(let lease):
                    group.addTask {
                        switch await runner.run(lease, returning: NoOutput()) {
                        case .success(let done): await manager.finished(done, by: worker)
                        case .failure(let error): await manager.failed(lease.attempt, by: worker, error: error)
                        case nil: break
                        }
                    }
                case .revoke(let revoke): runner.stop(revoke.attempt)
                default: break
                }
            }
            runner.stopAll()
        }
    }
}

/// For shards that only look at their inputs: all others write directly.
private struct NoOutput: ShardOutput {
    var pieceSize: Int { TreeDigest.blockSize }

    func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws { throw none }

    func store(
        byteCount: Int, tensor: Int, offset: Int, fill: (UnsafeMutableRawPointer, (Int) throws -> Void) throws -> Void
    ) throws { throw none }

    private var none: TesseraError { TesseraError(.internal, "a shard without output has a block") }

    func finish() {}
}
