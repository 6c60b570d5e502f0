import Core
import Journal
import Planning
import Protocol
import TaskVectors
import TestSupport
import Testing
import Work

@testable import Coordinator

/// The coordinator without sockets, tasks and files.
@Suite struct ClusterStateTests {
    private let stages: PlannedStages
    private let store = MemoryOutputStore()
    private static let id = JobID(high: 7, low: 7)

    init() throws { stages = try TestJobs().stages() }

    /// What came out, by kind.
    private struct Outcome {
        var leases: [Lease] = [], revokes: [Revoke] = [], events: [JobEvent] = [], steps: [ClusterState.Step] = []

        init(_ effects: [ClusterState.Effect]) {
            for effect in effects {
                switch effect {
                case .send(.lease(let lease), _): leases.append(lease)
                case .send(.revoke(let revoke), _): revokes.append(revoke)
                case .send: break
                case .happened(let event): events.append(event)
                case .start(let step): steps.append(step)
                }
            }
        }

        var commits: [CommitRecord] { steps.compactMap { if case .commit(let record) = $0 { record } else { nil } } }
        var ends: [JobState] { events.compactMap { if case .ended(_, let state, _) = $0 { state } else { nil } } }
        var removes: Bool { steps.contains { if case .remove = $0 { true } else { false } } }
    }

    private func add(_ id: JobID = id, to cluster: inout ClusterState) throws -> Outcome {
        let job = Job(stages, output: try store.begin("/\(id)", job: "", overwrite: false), options: JobOptions())
        return Outcome(
            cluster.add(id, job, key: JobKey("\(id)", owner: "o"), output: "/\(id)", stages: stages, submittedAt: 0, at: .zero))
    }

    /// A cluster with one worker of three slots, all three shards of a job leased.
    private func busy() throws -> (ClusterState, [Lease]) {
        var cluster = ClusterState()
        _ = cluster.attach(.test(threads: 3), at: .zero) { _ in }
        let leases = try add(to: &cluster).leases
        try #require(leases.count == 3)
        return (cluster, leases)
    }

    @Test func aResultCountsWhenItsCommitIsAnswered() throws {
        var (cluster, leases) = try busy()
        let outcome = Outcome(cluster.finished(try leases[0].done(), by: 1, at: .zero))
        let record = try #require(outcome.commits.first)
        #expect(
            outcome.events == [.reported(record.attempt, record.worker)] && cluster.jobs[Self.id]?.progress.shards.leased == 3)
        let answer = Outcome(cluster.committed(record, error: nil, at: .seconds(100)))
        #expect(answer.events == [.committed(record.attempt, record.worker, byteCount: 16, .direct)])
        #expect(cluster.jobs[Self.id]?.progress.shards.committed == 1 && cluster.workers[1]?.bytesDirect == 16)
        // A second answer means nothing.
        #expect(Outcome(cluster.committed(record, error: nil, at: .seconds(100))).events.isEmpty)
        #expect(cluster.workers[1]?.shardsDone == 1)
    }

    /// Results that wait for the journal are no work: the attempts of a worker with one thread do not overlap, live or later.
    @Test func anAttemptEndsWhenItsResultComes() throws {
        var cluster = ClusterState()
        _ = cluster.attach(.test(threads: 1), at: .zero) { _ in }
        var leases = try add(to: &cluster).leases, records: [CommitRecord] = []
        for second in 1...3 {
            let outcome = Outcome(cluster.finished(try #require(leases.last).done(), by: 1, at: .seconds(second)))
            leases += outcome.leases
            records += outcome.commits
        }
        func times() -> [[UInt32?]] {
            (0..<3).compactMap { cluster.jobs[Self.id]?.progress.trace($0)?.runs.last }.map { [$0.begun, $0.lasted] }
                .sorted { $0[0] ?? 0 < $1[0] ?? 0 }
        }
        let expected: [[UInt32?]] = [[0, 1000], [1000, 1000], [2000, 1000]]
        #expect(records.count == 3 && times() == expected)
        for record in records { _ = cluster.committed(record, error: nil, at: .seconds(100)) }
        #expect(times() == expected && cluster.jobs[Self.id]?.progress.shards.committed == 3)
    }

    /// Nothing is wrong with this host's disks: the result was.
    @Test func aResultThatIsNotBelievedIsMadeAgain() throws {
        var (cluster, leases) = try busy()
        let record = try #require(Outcome(cluster.finished(try leases[0].done(), by: 1, at: .zero)).commits.first)
        let error = TesseraError(.temporary, "a block is not there")
        #expect(
            Outcome(cluster.committed(record, error: error, at: .zero)).events == [.failed(record.attempt, record.worker, error)])
        let again = Outcome(cluster.tick(at: .seconds(2)))
        #expect(again.leases.map(\.attempt.shard) == [record.attempt.shard] && again.leases.first?.attempt.epoch == 2)
        // The answer to the first commit, once more and too late.
        #expect(Outcome(cluster.committed(record, error: nil, at: .seconds(2))).events.isEmpty)
    }

    @Test func aJobThatEndsDuringACommitStaysEnded() throws {
        for fails in [false, true] {
            var (cluster, leases) = try busy()
            let record = try #require(Outcome(cluster.finished(try leases[0].done(), by: 1, at: .zero)).commits.first)
            let cancelled = Outcome(try cluster.cancel(Self.id, reason: "test", at: .zero))
            #expect(cancelled.removes && cancelled.revokes.count == 2 && cancelled.ends == [])
            let late = Outcome(cluster.committed(record, error: fails ? TesseraError(.io, "x") : nil, at: .zero))
            #expect(late.events.isEmpty && late.leases.isEmpty && late.steps.isEmpty)
            #expect(Outcome(cluster.removed(Self.id, at: .zero)).ends == [.cancelled])
            #expect(Outcome(cluster.removed(Self.id, at: .zero)).ends == [])
            #expect(cluster.jobs[Self.id]?.progress.shards == JobStatus.Shards(total: 3, pending: 3, leased: 0, committed: 0))
        }
    }

    @Test func theLastCommitPublishesAndNothingElseDoes() throws {
        var (cluster, leases) = try busy()
        let records = try leases.flatMap { Outcome(cluster.finished(try $0.done(), by: 1, at: .zero)).commits }
        #expect(Outcome(cluster.published(Self.id, error: nil, at: .zero)).events.isEmpty)
        for record in records.dropLast() { #expect(Outcome(cluster.committed(record, error: nil, at: .zero)).steps.isEmpty) }
        let last = Outcome(cluster.committed(try #require(records.last), error: nil, at: .zero))
        guard case .publish(Self.id)? = last.steps.first else {
            Issue.record("\(last.steps)")
            return
        }
        #expect(throws: TesseraError.self) { try cluster.cancel(Self.id, reason: "too late", at: .zero) }
        #expect(Outcome(cluster.published(Self.id, error: nil, at: .zero)).ends == [.done])
        #expect(cluster.jobs[Self.id]?.job == nil, "plan and results are let go")
    }

    /// An output that cannot be published is removed before the job has failed.
    @Test func aFailedPublishingRemovesTheOutput() throws {
        var (cluster, leases) = try busy()
        let records = try leases.flatMap { Outcome(cluster.finished(try $0.done(), by: 1, at: .zero)).commits }
        for record in records { _ = cluster.committed(record, error: nil, at: .zero) }
        let failed = Outcome(cluster.published(Self.id, error: TesseraError(.io, "full"), at: .zero))
        #expect(failed.removes && failed.ends == [] && cluster.jobs[Self.id]?.state == .running)
        #expect(Outcome(cluster.removed(Self.id, at: .zero)).ends == [.failed])
    }

    /// Blocks of attempts that are over count for no other attempt.
    @Test func relayedBlocksBelongToTheirAttempt() throws {
        var (cluster, leases) = try busy()
        let lease = leases[0]
        let done = try lease.done(delivery: .relayed), block = BlockPosition(tensor: 0, offset: 0)
        let digest = try Digest.sha256(of: [1])
        func target(of attempt: Attempt) throws -> BlockTarget? {
            try cluster.target(of: attempt, from: 1, tensor: 0, offset: 0, byteCount: 16)
        }
        #expect(try target(of: lease.attempt) != nil)
        cluster.stored([block: digest], of: lease.attempt)
        let missing = Outcome(cluster.finished(try leases[1].done(delivery: .relayed), by: 1, at: .zero))
        guard case .failed(_, _, let error)? = missing.events.first else {
            Issue.record("\(missing.events)")
            return
        }
        #expect(error.problem.contains("came with 0 of 1 blocks"))
        let commits = Outcome(cluster.finished(done, by: 1, at: .zero)).commits
        #expect(commits.map(\.result.digests) == [[[digest]]], "the digests of what was stored")
        // Two writes to one place: nobody knows which is the last.
        #expect(try target(of: leases[2].attempt) != nil)
        #expect(#expect(throws: TesseraError.self) { try target(of: leases[2].attempt) }?.problem.contains("came twice") == true)
    }

    /// A result that does not fit its blocks or the plan costs its worker an attempt, and not the job.
    @Test(arguments: ["digests of what was sent", "a block not stored", "too few digests"])
    func aResultThatDoesNotFitFailsTheAttempt(what: String) throws {
        var (cluster, leases) = try busy()
        let lease = leases[0]
        var done = try lease.done(delivery: .relayed)
        _ = try cluster.target(of: lease.attempt, from: 1, tensor: 0, offset: 0, byteCount: 16)
        switch what {
        case "digests of what was sent":
            let digests = try lease.done().result.digests
            cluster.stored([BlockPosition(tensor: 0, offset: 0): digests[0][0]], of: lease.attempt)
            done = ShardDone(attempt: lease.attempt, result: ShardResult(digests: digests))
        case "a block not stored": break
        default: done = ShardDone(attempt: lease.attempt, result: ShardResult(digests: [[]], statistics: []), delivery: .direct)
        }
        let outcome = Outcome(cluster.finished(done, by: 1, at: .zero))
        guard case .failed(lease.attempt, _, let error)? = outcome.events.first else {
            Issue.record("\(outcome.events)")
            return
        }
        #expect(error.code == .temporary && outcome.commits.isEmpty && cluster.jobs[Self.id]?.isRunning == true)
    }

    /// Wrong statistics cost their worker an attempt. The job goes on with what an honest one says.
    @Test(arguments: ["none", "of no task", "too many", "negative"])
    func statisticsThatDoNotFitFailTheAttempt(what: String) throws {
        let jobs = try TestJobs(), stages = try jobs.stages(TestJobs.store)
        var cluster = ClusterState()
        _ = cluster.attach(.test(threads: 3), at: .zero) { _ in }
        let job = Job(stages, output: try store.begin("/out", job: "", overwrite: false), options: JobOptions())
        let leases = Outcome(
            cluster.add(
                Self.id, job, key: JobKey("k", owner: "o"), output: "/out", stages: stages, submittedAt: 0, at: .zero)
        ).leases
        let lease = try #require(leases.first), honest = try lease.done()
        let statistics: [TensorStatistics?] =
            switch what {
            case "none": [nil]
            case "of no task": [.encoding(.kept([]))]
            case "too many": honest.result.statistics + honest.result.statistics
            default: [.encoding(.kept([-1]))]
            }
        let wrong = ShardDone(
            attempt: lease.attempt, result: ShardResult(digests: honest.result.digests, statistics: statistics), delivery: .direct
        )
        let outcome = Outcome(cluster.finished(wrong, by: 1, at: .zero))
        guard case .failed(lease.attempt, _, let error)? = outcome.events.first else {
            Issue.record("\(outcome.events)")
            return
        }
        #expect(error.code == .temporary && error.problem.contains("statistics") && outcome.commits.isEmpty)
        #expect(cluster.jobs[Self.id]?.isRunning == true && cluster.scheduler.strikes(of: 1).count == 1)
        let again = try #require(Outcome(cluster.tick(at: .seconds(2))).leases.first { $0.attempt.shard == lease.attempt.shard })
        #expect(Outcome(cluster.finished(try again.done(), by: 1, at: .seconds(2))).commits.count == 1)
    }

    @Test func aLostWorkerIsRememberedUntilItComesBack() throws {
        var (cluster, _) = try busy()
        func lost(at now: Duration) -> [LostWorker]? {
            StatusPages(cluster, at: now, for: .local).answer(StatusRequest())?.lostWorkers
        }
        #expect(lost(at: .zero) == nil)
        _ = cluster.detach(1, reason: "silence", isLoss: true, isOrderly: false, at: .seconds(1))
        #expect(lost(at: .seconds(3)) == [LostWorker(name: "w", address: "h", reason: "silence", secondsAgo: 2, leases: 3)])
        #expect(lost(at: .seconds(4000)) == nil)
        _ = cluster.attach(.test(threads: 1), at: .seconds(5)) { _ in }
        #expect(lost(at: .seconds(5)) == nil)
        _ = cluster.detach(2, reason: "drained", isLoss: false, isOrderly: true, at: .seconds(6))
        #expect(lost(at: .seconds(7)) == nil)
    }

    @Test func shardsThatAreWorkedOnCanBeAskedForAlone() throws {
        var cluster = ClusterState()
        _ = cluster.attach(.test(threads: 1), at: .zero) { _ in }
        let lease = try #require(try add(to: &cluster).leases.first)
        func shards(_ request: StatusRequest) -> [Int]? {
            StatusPages(cluster, at: .zero, for: .local).answer(request)?.jobs.first?.shardDetails?.map(\.index)
        }
        #expect(shards(StatusRequest(job: Self.id)) == [0, 1, 2])
        #expect(shards(StatusRequest(job: Self.id, running: true)) == [lease.attempt.shard])
        #expect(shards(StatusRequest(job: Self.id, after: lease.attempt.shard, running: true)) == [])
    }

    /// A job without a slot says which job has them; of jobs of others, no more than the id.
    @Test func aQueuedJobNamesTheOneAhead() throws {
        var (cluster, _) = try busy()
        let second = JobID(high: 8, low: 8), third = JobID(high: 9, low: 9)
        _ = try add(second, to: &cluster)
        _ = try add(third, to: &cluster)
        func jobs(_ peer: PeerIdentity = .local) -> [JobStatus] {
            StatusPages(cluster, at: .seconds(1), for: peer).answer(StatusRequest())?.jobs ?? []
        }
        #expect(jobs().map(\.behind) == [nil, Self.id, Self.id])
        let name = "\(Self.id.description.prefix(8)) (\(Self.id))"
        #expect(
            jobs().map(\.blockedReason) == [
                nil, "waits behind the job \(name): workers take shards in order of submission",
                "waits behind the job \(name) and 1 more: workers take shards in order of submission",
            ])
        let stranger = PeerIdentity(name: "s", roles: [.submitter], owner: "s")
        #expect(jobs(stranger).allSatisfy { $0.behind == nil && $0.blockedReason == nil })
        // With a slot left, nobody stands in the way.
        _ = cluster.attach(.test("v", threads: 9), at: .seconds(2)) { _ in }
        #expect(jobs().map(\.behind) == [nil, nil, nil])
    }

    /// People look for the file that could not be written, and not for the probe's; another problem is told all the same.
    @Test func aPauseNamesTheFileThatFailed() throws {
        var (cluster, _) = try busy()
        let first = TesseraError(.io, "cannot write the file: full", file: "/out.partial/tessera.manifest.json")
        let probe = TesseraError(.io, "cannot write the file: full", file: "/out.partial")
        let other = TesseraError(.io, "cannot write the file: read-only", file: "/out.partial")
        func error() -> TesseraError? {
            StatusPages(cluster, at: .seconds(9), for: .local).answer(StatusRequest())?.jobs.first?.error
        }
        _ = cluster.cannotWrite(Self.id, first, at: .seconds(1))
        _ = cluster.probed(Self.id, error: probe, at: .seconds(2))
        #expect(error() == first)
        _ = cluster.probed(Self.id, error: other, at: .seconds(4))
        #expect(error() == other)
    }

    /// No bytes come in while no worker is there, whatever the mean of the last half minute.
    @Test func withoutWorkersThereIsNoRate() throws {
        var (cluster, leases) = try busy()
        let record = try #require(Outcome(cluster.finished(try leases[0].done(), by: 1, at: .seconds(2))).commits.first)
        #expect(record.time == AttemptTime(begun: 0, lasted: 2000))
        _ = cluster.committed(record, error: nil, at: .seconds(2))
        func rate(at now: Duration) -> Double? {
            StatusPages(cluster, at: now, for: .local).answer(StatusRequest())?.jobs.first?.bytesPerSecond
        }
        #expect(try #require(rate(at: .seconds(3))) > 0)
        _ = cluster.detach(1, reason: "x", isLoss: false, isOrderly: true, at: .seconds(3))
        #expect(rate(at: .seconds(3)) == nil)
        _ = cluster.attach(.test("v", threads: 1), at: .seconds(4)) { _ in }
        #expect(try #require(rate(at: .seconds(4))) > 0)
        _ = cluster.cannotWrite(Self.id, TesseraError(.io, "full"), at: .seconds(5))
        let paused = StatusPages(cluster, at: .seconds(7), for: .local).answer(StatusRequest())?.jobs.first
        #expect(paused?.bytesPerSecond == nil && paused?.secondsPaused == 2 && paused?.state == .paused)
    }

    @Test func workersComeAndGo() throws {
        var (cluster, leases) = try busy()
        let gone = Outcome(cluster.detach(1, reason: "silence", isLoss: true, isOrderly: false, at: .zero))
        #expect(
            gone.events.count == 4
                && gone.events.last
                    == .workerLeft(WorkerReference(id: 1, name: "w", address: "h"), reason: "silence", isOrderly: false)
        )
        #expect(cluster.jobs[Self.id]?.progress.shards.pending == 3)
        #expect(Outcome(cluster.finished(try leases[0].done(), by: 1, at: .zero)).commits.isEmpty)
        let joined = cluster.attach(.test("v", threads: 1), at: .zero) { _ in }
        #expect(joined.id == 2 && Outcome(joined.effects).leases.count == 1)
    }

    /// Jobs come and go for months: what is kept of them is bounded, in the registry and in the scheduler.
    @Test func twentyThousandJobsComeAndGo() throws {
        let stages = try TestJobs().stages(shardBytes: nil), count = stages.shards.count
        var cluster = ClusterState(limits: .init(endedJobs: 1000, endedRows: 600))
        _ = cluster.attach(.test(threads: 3), at: .zero) { _ in }
        var now = Duration.zero
        for number in 0..<20_000 {
            now += .seconds(1)
            let id = JobID(high: 9, low: UInt64(number))
            let job = Job(stages, output: Untouched(), options: JobOptions())
            let leases = Outcome(
                cluster.add(id, job, key: JobKey("", owner: "o"), output: "/out", stages: stages, submittedAt: 0, at: now)
            ).leases
            #expect(leases.count == count)
            if number % 10 == 0 {
                _ = try cluster.cancel(id, reason: "test", at: now)
                _ = cluster.removed(id, at: now)
                continue
            }
            for lease in leases {
                for record in Outcome(cluster.finished(try lease.done(), by: 1, at: now)).commits {
                    _ = cluster.committed(record, error: nil, at: now)
                }
            }
            #expect(Outcome(cluster.published(id, error: nil, at: now)).ends == [.done])
        }
        #expect(cluster.jobs.count == 1000 && cluster.jobs.active.isEmpty)
        #expect(cluster.jobs.entryCount <= 1600 && cluster.scheduler.entryCount < 2000)
        let status = try #require(StatusPages(cluster, at: now, for: .local).answer(StatusRequest()))
        #expect(status.total == 1000 && status.jobs.count == 200 && status.jobs.first?.id.low == 19_000)
        #expect(try Message.status(status).frame().byteCount < Limits.controlBodyBytes)
        let last = JobID(high: 9, low: 19_999)
        #expect(
            StatusPages(cluster, at: now, for: .local).answer(StatusRequest(job: last))?.jobs.first?.shardDetails?.count == count)
        #expect(try cluster.cancel(last, reason: "ended", at: now).isEmpty)
        #expect(throws: TesseraError.self) { try cluster.cancel(JobID(high: 9, low: 1), reason: "gone", at: now) }
    }

    /// Costs nothing, however many there are.
    private struct Untouched: OutputTransaction {
        var location: OutputLocation? { nil }
        func check(_ parts: Set<Int>) throws(TesseraError) {}
        func probe() throws(TesseraError) {}
        func layOut(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {}
        func put(_ bytes: UnsafeRawBufferPointer, part: Int, at offset: Int) throws(TesseraError) {}
        func reopen(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {}
        func sync(_ parts: Set<Int>) throws(TesseraError) {}
        func putFile(_ name: String, _ bytes: [UInt8]) throws(TesseraError) {}
        func fileNames() throws(TesseraError) -> [String] { [] }
        func open(_ name: String) throws(TesseraError) -> any ByteSource { throw TesseraError(.internal, "unused") }
        func commit() throws(TesseraError) {}
        func abort() {}
    }
}
