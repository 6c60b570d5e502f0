import Core
import Foundation
import Journal
import Logging
import Protocol
import Synchronization
import TestSupport
import Testing
import Work

@testable import Coordinator

/// Coordinators that stop at any moment, and others that go on with the same journal and the same outputs, in memory.
@Suite(.serialized) struct RestartTests {
    private let jobs: TestJobs
    private let store = MemoryOutputStore()
    private let journal = MemoryJournal()
    private let clock = HandClock()

    init() throws { jobs = try TestJobs() }

    private func manager(incarnation: UInt32, keepsFailed: Bool = false, journal: MemoryJournal? = nil) -> JobManager {
        var settings = JobManager.Settings(inputRoots: .wholeMachine, build: "test", incarnation: incarnation)
        settings.keepsJob = { keepsFailed && $0.code.isTransient }
        return JobManager(
            settings: settings,
            log: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), time: clock.source, outputs: store,
            journal: journal ?? self.journal)
    }

    /// One life of a coordinator, from its start to its sudden end.
    private func life<Result: Sendable>(
        _ incarnation: UInt32, keepsFailed: Bool = false, _ body: (JobManager, [Resumption]) async throws -> Result
    ) async throws -> Result {
        let manager = manager(incarnation: incarnation, keepsFailed: keepsFailed)
        let resumed = try await manager.resume()
        let run = Task { await manager.run() }
        let result: Swift.Result<Result, any Error>
        do { result = .success(try await body(manager, resumed)) } catch { result = .failure(error) }
        run.cancel()
        await run.value
        return try result.get()
    }

    /// Works on `limit` shards and then on none.
    private func work(_ limit: Int, for manager: JobManager, shards done: Done) async -> Task<Void, Never> {
        let (leases, input) = AsyncStream<Lease>.makeStream()
        let worker = await manager.attach(.test(threads: 1)) { if case .lease(let lease) = $0 { input.yield(lease) } }
        return Task {
            var count = 0
            for await lease in leases where count < limit {
                count += 1
                done.note(lease.attempt.shard)
                if let result = try? lease.done() { await manager.finished(result, by: worker) }
            }
        }
    }

    private final class Done: Sendable {
        private let shards = Mutex<[Int]>([])
        func note(_ shard: Int) { shards.withLock { $0.append(shard) } }
        var all: [Int] { shards.withLock { $0.sorted() } }
    }

    /// However often the coordinator stops, each shard is done once, in jobs of one plan, of two and of four. With three shards
    /// in each life, it stops between the stages.
    @Test(arguments: [TestJobs.linear, TestJobs.store, TestJobs.modelWide], [1, 2, 3])
    func noCommittedShardIsDoneAgain(recipe: String, perLife: Int) async throws {
        let done = Done()
        let id = try await life(1) { manager, resumed in
            #expect(resumed.isEmpty)
            return try await manager.submit(jobs.submission(recipe)).job
        }
        #expect(store.unfinished == ["/out.partial-\(id)"])
        var incarnation: UInt32 = 1, ended = false
        while !ended, incarnation < 20 {
            incarnation += 1
            ended = try await life(incarnation) { manager, resumed in
                // It may have come to its end before the stop.
                guard !resumed.isEmpty else { return true }
                #expect(resumed.map(\.job) == [id] && resumed.allSatisfy { $0.error == nil }, "\(resumed.map(\.error))")
                // A job whose shards are all there is published at once.
                guard let before = journal.contents.jobs.first?.shards.count else { return true }
                let status = await manager.status(StatusRequest(job: id))?.jobs.first
                #expect(status?.shards.committed == before)
                let kept = (status?.shardDetails ?? []).filter { $0.state == .committed }
                #expect(kept.count == before && kept.allSatisfy { $0.begunAfter != nil && $0.seconds != nil })
                let worker = await work(perLife, for: manager, shards: done)
                try await eventually("shards or the end") {
                    (journal.contents.jobs.first?.shards.count ?? .max) >= before + perLife || !journal.contents.ended.isEmpty
                }
                // A process that has ended writes nothing more into the journal.
                worker.cancel()
                await worker.value
                return !journal.contents.ended.isEmpty
            }
        }
        #expect(done.all == Array(0..<done.all.count) && done.all.count >= 3, "each shard once")
        #expect(journal.contents.ended.map(\.status.state) == [.done] && journal.contents.jobs.isEmpty)
        let report = try JSONDecoder().decode(
            RunReport.self, from: Data(try #require(store.outputs["/out"]?["tessera.report.json"])))
        #expect(report.startedAt.hasSuffix("Z") && report.startedAt.contains("T"), "\(report.startedAt)")
        #expect(report.job == id.description && report.shards == done.all.count && report.attempts == done.all.count)
        #expect(recipe != TestJobs.linear || report.workers.map(\.shards) == [done.all.count])
        #expect(recipe != TestJobs.modelWide || done.all.count == 12)
        #expect(store.unfinished == [])
    }

    /// What is not there has a reason: a job that has ended, and one that is not planned again yet.
    @Test func whatIsNotKeptHasAReason() async throws {
        let id = try await life(1) { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            #expect(await manager.lack(of: id, for: .local) == nil)
            return id
        }
        let waiting = manager(incarnation: 2)
        try await waiting.list()
        #expect(await waiting.lack(of: id, for: .local)?.contains("has not planned the job again yet") == true)
        try await life(3) { manager, _ in
            #expect(await manager.lack(of: id, for: .local) == nil)
            try await manager.cancel(id, reason: "enough")
            try await eventually("the end") { !journal.contents.ended.isEmpty }
            #expect(await manager.plan(of: id, for: .local) != nil)
            #expect(await manager.lack(of: id, for: .local) == nil)
        }
        let restarted = manager(incarnation: 4)
        try await restarted.list()
        #expect(await restarted.plan(of: id, for: .local) == nil)
        #expect(await restarted.lack(of: id, for: .local)?.contains("not kept over a restart") == true)
        let stranger = PeerIdentity(name: "x", roles: [.submitter], owner: "x")
        #expect(await restarted.lack(of: id, for: stranger) == nil)
    }

    /// Bytes are durable before the journal says so, and the journal says so before the shard counts.
    @Test func theOrderOfACommit() async throws {
        let done = Done()
        try await life(1) { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            let syncs = Mutex(0)
            journal.beforeCommits { [store] in
                syncs.withLock { $0 += 1 }
                // When the journal is asked, the bytes have been made durable.
                #expect(store.journal.filter { $0 == "sync /out" }.count >= syncs.withLock { $0 })
            }
            let events = manager.events.events()
            let worker = await work(3, for: manager, shards: done)
            defer { worker.cancel() }
            var committed = 0
            for await event in events {
                if case .committed(let attempt, _, _, _) = event {
                    committed += 1
                    let contents = journal.contents
                    #expect(
                        contents.ended.count == 1 || contents.jobs[0].shards.contains { $0.attempt == attempt },
                        "the journal knew first")
                }
                if case .ended(id, .done, _) = event { break }
            }
            #expect(committed == 3)
        }
    }

    /// Results that come while others are made durable share one transaction.
    @Test func resultsAreCommittedInGroups() async throws {
        let begun = AsyncStream<Void>.makeStream(), goOn = DispatchSemaphore(value: 0)
        journal.beforeCommits {
            begun.continuation.yield()
            goOn.wait()
        }
        try await life(1) { manager, _ in
            let (leases, input) = AsyncStream<Lease>.makeStream()
            let worker = await manager.attach(.test(threads: 3)) { if case .lease(let lease) = $0 { input.yield(lease) } }
            let id = try await manager.submit(jobs.submission()).job
            var iterator = leases.makeAsyncIterator()
            for _ in 0..<3 { await manager.finished(try #require(await iterator.next()).done(), by: worker) }
            var commits = begun.stream.makeAsyncIterator()
            _ = await commits.next()
            #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.shards.committed == 0)
            for _ in 0..<9 { goOn.signal() }
            #expect(await manager.end(of: id)?.state == .done)
        }
        #expect(journal.commits == 2)
    }

    /// The journal cannot be written: the shard's result waits, and counts when the journal can.
    @Test func whatTheJournalDoesNotKnowDoesNotCount() async throws {
        let done = Done()
        try await life(1) { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            journal.failCommits(with: TesseraError(.io, "the disk is full"))
            let events = manager.events.events()
            let worker = await work(9, for: manager, shards: done)
            defer { worker.cancel() }
            for await event in events { if case .paused(_, let error) = event, error.problem == "the disk is full" { break } }
            #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.shards.committed == 0)
            journal.failCommits(with: nil)
            try await eventually("the end") {
                clock.advance(by: .seconds(5))
                return await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.state == .done
            }
        }
        #expect(Set(done.all) == [0, 1, 2])
    }

    /// Where the same submission comes again, a job that fails for a reason that may pass loses nothing.
    @Test(arguments: [true, false])
    func aFailedJobMayBeKept(isKept: Bool) async throws {
        let done = Done()
        let id = try await life(1, keepsFailed: isKept) { manager, _ in
            let id = try await manager.submit(jobs.submission()).job
            let worker = await work(1, for: manager, shards: done)
            defer { worker.cancel() }
            try await eventually("a shard") {
                await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.shards.committed == 1
            }
            await manager.abandon(id, error: TesseraError(.io, "the disk is full"))
            #expect(await manager.end(of: id)?.state == .failed)
            return id
        }
        #expect(store.unfinished == (isKept ? ["/out.partial-\(id)"] : []))
        #expect(journal.contents.jobs.map(\.shards.count) == (isKept ? [1] : []))
        try await life(2) { manager, resumed in
            #expect(resumed.map(\.job) == (isKept ? [id] : []))
            let worker = await work(3, for: manager, shards: done)
            defer { worker.cancel() }
            let again = try await manager.submit(jobs.submission()).job
            #expect((again == id) == isKept)
            #expect(await manager.end(of: again)?.state == .done)
        }
        #expect(done.all.count == (isKept ? 3 : 4) && store.unfinished == [])
    }

    @Test func resultsOfAnEarlierStartAreDropped() async throws {
        let old = try await life(1) { manager, _ in
            let (leases, input) = AsyncStream<Lease>.makeStream()
            _ = await manager.attach(.test(threads: 1)) { if case .lease(let lease) = $0 { input.yield(lease) } }
            _ = try await manager.submit(jobs.submission())
            var iterator = leases.makeAsyncIterator()
            return try #require(await iterator.next())
        }
        try await life(2) { manager, _ in
            let events = manager.events.events()
            let worker = await manager.attach(.test(threads: 1)) { _ in }
            await manager.finished(try old.done(), by: worker)
            for await event in events { if case .stale(old.attempt, _) = event { break } }
            #expect(journal.contents.jobs[0].shards.isEmpty)
        }
    }

    // MARK: What was changed meanwhile

    private func begun(_ shards: Int = 1, recipe: String = TestJobs.linear) async throws -> JobID {
        let done = Done()
        return try await life(1) { manager, _ in
            let id = try await manager.submit(jobs.submission(recipe)).job
            let worker = await work(shards, for: manager, shards: done)
            defer { worker.cancel() }
            try await eventually("\(shards) shards") {
                let contents = journal.contents
                return contents.jobs.first?.shards.count == shards || !contents.ended.isEmpty
            }
            return id
        }
    }

    @Test func aChangedInputFailsTheJobAndIsNamed() async throws {
        let id = try await begun()
        try jobs.touch("b")
        let status = try await life(2) { manager, resumed in
            #expect(resumed.first?.error?.file?.hasSuffix("b/model.safetensors") == true)
            return await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first
        }
        #expect(status?.state == .failed && status?.error?.code == .badData && status?.method == "linear")
        #expect(status?.error?.problem.contains("changed or replaced") == true)
        #expect(store.unfinished == [] && journal.contents.jobs.isEmpty && journal.contents.ended.count == 1)
        // The next start still knows.
        try await life(3) { manager, resumed in
            #expect(resumed.isEmpty)
            #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.state == .failed)
        }
    }

    /// An input that is not there may come back, with the file system that it lies on.
    @Test func aMissingInputKeepsTheJob() async throws {
        let id = try await begun()
        try jobs.rename("b", to: "away")
        try await life(2) { manager, resumed in
            #expect(resumed.first?.error?.code.isTransient == true, "\(resumed)")
            let status = await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first
            #expect(status?.state == .paused && status?.error?.code == .inputMissing && status?.shards.committed == 1)
        }
        #expect(store.unfinished.count == 1 && journal.contents.jobs.first?.shards.count == 1)
        try jobs.rename("away", to: "b")
        try await life(3) { manager, resumed in
            #expect(resumed.first?.error == nil)
            #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.shards.committed == 1)
        }
    }

    /// Until its input is back, the job has its name and what is known of its progress, says what helps, and counts as a pause:
    /// also where a model's name is looked up under the roots, and nobody is told what else there is.
    @Test(arguments: [false, true]) func aJobWhoseInputIsAwaySaysWhatHelps(isUnderRoot: Bool) async throws {
        let roots = isUnderRoot ? try Roots([jobs.path]) : .wholeMachine, plain = jobs.submission()
        var options = plain.options
        options.name = "big four"
        let submission = Submit(
            recipe: plain.recipe, recipeName: plain.recipeName, workingDirectory: isUnderRoot ? "/" : plain.workingDirectory,
            output: plain.output, options: options)
        func started(_ incarnation: UInt32, _ log: Logger) -> JobManager {
            JobManager(
                settings: JobManager.Settings(inputRoots: roots, build: "test", incarnation: incarnation), log: log,
                time: clock.source, outputs: store, journal: journal)
        }
        let first = started(1, .silent), firstRun = Task { await first.run() }
        let id = try await first.submit(submission).job
        let worker = await work(1, for: first, shards: Done())
        try await eventually("a shard") { journal.contents.jobs.first?.shards.count == 1 }
        worker.cancel()
        firstRun.cancel()
        await firstRun.value
        try jobs.rename("b", to: "away")
        let lines = RecordedLog(), events = Mutex<[JobEvent]>([])
        let manager = started(2, lines.logger)
        let listener = manager.events.listen { event in events.withLock { $0.append(event) } }
        func job() async throws -> JobStatus {
            try #require(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first)
        }
        try await manager.resume()
        let run = Task { await manager.run() }
        let paused = try await job()
        #expect(paused.state == .paused && paused.name == "big four" && paused.shards.committed == 1)
        #expect(paused.bytesTotal == 48 && paused.bytesDone == 16)
        let advice = try #require(paused.error?.advice)
        #expect(advice.contains("put it back") && !advice.contains("correct"), "\(advice)")
        // It is tried again, and again in vain.
        for _ in 0..<5 {
            clock.advance(by: .seconds(30))
            try await Task.sleep(for: .milliseconds(2))
        }
        let metrics = await manager.metrics().text(process: nil, eventReaders: 0)
        #expect(metrics.contains("tessera_job_pauses_total 1\n") && metrics.contains("tessera_jobs{state=\"paused\"} 1\n"))
        #expect(lines.all.count { $0.message.hasPrefix("job paused until it can go on") && $0.level == .warning } == 1)
        #expect(!lines.all.contains { $0.message == "the job cannot go on" })
        try jobs.rename("away", to: "b")
        try await eventually("the job goes on") {
            clock.advance(by: .seconds(30))
            return try await job().state == .running
        }
        let resumed = try await job()
        #expect(resumed.name == "big four" && resumed.shards.committed == 1)
        #expect(events.withLock { $0 }.count { $0 == .paused(id, paused.error ?? TesseraError(.io, "")) } == 1)
        #expect(events.withLock { $0 }.count { $0 == .resumed(id) } == 1)
        withExtendedLifetime(listener) {}
        run.cancel()
        await run.value
    }

    @Test func anOutputThatIsGoneIsBegunAgain() async throws {
        let id = try await begun(2), done = Done()
        store.discard("/out", job: "\(id)")
        try await life(2) { manager, _ in
            #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.shards.committed == 0)
            #expect(journal.contents.jobs[0].plans.count == 1 && journal.contents.jobs[0].shards.isEmpty)
            let worker = await work(9, for: manager, shards: done)
            defer { worker.cancel() }
            #expect(await manager.end(of: id)?.state == .done)
        }
        #expect(done.all == [0, 1, 2])
    }

    /// A power failure may take an output that nobody has made durable yet. What the analysis found out is not lost with it.
    @Test(arguments: [1, 3])
    func anAnalysisOutlivesItsOutput(shards: Int) async throws {
        let id = try await begun(shards, recipe: TestJobs.store), before = journal.contents.jobs[0].shards
        store.discard("/out", job: "\(id)")
        let done = Done()
        try await life(2) { manager, resumed in
            #expect(resumed.map(\.job) == [id] && resumed[0].error == nil)
            #expect(journal.contents.jobs.first?.shards == before)
            #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.secondsWaited != nil)
            let worker = await work(9, for: manager, shards: done)
            defer { worker.cancel() }
            let end = try #require(await manager.end(of: id))
            #expect(end.state == .done && end.secondsWaited == nil, "nobody knows how long it waited before")
        }
        // Three shards of the analysis, and as many of the output.
        #expect(done.all == Array(shards..<6) && store.outputs["/out"] != nil)
    }

    /// Stopped after the rename, before the journal said so; and after a job was given up, before its output was removed.
    @Test func outputsOfJobsThatAreOverAreNotBegunAgain() async throws {
        let kept = journal.contents.jobs
        #expect(kept.isEmpty)
        let id = try await begun(3)
        try await life(2) { manager, _ in #expect(await manager.end(of: id)?.state == .done) }
        // As it is between the two steps.
        let status = try #require(journal.contents.ended.first?.status)
        let other = MemoryJournal()
        var job = JournaledJob(
            id: id, key: "k", owner: "local", submission: jobs.submission(), output: "/out", submittedAt: status.submittedAt)
        job.plans = [try jobs.stages().journaled]
        try other.add(job)
        let manager = JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "test", incarnation: 2),
            log: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), time: clock.source, outputs: store,
            journal: other)
        try await manager.resume()
        #expect(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first?.state == .done)
        #expect(other.contents.jobs.isEmpty && other.contents.ended.map(\.status.state) == [.done])

        _ = try store.begin("/out", job: "\(id)", overwrite: true)
        try await manager.resume()
        #expect(store.unfinished == [])
    }

    /// A large job takes a while to be planned again. Clients that come back meanwhile find it.
    @Test(arguments: [false, true])
    func jobsAreThereBeforeTheyArePlannedAgain(isPublished: Bool) async throws {
        let id = try await life(1) { manager, _ in try await manager.submit(jobs.submission()).job }
        let journal = MemoryJournal()
        for job in self.journal.contents.jobs { try journal.add(job) }
        if isPublished {
            // As after a kill between the rename and the journal's entry.
            let end = try await life(2) { manager, _ in
                let worker = await work(3, for: manager, shards: Done())
                defer { worker.cancel() }
                return await manager.end(of: id)?.state
            }
            #expect(end == .done)
        }
        let manager = manager(incarnation: 3, journal: journal)
        try await manager.list()
        let listed = try #require(await manager.status(StatusRequest(job: id, limit: 0))?.jobs.first)
        #expect(listed.state == .running && listed.shards.total == 3 && listed.blockedReason?.contains("planned again") == true)
        #expect(try await manager.submit(jobs.submission()).job == id)
        async let end = manager.end(of: id)
        let run = Task { await manager.run() }
        let worker = await work(3, for: manager, shards: Done())
        #expect(await end?.state == .done)
        worker.cancel()
        run.cancel()
        await run.value
    }

    // MARK: The same job twice

    @Test func theSecondAskerGetsTheSameJob() async throws {
        let id = try await life(1) { manager, _ in
            async let first = manager.submit(jobs.submission()).job
            async let second = manager.submit(jobs.submission()).job
            let ids = try await [first, second]
            #expect(Set(ids).count == 1 && store.unfinished.count == 1)
            let other = try await manager.submit(jobs.submission(output: "/other")).job
            #expect(other != ids[0])
            return ids[0]
        }
        try await life(2) { manager, _ in
            let again = try await manager.submit(jobs.submission())
            #expect(again.job == id && again.remarks.contains { $0.contains("0 of 3 shards") }, "\(again.remarks)")
            try await manager.cancel(id, reason: "test")
            let next = try await manager.submit(jobs.submission()).job
            #expect(next != id, "a job that was given up is no answer")
        }
    }

    @Test func aFinishedJobIsTheAnswerWhileItsOutputIsThere() async throws {
        let id = try await begun(3)
        try await life(2) { manager, _ in
            #expect(await manager.end(of: id)?.state == .done)
            let same = try await manager.submit(jobs.submission()).job
            #expect(same == id)
            #expect(await manager.end(of: id)?.state == .done)
            let other = Submit(
                recipe: TestJobs.linear, recipeName: "recipe.yml", workingDirectory: jobs.path, output: "/out",
                options: JobOptions(overwrite: true, shardBytes: 1))
            let anew = try await manager.submit(other).job
            #expect(anew != id)
        }
    }

    @Test func aKeyOfOnesOwnDecides() async throws {
        func submission(_ key: String, _ output: String) -> Submit {
            Submit(
                recipe: TestJobs.linear, recipeName: "recipe.yml", workingDirectory: jobs.path, output: output,
                options: JobOptions(shardBytes: 1), idempotencyKey: key)
        }
        try await life(1) { manager, _ in
            let first = try await manager.submit(submission("a", "/out")).job
            let same = try await manager.submit(submission("a", "/elsewhere")).job
            let other = try await manager.submit(submission("b", "/elsewhere")).job
            #expect(same == first && other != first)
        }
    }
}
