import Core
import Dispatch
import Journal
import Logging
import Protocol
import Synchronization
import TestSupport
import Testing
import Work

@testable import Coordinator

/// The actor with a store in memory, a clock that is moved by hand, and a worker that does what the test says.
@Suite(.serialized) struct JobManagerTests {
    private let jobs: TestJobs
    private let store = MemoryOutputStore()
    private let clock = HandClock()
    private let manager: JobManager

    init() throws {
        jobs = try TestJobs()
        manager = Self.manager(clock, store)
    }

    private static func manager(
        _ clock: HandClock, _ store: MemoryOutputStore, journal: any JobJournal = NoJournal()
    ) -> JobManager {
        JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "test", incarnation: 1),
            log: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), time: clock.source, outputs: store,
            journal: journal)
    }

    /// Runs the manager while `body` runs.
    private func running<Result: Sendable>(_ body: () async throws -> Result) async throws -> Result {
        let run = Task { await manager.run() }
        do {
            let result = try await body()
            run.cancel()
            await run.value
            return result
        } catch {
            run.cancel()
            await run.value
            throw error
        }
    }

    /// A worker that finishes every lease at once.
    private func attachWorker() async -> Task<Void, Never> {
        let (leases, input) = AsyncStream<Lease>.makeStream()
        let worker = await manager.attach(.test()) { if case .lease(let lease) = $0 { input.yield(lease) } }
        return Task {
            for await lease in leases { if let done = try? lease.done() { await manager.finished(done, by: worker) } }
        }
    }

    @Test(arguments: [TestJobs.linear, TestJobs.store])
    func aJobRunsToItsEnd(recipe: String) async throws {
        let events = manager.events.events()
        let status = try await running {
            let worker = await attachWorker()
            defer { worker.cancel() }
            let id = try await manager.submit(jobs.submission(recipe)).job
            return try #require(await manager.end(of: id))
        }
        #expect(status.state == .done && status.error == nil, "\(status)")
        let files = try #require(store.outputs["/out"])
        #expect(files["tessera.manifest.json"] != nil && files["tessera.report.json"] != nil && store.unfinished == [])
        var plans = 0, ends: [JobEvent] = [], committed = 0
        for await event in events {
            switch event {
            case .planned: plans += 1
            case .committed: committed += 1
            case .ended: ends.append(event)
            default: continue
            }
            if !ends.isEmpty { break }
        }
        #expect(plans == (recipe == TestJobs.store ? 2 : 1) && committed == status.shards.total)
        #expect(ends == [.ended(status.id, .done, nil)])
    }

    /// A job is cancelled while its results are being committed; the answer, good or bad, changes nothing any more.
    @Test(arguments: [false, true])
    func anAnswerToACommitMayComeTooLate(fails: Bool) async throws {
        let journal = MemoryJournal(), manager = Self.manager(clock, store, journal: journal)
        let begun = DispatchSemaphore(value: 0), goOn = DispatchSemaphore(value: 0)
        journal.beforeCommits {
            begun.signal()
            goOn.wait()
        }
        if fails { journal.failCommits(with: TesseraError(.io, "late")) }
        let run = Task { await manager.run() }
        let (leases, input) = AsyncStream<Lease>.makeStream()
        let worker = await manager.attach(.test(threads: 3)) { if case .lease(let lease) = $0 { input.yield(lease) } }
        let id = try await manager.submit(jobs.submission()).job
        var iterator = leases.makeAsyncIterator()
        for _ in 0..<3 { await manager.finished(try #require(await iterator.next()).done(), by: worker) }
        await onOwnThread { begun.wait() }
        #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.shards.leased == 3)
        let cancel = Task { try await manager.cancel(id, reason: "test") }
        while await manager.state.jobs[id]?.isRunning == true { await Task.yield() }
        for _ in 0..<9 { goOn.signal() }
        try await cancel.value
        run.cancel()
        await run.value
        let job = try #require(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first)
        #expect(job.state == .cancelled && job.shards.committed == 0)
        #expect(store.unfinished == [] && store.outputs.isEmpty)
        #expect(journal.contents.jobs.isEmpty && journal.contents.ended.map(\.status.state) == [.cancelled])
    }

    /// A worker says that it wrote what it did not write: its shards go to another.
    @Test func aWorkerThatWroteNothingIsNotBelieved() async throws {
        let status = try await running {
            let lies = Mutex(0), (leases, input) = AsyncStream<Lease>.makeStream()
            let liar = await manager.attach(.test("liar", threads: 3)) { if case .lease(let lease) = $0 { input.yield(lease) } }
            let lying = Task {
                for await lease in leases {
                    let digests = try lease.work.outputs.map {
                        Array(repeating: try Digest.sha256(of: [1]), count: $0.blockCount)
                    }
                    let result = ShardResult(digests: digests, statistics: [])
                    await manager.finished(ShardDone(attempt: lease.attempt, result: result, delivery: .direct), by: liar)
                    lies.withLock { $0 += 1 }
                }
            }
            defer { lying.cancel() }
            let events = manager.events.events()
            let id = try await manager.submit(jobs.submission()).job
            var failures = 0
            for await event in events {
                guard case .failed(_, let worker, let error) = event else { continue }
                #expect(worker.name == "liar" && error.code == .io && error.problem.contains("is not in the output"))
                failures += 1
                if failures == 3 { break }
            }
            await manager.detach(liar, reason: "found out", isLoss: false)
            let worker = await attachWorker()
            defer { worker.cancel() }
            // The pauses after failures.
            try await eventually("the end of the job") {
                clock.advance(by: .seconds(1))
                return await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.state.isEnd == true
            }
            return try #require(await manager.end(of: id))
        }
        #expect(status.state == .done && status.attempts >= 6, "\(status)")
    }

    @Test func aCancelledJobLeavesNothing() async throws {
        try await running {
            let id = try await manager.submit(jobs.submission()).job
            #expect(store.unfinished.count == 1)
            try await manager.cancel(id, reason: "test")
            #expect(store.unfinished == [] && store.outputs.isEmpty)
            #expect(await manager.end(of: id)?.state == .cancelled)
            try await manager.cancel(id, reason: "again")
        }
    }

    /// The second layout of a job with an analysis stage: cancelled while it runs, it comes too late.
    @Test func cancelDuringTheSecondLayoutLeavesNothing() async throws {
        let layouts = Atomic(0), begun = DispatchSemaphore(value: 0), goOn = DispatchSemaphore(value: 0)
        store.before(.layOut) {
            guard layouts.wrappingAdd(1, ordering: .relaxed).newValue == 2 else { return }
            begun.signal()
            goOn.wait()
        }
        try await running {
            let worker = await attachWorker()
            defer { worker.cancel() }
            let id = try await manager.submit(jobs.submission(TestJobs.store)).job
            await onOwnThread { begun.wait() }
            try await manager.cancel(id, reason: "test")
            goOn.signal()
            #expect(await manager.end(of: id)?.state == .cancelled)
        }
        #expect(layouts.load(ordering: .relaxed) == 2)
        #expect(store.unfinished == [] && store.outputs.isEmpty)
    }

    /// Removing a large output takes minutes; nobody waits for it who need not.
    @Test func slowStoresHoldNobodyElseUp() async throws {
        let goOn = DispatchSemaphore(value: 0), begun = DispatchSemaphore(value: 0)
        store.before(.abort) {
            begun.signal()
            goOn.wait()
        }
        try await running {
            let worker = await manager.attach(.test()) { _ in }
            let ids = [
                try await manager.submit(jobs.submission(output: "/a")).job,
                try await manager.submit(jobs.submission(output: "/b")).job,
            ]
            let cancels = ids.map { id in Task { try await manager.cancel(id, reason: "test") } }
            // Every thread for publishing and removing is busy now.
            for _ in ids { await onOwnThread { begun.wait() } }
            await manager.heartbeat(worker, [])
            #expect(await manager.status(StatusRequest(job: ids[0], limit: 0))?.jobs.first?.state == .running)
            _ = try await manager.submit(jobs.submission(output: "/c"))
            _ = try await manager.pools.writing.run { 1 }
            _ = try await manager.pools.reading.run { 1 }
            for _ in 0..<9 { goOn.signal() }
            for cancel in cancels { try await cancel.value }
            #expect(await manager.status(StatusRequest(job: ids[0], limit: 0))?.jobs.first?.state == .cancelled)
        }
        #expect(store.unfinished == [])
    }

    @Test func aFullStoreRefusesTheJob() async throws {
        store.limit(to: 10)
        let error = try await running {
            await #expect(throws: TesseraError.self) { try await manager.submit(jobs.submission()) }
        }
        #expect(error?.code == .io && store.unfinished == [])
    }

    @Test func anOutputThatCannotBePublishedFailsTheJobAndGoes() async throws {
        store.fail(.commit, with: TesseraError(.io, "the disk is broken"))
        let status = try await running {
            let worker = await attachWorker()
            defer { worker.cancel() }
            let id = try await manager.submit(jobs.submission()).job
            return try #require(await manager.end(of: id))
        }
        #expect(status.state == .failed && status.error?.problem == "the disk is broken")
        #expect(store.unfinished == [] && store.outputs.isEmpty)
    }

    @Test func whoIsInterruptedLeavesNothing() async throws {
        let id = try await running { try await manager.submit(jobs.submission()).job }
        #expect(store.unfinished == [])
        #expect(await manager.end(of: id)?.state == .cancelled)
        await #expect(throws: TesseraError.self) { try await manager.submit(jobs.submission()) }
    }

    /// Draining looks at the jobs that have not ended, and at no other.
    @Test func drainingWaitsForTheJobsThatAreThere() async throws {
        try await running {
            let first = try await manager.submit(jobs.submission(output: "/a")).job
            #expect(await manager.status(StatusRequest())?.draining == nil)
            try await manager.cancel(first, reason: "test")
            _ = try await manager.submit(jobs.submission(output: "/b"))
            let drain = Task { await manager.drain() }
            while await manager.takesJobs { await Task.yield() }
            // Clients and the page are told, not only the log and probes.
            #expect(await manager.status(StatusRequest())?.draining == true)
            #expect(await manager.news(of: FeedChanges(watched: nil), refreshes: true, for: .local).draining == true)
            let worker = await attachWorker()
            await drain.value
            worker.cancel()
        }
        #expect(store.outputs.keys.sorted() == ["/b"])
    }

    /// Leases end by the clock that the manager was given.
    @Test func aLeaseEndsWhenTheClockSaysSo() async throws {
        try await running {
            let revokes = Mutex(0)
            _ = await manager.attach(.test(threads: 1)) { if case .revoke = $0 { revokes.withLock { $0 += 1 } } }
            _ = try await manager.submit(jobs.submission())
            // The manager keeps time, and looks after jobs that could not be taken up.
            func settle() async { while clock.sleeperCount < 2 { await Task.yield() } }
            await settle()
            // In steps: of a long pause nobody would be blamed.
            for _ in 0..<31 {
                clock.advance(by: .seconds(1))
                await settle()
            }
            #expect(revokes.withLock { $0 } == 0)
            clock.advance(by: .seconds(2))
            await settle()
            #expect(revokes.withLock { $0 } == 1)
        }
    }
}

/// Calls that wait would starve the few threads that all tests share.
private func onOwnThread(_ body: @escaping @Sendable () -> Void) async {
    await withCheckedContinuation { continuation in
        DispatchQueue(label: "test").async {
            body()
            continuation.resume()
        }
    }
}
