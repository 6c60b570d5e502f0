package import Core
import FoundationEssentials
package import Logging
package import Operators
import Planning
package import Protocol
package import Work

/// A worker as the coordinator knows it, however it is connected.
package struct WorkerDescription: Sendable {
    package let name: String
    /// Where it connected from, or `local`.
    package let address: String
    package let build: String
    package let threads: Int
    /// Bytes.
    package let memory: Int
    /// Bytes of them for the tensors that it works on.
    package let tensorMemory: Int

    package init(name: String, address: String, build: String, threads: Int, memory: Int, tensorMemory: Int) {
        self.name = name
        self.address = address
        self.build = build
        self.threads = threads
        self.memory = memory
        self.tensorMemory = tensorMemory
    }
}

/// Where a block of a leased shard belongs.
package struct BlockTarget: Sendable {
    package let assembler: Assembler
    package let part: Int
    /// Bytes from the beginning of the part.
    package let offset: Int
}

/// All jobs and workers of one coordinator: it feeds events to the scheduler and does what the scheduler says.
///
/// It owns no socket: connections, or `run`'s own worker, attach themselves with a closure that takes messages.
package actor JobManager {
    package struct Settings: Sendable {
        package var inputRoots: Roots
        /// Absolute path that every output must lie under; `nil` allows any.
        package var outputRoot: String?
        package var policy: SchedulerPolicy
        /// Refuses what no worker will ever have the memory for, where all workers are known.
        package var checkMemory: @Sendable (MemoryNeed, _ recipe: String) throws(TesseraError) -> Void = { _, _ in }
        /// Version named in the manifest and to peers.
        package var build: String

        package init(inputRoots: Roots, outputRoot: String? = nil, policy: SchedulerPolicy = SchedulerPolicy(), build: String) {
            self.inputRoots = inputRoots
            self.outputRoot = outputRoot
            self.policy = policy
            self.build = build
        }
    }

    package typealias WorkerID = Scheduler.WorkerID

    struct Attached {
        let description: WorkerDescription
        let since: Duration
        let send: @Sendable (Message) -> Void
        var isDraining = false
        var shardsDone = 0
        var bytesDone = 0
        var bytesDirect = 0
    }

    private let settings: Settings
    let log: Logger
    private let origin = ContinuousClock.now
    private let machine = kernelIdentity()
    private(set) var scheduler: Scheduler
    private(set) var jobs: [JobID: Job] = [:]
    private(set) var order: [JobID] = []
    private(set) var workers: [WorkerID: Attached] = [:]
    private var nextWorker = 1
    private var isDraining = false
    private(set) var connectionCount = 0
    private var waiters: [JobID: [Int: CheckedContinuation<Void, Never>]] = [:]
    private var nextWaiter = 0
    private let (finishedJobs, finishedJobsInput) = AsyncStream<JobID>.makeStream()
    private let (analyzedJobs, analyzedJobsInput) = AsyncStream<JobID>.makeStream()

    package init(settings: Settings, log: Logger) {
        self.settings = settings
        self.log = log
        scheduler = Scheduler(policy: settings.policy)
    }

    var now: Duration { ContinuousClock.now - origin }

    /// Keeps time and publishes finished jobs, until cancelled; then nothing of unfinished jobs stays.
    package func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.keepTime() }
            group.addTask {
                await withDiscardingTaskGroup { group in
                    for await job in self.analyzedJobs {
                        group.addTask { await self.continueJob(job) }
                    }
                }
            }
            for await job in finishedJobs {
                group.addTask { await self.publish(job) }
            }
            group.cancelAll()
        }
        for id in order { try? cancel(id, reason: "the coordinator was interrupted") }
    }

    private func keepTime() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(250))
            handle(.tick)
        }
    }

    // MARK: Jobs

    /// Plans the job and queues its shards.
    ///
    /// - Throws: `Problems` with everything that is wrong with the recipe and its inputs, or `TesseraError` for the output.
    package func submit(_ submission: Submit) async throws -> Submitted {
        guard !isDraining else { throw Self.shuttingDown }
        let output = try OutputPath.resolve(
            submission.output, workingDirectory: submission.workingDirectory, root: settings.outputRoot)
        let request = PlanRequest(
            recipe: submission.recipe, recipeName: submission.recipeName, workingDirectory: submission.workingDirectory,
            roots: settings.inputRoots, maxPartBytes: submission.options.maxPartBytes, shardBytes: submission.options.shardBytes,
            strict: submission.options.strict, seed: submission.options.seed ?? 0)
        let overwrite = submission.options.overwrite, settings = settings
        let id = JobID.random()
        let (plan, assembler) = try await blocking {
            let plan = try Planner.plan(request)
            try settings.checkMemory(plan.largestNeed, plan.recipeName)
            let assembler = try Assembler(output: output, job: "\(id)", overwrite: overwrite)
            try assembler.lay(out: plan)
            return (plan, assembler)
        }
        guard !isDraining else {
            assembler.discard()
            throw Self.shuttingDown
        }
        jobs[id] = Job(
            id: id, request: request, plan: plan, assembler: assembler, output: output, options: submission.options,
            startedAt: now,
            submittedAt: Date().timeIntervalSince1970)
        order.append(id)
        log.info("job added", metadata: ["job": "\(id)", "shards": "\(plan.shardCount)", "output": "\(output)"])
        handle(.jobAdded(id, stages: Self.costs(plan), hasMoreStages: plan.hasMoreStages))
        return Submitted(job: id, remarks: plan.remarks)
    }

    private static func costs(_ plan: Plan) -> [[ShardCost]] {
        zip(plan.stages, plan.memory).map { stage, memory in
            zip(stage, memory).map { ShardCost(label: $0.label, cost: $0.sourceByteCount, memory: $1) }
        }
    }

    /// Plans the rest of a job whose inputs have been looked at.
    private func continueJob(_ id: JobID) async {
        guard let job = jobs[id], job.state == .running, let assembler = job.assembler, job.plan.hasMoreStages else { return }
        let settings = settings
        do {
            let statistics = try job.allStatistics()
            let plan = try await blocking {
                let plan = try Planner.plan(job.request, after: statistics)
                try settings.checkMemory(plan.largestNeed, plan.recipeName)
                try assembler.lay(out: plan)
                return plan
            }
            guard jobs[id]?.state == .running else { return }
            jobs[id]?.append(plan, after: statistics, assembler: assembler)
            handle(.stagesAdded(id, stages: Self.costs(plan), hasMoreStages: plan.hasMoreStages))
        } catch {
            abandon(id, error: TesseraError(wrapping: error))
        }
    }

    private static let shuttingDown = TesseraError(.temporary, "the coordinator is shutting down and takes no more jobs")

    /// Ends a job that is running; one that has ended stays as it is.
    ///
    /// - Throws: `inputMissing` when there is no such job, `temporary` when its output is about to appear.
    package func cancel(_ id: JobID, reason: String) throws(TesseraError) {
        guard let job = jobs[id] else {
            throw TesseraError(.inputMissing, "the coordinator knows no job \(id)", advice: "tessera status lists the jobs")
        }
        guard job.state != .publishing else {
            throw TesseraError(.temporary, "the job \(id) is finished but for its last step, and can no longer be cancelled")
        }
        handle(.jobCancelled(id))
        end(id, as: .cancelled, error: TesseraError(.cancelled, reason))
    }

    /// Ends a running job whose output cannot be written.
    package func abandon(_ id: JobID, error: TesseraError) {
        guard jobs[id]?.state == .running else { return }
        handle(.jobCancelled(id))
        end(id, as: .failed, error: error)
    }

    /// Takes no more jobs; returns when those that are there have ended.
    func drain() async {
        isDraining = true
        for id in order { _ = await end(of: id) }
        for worker in workers.values { worker.send(.goodbye("the coordinator shuts down")) }
    }

    var takesJobs: Bool { !isDraining }

    func connected(_ change: Int) { connectionCount += change }

    /// Whether an input file belongs to a job that is being worked on: no other file is handed out.
    package func needs(_ file: InputFile) -> Bool {
        jobs.values.contains { $0.state == .running && $0.files.contains(file) }
    }

    /// The job's state once it has ended, however it ended, or as it is when the waiting is cancelled.
    package func end(of id: JobID) async -> JobStatus? {
        guard let job = jobs[id] else { return nil }
        if !job.state.isEnd {
            let waiter = nextWaiter
            nextWaiter += 1
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    if Task.isCancelled {
                        continuation.resume()
                    } else {
                        waiters[id, default: [:]][waiter] = continuation
                    }
                }
            } onCancel: {
                Task { await self.stopWaiting(waiter, for: id) }
            }
        }
        return status(of: id)
    }

    private func stopWaiting(_ waiter: Int, for id: JobID) { waiters[id]?.removeValue(forKey: waiter)?.resume() }

    private func end(_ id: JobID, as state: JobState, error: TesseraError? = nil) {
        guard jobs[id]?.state.isEnd == false else { return }
        jobs[id]?.state = state
        jobs[id]?.error = error
        jobs[id]?.endedAt = now
        if state != .done { jobs[id]?.assembler?.discard() }
        jobs[id]?.assembler = nil
        log.info("job ended", metadata: ["job": "\(id)", "state": "\(state)", "error": "\(error?.description ?? "none")"])
        for waiter in waiters.removeValue(forKey: id) ?? [:] { waiter.value.resume() }
    }

    private func publish(_ id: JobID) async {
        guard let job = jobs[id], job.state == .publishing, let assembler = job.assembler else { return }
        do {
            let blocks = try job.blocksByPart(), statistics = try job.statistics()
            let publisher = Publisher(
                plan: job.plan, assembler: assembler, inputs: settings.inputRoots.files, build: settings.build)
            let report = job.report(endedAt: now)
            try await blocking {
                try publisher.publish(blocks: blocks, statistics: statistics, report: report, sha256Sums: job.options.sha256Sums)
            }
            end(id, as: .done)
        } catch {
            end(id, as: .failed, error: TesseraError(wrapping: error))
        }
    }

    // MARK: Workers

    /// - Parameter send: takes messages for the worker; must not wait.
    package func attach(_ description: WorkerDescription, send: @escaping @Sendable (Message) -> Void) -> WorkerID {
        let id = nextWorker
        nextWorker += 1
        workers[id] = Attached(description: description, since: now, send: send)
        log.info("worker joined", metadata: ["worker": "\(description.name)", "address": "\(description.address)"])
        handle(.workerJoined(id, host: description.address, slots: description.threads, memory: description.tensorMemory))
        return id
    }

    package func drain(_ worker: WorkerID) {
        workers[worker]?.isDraining = true
        handle(.workerDraining(worker))
    }

    package func detach(_ worker: WorkerID, reason: String) {
        guard let gone = workers.removeValue(forKey: worker) else { return }
        log.info("worker left", metadata: ["worker": "\(gone.description.name)", "reason": "\(reason)"])
        handle(.workerLeft(worker))
    }

    package func heartbeat(_ worker: WorkerID, _ leases: [LeaseProgress]) {
        handle(.heartbeat(worker, leases))
    }

    /// Where a block belongs, or `nil` when the attempt it comes from is no longer wanted.
    package func target(
        of attempt: Attempt, from worker: WorkerID, tensor: Int, offset: Int, byteCount: Int
    ) throws(TesseraError) -> BlockTarget? {
        guard let job = jobs[attempt.job], let assembler = job.assembler, job.state == .running,
            scheduler.holdsLease(worker, attempt)
        else { return nil }
        let planned = job.shards[attempt.shard], outputs = planned.outputs
        guard outputs.indices.contains(tensor), offset % outputs[tensor].blockSize == 0,
            (0..<outputs[tensor].byteCount).contains(offset),
            byteCount == min(outputs[tensor].blockSize, outputs[tensor].byteCount - offset)
        else {
            throw TesseraError(
                .protocolMismatch, "a block of \(byteCount) bytes at \(offset) does not fit tensor \(tensor) of \(planned.label)")
        }
        return BlockTarget(assembler: assembler, part: outputs[tensor].part, offset: outputs[tensor].offset + offset)
    }

    package func stored(tensor: Int, offset: Int, of attempt: Attempt) {
        jobs[attempt.job]?.arrived(BlockPosition(tensor: tensor, offset: offset), of: attempt)
    }

    package func finished(_ done: ShardDone, by worker: WorkerID) {
        let attempt = done.attempt
        do throws(TesseraError) {
            try jobs[attempt.job]?.report(done.result, of: attempt, delivery: done.delivery ?? .relayed)
            handle(.shardFinished(worker, attempt))
        } catch {
            failed(attempt, by: worker, error: error)
        }
    }

    package func failed(_ attempt: Attempt, by worker: WorkerID, error: TesseraError) {
        log.warning("attempt failed", metadata: ["job": "\(attempt.job)", "shard": "\(attempt.shard)", "error": "\(error)"])
        handle(.shardFailed(worker, attempt, error))
    }

    // MARK: Scheduling

    private func handle(_ event: Scheduler.Event) {
        var events = [event]
        while let event = events.popLast() {
            for action in scheduler.handle(event, at: now) {
                if let answer = perform(action) { events.append(answer) }
            }
        }
    }

    /// Does what the scheduler says; returns the event that tells it how that went.
    private func perform(_ action: Scheduler.Action) -> Scheduler.Event? {
        switch action {
        case .lease(let worker, let attempt, let lasting):
            guard let job = jobs[attempt.job], let attached = workers[worker] else { return nil }
            jobs[attempt.job]?.attempts += 1
            let lease = Lease(
                attempt: attempt, milliseconds: Int(lasting / .milliseconds(1)), work: job.work(attempt.shard),
                output: job.place(attempt.shard, outputRoot: settings.outputRoot, machine: machine))
            attached.send(.lease(lease))
        case .revoke(let worker, let attempt, let reason):
            workers[worker]?.send(.revoke(Revoke(attempt: attempt, reason: reason)))
        case .stale(let worker, let attempt):
            log.debug(
                "stale result", metadata: ["worker": "\(worker)", "shard": "\(attempt.shard)", "epoch": "\(attempt.epoch)"])
        case .commit(let worker, let attempt):
            let name = workers[worker]?.description.name ?? "gone"
            guard let delivery = jobs[attempt.job]?.commit(attempt, worker: name) else {
                return .commitFailed(attempt, TesseraError(.temporary, "the result of shard \(attempt.shard) is not there"))
            }
            workers[worker]?.shardsDone += 1
            let bytes = jobs[attempt.job]?.shards[attempt.shard].byteCount ?? 0
            workers[worker]?.bytesDone += bytes
            if delivery == .direct { workers[worker]?.bytesDirect += bytes }
            return .shardCommitted(attempt)
        case .jobContinues(let id): analyzedJobsInput.yield(id)
        case .jobFinished(let id):
            jobs[id]?.state = .publishing
            finishedJobsInput.yield(id)
        case .jobFailed(let id, let error): end(id, as: .failed, error: error)
        }
        return nil
    }
}
