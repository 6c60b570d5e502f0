package import Coordinator
package import Core
import Glibc
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
            guard !memory.holds(plan.largestNeed) else { return }
            let options = WorkerMemory.options(for: plan.largestNeed, threads: threads, isConnected: false)
            throw TesseraError(
                .usage,
                "the job needs more memory than --memory gives it: \(Quantity.bytes(memory.total)) for "
                    + Quantity.threads(threads),
                file: plan.recipeName, tensor: plan.largestTensor,
                advice: options.map { "start it with \($0)" } ?? "no memory would be enough: merge smaller models")
        }
        settings.checksDirectBlocks = false
        // Who waits for the command is told, and starts it again.
        settings.pausesJobs = false
        settings.submittersComeBack = true
        // The user may come back after days.
        settings.countsPauses = false
        self.state = state
        // The disk may have space later, and a file system may come back.
        settings.keepsJob = { $0.code.isTransient }
        manager = JobManager(settings: settings, log: log, journal: state?.journal ?? NoJournal())
        pool = ComputePool(threads: threads, memory: memory.tensors)
        self.memory = memory
    }

    /// Runs one job to its end, or goes on with it where an earlier process was killed.
    ///
    /// - Parameters:
    ///   - discardsOtherWork: whether finished shards of another job for the same output may be removed.
    ///   - watch: looks at the job while it runs; ends when cancelled.
    /// - Throws: `RunInterruption` when the caller cancels the run; what is done stays. `cannotCreate` when there are finished
    ///   shards of another job, before anything is touched.
    /// - Returns: the job, and how many of its shards an earlier process made.
    package func run(
        _ submission: Submit, discardsOtherWork: Bool = false,
        watch: @escaping @Sendable (JobManager, Submitted) async -> Void
    ) async throws -> (status: JobStatus, keptShards: Int) {
        defer { state?.removeIfDone() }
        let left = try state?.journal.load().jobs ?? []
        let planned: PlannedJob
        do {
            planned = try await manager.plan(submission, owner: PeerIdentity.local.owner)
        } catch {
            guard Task.isCancelled else { throw error }
            throw RunInterruption(kept: left.first { $0.hasWork }.map { KeptWork(of: $0) })
        }
        var others = left.filter { !planned.isSame(as: $0) }
        if !discardsOtherWork, let other = others.first(where: \.hasWork) { throw Self.refusal(of: planned, after: other) }
        let earlier = try await manager.resume(only: planned)
        for resumption in earlier {
            guard var error = resumption.error, let job = left.first(where: { $0.id == resumption.job }) else { continue }
            // It begins anew, unless something would be lost.
            others.append(job)
            guard job.hasWork, !discardsOtherWork || error.code.isTransient else { continue }
            let kept = KeptWork(of: job)
            // Of inputs that have changed, nothing goes on.
            let words = error.code == .badData ? "\(kept.done); to discard them: \(kept.discarding)" : kept.description
            error.advice = error.advice.map { "\($0); \(words)" } ?? words
            throw error
        }
        do {
            return try await work(on: planned, after: earlier.filter { $0.error == nil }, inPlaceOf: others, watch: watch)
        } catch let stop as Stop {
            // By now all that was being committed has been, and a job that was about to end may have ended.
            if let job = stop.jobs.first, let status = await manager.end(of: job), status.state.isEnd { return (status, 0) }
            throw await interruption(of: stop.jobs)
        }
    }

    /// The caller cancels the run.
    private struct Stop: Error { let jobs: [JobID] }

    private func work(
        on planned: PlannedJob, after earlier: [Resumption], inPlaceOf others: [JournaledJob],
        watch: @escaping @Sendable (JobManager, Submitted) async -> Void
    ) async throws -> (status: JobStatus, keptShards: Int) {
        let before = await committedShards(of: earlier)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await manager.run() }
            let answer: Submitted
            do {
                answer = try await manager.submit(planned, by: .local)
            } catch {
                guard Task.isCancelled else { throw error }
                // What an earlier run did stays.
                throw Stop(jobs: earlier.map(\.job))
            }
            let submitted = Submitted(
                job: answer.job, remarks: answer.remarks + (await discard(others)),
                warnings: answer.warnings ?? [])
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
            if let found = status, !found.state.isEnd {
                // Interrupted. A job whose output is about to appear can only be waited for.
                if found.state != .publishing { throw Stop(jobs: [found.id]) }
                status = await Task { await manager.end(of: found.id) }.value
            }
            guard var status else { throw TesseraError(.internal, "the job \(submitted.job) is gone") }
            if let error = status.error, state?.holds(submitted.job) == true {
                let kept = KeptWork(of: status).description
                status.error?.advice = error.advice.map { "\($0); \(kept)" } ?? kept
            }
            return (status, before[status.id] ?? 0)
        }
    }

    private func committedShards(of jobs: [Resumption]) async -> [JobID: Int] {
        var committed: [JobID: Int] = [:]
        for job in jobs {
            committed[job.job] = await manager.status(StatusRequest(job: job.job, limit: 0), for: .local)?.jobs.first?.shards
                .committed
        }
        return committed
    }

    /// Leaves the jobs to another process that goes on with them. Those of which nothing is done yet are cancelled.
    private func interruption(of jobs: [JobID]) async -> RunInterruption {
        // A shard may have been made durable after the manager had stopped counting.
        let durable = (try? state?.journal.load())?.jobs ?? []
        var kept: KeptWork?
        for job in jobs {
            if let known = durable.first(where: { $0.id == job }), known.hasWork, state?.holds(job) == true {
                kept = KeptWork(of: known)
            } else {
                // In a task of its own: the caller's is cancelled.
                try? await Task { try await manager.cancel(job, reason: "cancelled", by: .local) }.value
            }
        }
        return RunInterruption(kept: kept)
    }

    /// Removes what earlier processes left of other jobs with the same output.
    ///
    /// - Returns: remarks about them.
    private func discard(_ others: [JournaledJob]) async -> [String] {
        var remarks: [String] = []
        for other in others {
            let done = other.hasWork ? KeptWork(of: other).shards : "no finished shard"
            // What cannot be removed is found by the next run of this output.
            guard (try? await manager.discard(other)) != nil else { continue }
            remarks.append("begins anew: discarded \(done) of an earlier run of \(other.submission.recipeName)")
        }
        return remarks
    }

    /// Why a job is not begun in the place of another one.
    private static func refusal(of planned: PlannedJob, after other: JournaledJob) -> TesseraError {
        let kept = KeptWork(of: other), name = other.submission.recipeName
        let (difference, finish) =
            switch planned.difference(from: other) {
            case .recipe: ("with another text", "to finish that run, give its command again")
            case .options: ("with other options", "to finish that run, give its command again")
            case .inputs(let file): ("with \(file.map { "another \($0)" } ?? "other inputs")", "its inputs have changed since")
            }
        let overwrite = planned.submission.options.overwrite ? "" : ", or add --overwrite"
        return TesseraError(
            .cannotCreate, "holds \(kept.shards) of an unfinished run of \(name) \(difference)", file: kept.directory,
            advice: "\(finish); to discard it: \(kept.discarding)\(overwrite)")
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

/// The run was cancelled by its caller.
package struct RunInterruption: Error {
    /// `nil` where nothing was done yet.
    package let kept: KeptWork?
}

/// What stays of a job that did not come to its end, for another run that goes on with it.
package struct KeptWork: Sendable, CustomStringConvertible {
    package let done: String
    /// Removes it.
    package let discarding: String
    /// Such as `5 of 24 shards`.
    let shards: String
    /// Of the unfinished output.
    let directory: String

    init(of job: JobStatus) {
        self.init(job.id, output: job.output, committed: job.shards.committed, total: job.shards.total)
    }

    init(of job: JournaledJob) {
        let total = job.plans.reduce(0) { $0 + $1.shardCount }
        self.init(job.id, output: job.output, committed: min(total, job.shards.count), total: total)
    }

    private init(_ job: JobID, output: String, committed: Int, total: Int) {
        directory = LocalOutputStore.partialPath(of: output, job: "\(job)")
        shards = "\(committed) of \(total) shards"
        done = "\(shards) are kept"
        discarding = "rm -r \([directory, RunState.path(beside: output)].map(\.shellWord).joined(separator: " "))"
    }

    package var description: String { "\(done): the same command goes on with them; to discard them: \(discarding)" }
}

extension JournaledJob {
    /// Whether finished shards of the job are there.
    fileprivate var hasWork: Bool { !shards.isEmpty && access(KeptWork(of: self).directory, F_OK) == 0 }
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
