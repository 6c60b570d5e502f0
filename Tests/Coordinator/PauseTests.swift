import Core
import Journal
import Logging
import Protocol
import Synchronization
import TestSupport
import Testing
import Work

@testable import Coordinator

/// Disks that cannot be written for a while: the job waits for them, and nothing that is committed is lost.
@Suite(.serialized) struct PauseTests {
    private let jobs: TestJobs
    private let store = MemoryOutputStore()
    private let journal = MemoryJournal()
    private let clock = HandClock()
    private static let trouble = TesseraError(.io, "no space left on device", file: "/out.partial-x/part", advice: "free some")

    init() throws { jobs = try TestJobs() }

    /// One life of a coordinator with a worker of one thread.
    private func life<Result: Sendable>(
        _ incarnation: UInt32 = 1, _ body: (JobManager, Worker) async throws -> Result
    ) async throws -> Result {
        let manager = JobManager(
            settings: JobManager.Settings(inputRoots: .wholeMachine, build: "test", incarnation: incarnation), log: .silent,
            time: clock.source, outputs: store, journal: journal)
        try await manager.resume()
        let run = Task { await manager.run() }
        let worker = await Worker(manager)
        let result: Swift.Result<Result, any Error>
        do { result = .success(try await body(manager, worker)) } catch { result = .failure(error) }
        worker.leave()
        run.cancel()
        await run.value
        return try result.get()
    }

    /// Finishes each lease at once, or as many as it is told.
    private final class Worker: Sendable {
        private let shards = Mutex<[Int]>([])
        private let task = Mutex<Task<Void, Never>?>(nil)
        private let allowed = Mutex(Int.max)

        init(_ manager: JobManager) async {
            let (messages, input) = AsyncStream<Message>.makeStream()
            let id = await manager.attach(.test(threads: 1)) { input.yield($0) }
            let task = Task {
                for await message in messages {
                    guard case .lease(let lease) = message else { continue }
                    self.shards.withLock { $0.append(lease.attempt.shard) }
                    while self.allowed.withLock({ $0 == 0 }), !Task.isCancelled { try? await Task.sleep(for: .milliseconds(1)) }
                    guard !Task.isCancelled, let done = try? lease.done() else { return }
                    self.allowed.withLock { $0 -= 1 }
                    await manager.finished(done, by: id)
                }
            }
            self.task.withLock { $0 = task }
        }

        /// How many leases may be finished from now on.
        func allow(_ count: Int) { allowed.withLock { $0 = count } }
        func leave() { task.withLock { $0?.cancel() } }
        /// The shards that it was given, in order.
        var given: [Int] { shards.withLock { $0 } }
    }

    private func status(_ id: JobID, _ manager: JobManager) async -> JobStatus? {
        await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first
    }

    private func waitFor(_ state: JobState, of id: JobID, _ manager: JobManager) async throws {
        try await eventually("the state \(state)") {
            let now = await status(id, manager)?.state
            // Probes come in time; leases do not run out on a machine that has no time for their worker.
            clock.advance(by: now == .paused ? .seconds(1) : .milliseconds(10))
            return now == state
        }
    }

    /// After a failed sync nobody knows which bytes are lost: what is not committed is done again, though its bytes are written.
    @Test func bytesThatDoNotBecomeDurableAreMadeAgain() async throws {
        store.fail(.sync, with: Self.trouble)
        store.fail(.probe, with: Self.trouble)
        try await life { manager, worker in
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            let paused = try #require(await status(id, manager))
            #expect(paused.error == Self.trouble && paused.blockedReason?.contains("goes on by itself") == true)
            #expect(paused.shards.committed == 0 && paused.shards.leased == 0 && journal.contents.jobs[0].shards.isEmpty)
            #expect(await manager.status(StatusRequest())?.workers.first?.leases == 0)
            let before = worker.given
            // Some probes later nothing has been tried again.
            for _ in 0..<20 {
                clock.advance(by: .seconds(10))
                try await Task.sleep(for: .milliseconds(2))
            }
            #expect(worker.given == before)
            for operation in [MemoryOutputStore.Operation.sync, .probe] { store.fail(operation, with: nil) }
            try await waitFor(.done, of: id, manager)
            #expect(Set(worker.given.dropFirst(before.count)) == [0, 1, 2] && worker.given.count == before.count + 3)
        }
        #expect(store.journal.contains { $0.hasPrefix("probe") } && store.unfinished == [])
    }

    /// What had been committed before stays.
    @Test func committedShardsOutlastAPause() async throws {
        try await life { manager, worker in
            worker.allow(1)
            let id = try await manager.submit(jobs.submission()).job
            try await eventually("a committed shard") { journal.contents.jobs.first?.shards.isEmpty == false }
            for operation in [MemoryOutputStore.Operation.sync, .probe] { store.fail(operation, with: Self.trouble) }
            worker.allow(.max)
            try await waitFor(.paused, of: id, manager)
            #expect(journal.contents.jobs[0].shards.count == 1)
            for operation in [MemoryOutputStore.Operation.sync, .probe] { store.fail(operation, with: nil) }
            try await waitFor(.done, of: id, manager)
            #expect(worker.given.count(where: { $0 == worker.given[0] }) == 1)
        }
    }

    @Test func aFullJournalPausesItsJobs() async throws {
        journal.failCommits(with: TesseraError(.io, "the journal cannot grow: the disk is full", file: "/state/journal.sqlite"))
        try await life { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            #expect(await status(id, manager)?.error?.file == "/state/journal.sqlite")
            journal.failCommits(with: nil)
            try await waitFor(.done, of: id, manager)
        }
    }

    /// One pause from first to last, also where a probe finds room that a commit does not. The shards wait for the journal and
    /// are not computed again, and no worker has failed.
    @Test(arguments: [true, false])
    func resultsWaitForTheJournal(failsProbes: Bool) async throws {
        let full = TesseraError(.io, "the journal cannot grow: the disk is full", file: "/state/journal.sqlite")
        journal.failCommits(with: full, failsProbes: failsProbes)
        let events = Mutex<[JobEvent]>([])
        try await life { manager, worker in
            let listener = manager.events.listen { event in events.withLock { $0.append(event) } }
            // The first result waits; the second shard is taken back from its worker.
            worker.allow(1)
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            // Time for many probes, each of which would end the pause if it asked less than the commit.
            for _ in 0..<30 {
                clock.advance(by: .seconds(60))
                try await Task.sleep(for: .milliseconds(2))
            }
            #expect(await status(id, manager)?.state == .paused)
            journal.failCommits(with: nil)
            worker.allow(.max)
            try await waitFor(.done, of: id, manager)
            #expect(worker.given.count { $0 == worker.given[0] } == 1 && Set(worker.given) == [0, 1, 2], "\(worker.given)")
            withExtendedLifetime(listener) {}
        }
        let all = events.withLock { $0 }
        #expect(all.count { if case .paused = $0 { true } else { false } } == 1)
        #expect(all.count { if case .resumed = $0 { true } else { false } } == 1)
        #expect(!all.contains { if case .failed = $0 { true } else { false } })
        #expect(journal.contents.ended.count == 1 && store.outputs["/out"] != nil)
    }

    /// What a cancelled job waited to write is let go.
    @Test func aPausedJobWithResultsCanBeCancelled() async throws {
        journal.failCommits(with: TesseraError(.io, "the disk is full"))
        try await life { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            try await eventually("a held result") { await manager.heldCommits[id]?.isEmpty == false }
            try await manager.cancel(id, reason: "enough", by: .local)
            #expect(await manager.heldCommits.isEmpty)
        }
        #expect(store.unfinished == [])
    }

    /// Sizes follow from the first stage, and the parts have no space then.
    @Test(arguments: [TestJobs.store, TestJobs.modelWide])
    func partsWithoutSpaceAfterAStageWait(recipe: String) async throws {
        try await life { manager, worker in
            worker.allow(0)
            let id = try await manager.submit(jobs.submission(recipe)).job
            for operation in [MemoryOutputStore.Operation.layOut, .probe] { store.fail(operation, with: Self.trouble) }
            worker.allow(.max)
            try await waitFor(.paused, of: id, manager)
            for operation in [MemoryOutputStore.Operation.layOut, .probe] { store.fail(operation, with: nil) }
            try await waitFor(.done, of: id, manager)
            #expect(Set(worker.given).count == worker.given.count, "no shard is done twice")
        }
        #expect(store.outputs["/out"]?["tessera.manifest.json"] != nil && store.unfinished == [])
    }

    /// All shards are committed, and the small files have no space.
    @Test func publishingWaitsToo() async throws {
        store.fail(.putFile, with: Self.trouble)
        store.fail(.probe, with: Self.trouble)
        try await life { manager, worker in
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            #expect(await status(id, manager)?.shards.committed == 3)
            for operation in [MemoryOutputStore.Operation.putFile, .probe] { store.fail(operation, with: nil) }
            try await waitFor(.done, of: id, manager)
            #expect(worker.given.count == 3)
        }
        #expect(store.outputs["/out"]?["tessera.manifest.json"] != nil)
    }

    @Test(arguments: [MemoryOutputStore.Operation.sync, .putFile])
    func aPausedJobCanBeCancelled(operation: MemoryOutputStore.Operation) async throws {
        store.fail(operation, with: Self.trouble)
        store.fail(.probe, with: Self.trouble)
        try await life { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            try await manager.cancel(id, reason: "enough")
            #expect(await manager.end(of: id)?.state == .cancelled)
        }
        #expect(store.unfinished == [] && journal.contents.jobs.isEmpty)
    }

    /// The next coordinator finds the disk as it is, and the job where it was.
    @Test func aPauseOutlivesTheCoordinator() async throws {
        store.fail(.sync, with: Self.trouble)
        store.fail(.probe, with: Self.trouble)
        let id = try await life { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            try await waitFor(.paused, of: id, manager)
            return id
        }
        try await life(2) { manager, _ in
            try await waitFor(.paused, of: id, manager)
            for operation in [MemoryOutputStore.Operation.sync, .probe] { store.fail(operation, with: nil) }
            try await waitFor(.done, of: id, manager)
        }
    }

    /// A disk that fails when the coordinator takes the job up again: what is committed stays in the journal.
    @Test func aDiskThatFailsAtARestartLosesNothing() async throws {
        let id = try await life { manager, worker in
            worker.allow(1)
            let id = try await manager.submit(jobs.submission()).job
            try await eventually("a committed shard") { journal.contents.jobs.first?.shards.isEmpty == false }
            return id
        }
        let kept = journal.contents.jobs[0].shards.count
        store.fail(.reopen, with: Self.trouble)
        try await life(2) { manager, worker in
            #expect(await status(id, manager)?.state == .paused)
            #expect(await status(id, manager)?.error == Self.trouble)
            for _ in 0..<20 {
                clock.advance(by: .seconds(10))
                try await Task.sleep(for: .milliseconds(2))
            }
            #expect(worker.given.isEmpty && journal.contents.jobs.first?.shards.count == kept)
            store.fail(.reopen, with: nil)
            try await waitFor(.done, of: id, manager)
            #expect(worker.given.count == 3 - kept)
        }
    }

    /// One that waits to be taken up has no output in hand, and goes all the same.
    @Test func aJobThatCannotBeTakenUpCanBeCancelled() async throws {
        let id = try await life { manager, worker in
            worker.allow(1)
            let id = try await manager.submit(jobs.submission()).job
            try await eventually("a committed shard") { journal.contents.jobs.first?.shards.isEmpty == false }
            return id
        }
        store.fail(.reopen, with: Self.trouble)
        try await life(2) { manager, _ in
            try await manager.cancel(id, reason: "enough")
            #expect(await manager.end(of: id)?.state == .cancelled)
            clock.advance(by: .seconds(100))
        }
        #expect(store.unfinished == [] && journal.contents.jobs.isEmpty)
        #expect(journal.contents.ended.map(\.status.state) == [.cancelled])
    }
}
