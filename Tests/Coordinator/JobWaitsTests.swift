import Core
import Foundation
import Operators
import Protocol
import TestSupport
import Testing

@testable import Coordinator

/// What is said of jobs that wait and of workers that have nothing to do.
@Suite struct JobWaitsTests {
    private static let first = JobID(high: 7, low: 7), second = JobID(high: 8, low: 8)
    private static let small = MemoryNeed(shared: 8 << 20), large = MemoryNeed(shared: 24 << 20)
    private let stages: PlannedStages
    private let store = MemoryOutputStore()

    init() throws { stages = try TestJobs().stages() }

    /// A job of three shards with these needs.
    private func add(_ id: JobID, _ needs: [MemoryNeed], to cluster: inout ClusterState) throws {
        let job = Job(stages, output: try store.begin("/\(id)", job: "", overwrite: false), options: JobOptions())
        cluster.jobs.add(id, key: JobKey("\(id)", owner: "o"), output: "/\(id)", job: job, startedAt: .zero, submittedAt: 0)
        cluster.happened(.planned(id, stages.summary), at: .zero)
        let costs = needs.enumerated().map { index, need in
            ShardCost(label: "layers.\(index)", cost: need.shared, byteCount: 16, memory: need)
        }
        cluster.feed(.jobAdded(id, stages: [costs]), at: .zero)
    }

    private func attach(
        _ name: String, megabytes: Int, to cluster: inout ClusterState, at now: Duration = .zero
    ) -> Scheduler.WorkerID {
        let description = WorkerDescription(
            name: name, address: "h", build: "b", threads: 1, memory: (60 + megabytes) << 20, tensorMemory: megabytes << 20)
        return cluster.attach(description, at: now) { _ in }.id
    }

    private func status(_ cluster: ClusterState, at now: Duration = .seconds(1)) throws -> Status {
        try #require(StatusPages(cluster, at: now, for: .local).answer(StatusRequest()))
    }

    /// What programs read.
    private static func activity(in document: JobDocument) throws -> String? {
        struct Job: Decodable { let activity: String? }
        return try JSONDecoder().decode(Job.self, from: JSONEncoder().encode(document)).activity
    }

    private func jobStates(_ cluster: ClusterState) -> [String: Int] {
        ClusterMetrics(cluster, journal: JournalCounters(), connections: 0, build: "b").jobs
    }

    private func finishLeases(of worker: Scheduler.WorkerID, in cluster: inout ClusterState, at now: Duration) throws {
        for attempt in cluster.scheduler.leases(of: worker) {
            let work = try #require(cluster.jobs[attempt.job]?.job?.work(attempt.shard))
            let done = try Lease(attempt: attempt, milliseconds: 1, work: work, output: nil).done()
            for case .start(.commit(let record)) in cluster.finished(done, by: worker, at: now) {
                _ = cluster.committed(record, error: nil, at: now)
            }
        }
    }

    /// A job that no worker has memory for waits, for people, programs and alerts alike.
    @Test func aJobThatIsTooLargeForEveryWorkerWaits() throws {
        var cluster = ClusterState()
        try add(Self.first, [Self.large, Self.large, Self.large], to: &cluster)
        _ = attach("w1", megabytes: 13, to: &cluster)
        _ = attach("w2", megabytes: 7, to: &cluster)
        let status = try status(cluster), job = status.jobs[0]
        #expect(job.state == .running && job.activity == .waiting && job.word == "waiting" && job.bytesPerSecond == nil)
        #expect(try Self.activity(in: JobDocument(job)) == "waiting")
        let reason = try #require(job.blockedReason)
        #expect(
            reason.hasPrefix(
                "waits for a worker with more memory: layers.0 is too large for w1, which has 76.55 MB for one thread; ")
                && reason.contains("start one with --memory "),
            "\(reason)")
        #expect(job.note == nil && status.workers.allSatisfy { $0.idleReason == nil })
        #expect(jobStates(cluster) == ["waiting": 1])
        #expect(try #require(job.forOthers.activity) == .waiting)
    }

    /// What is worked on runs, whatever else of it waits; it waits once nothing else is left.
    @Test func aJobOfWhichSomeShardsAreTooLargeRuns() throws {
        var cluster = ClusterState()
        let worker = attach("w1", megabytes: 13, to: &cluster)
        try add(Self.first, [Self.small, Self.large, Self.large], to: &cluster)
        var job = try status(cluster).jobs[0]
        #expect(job.activity == nil && job.word == "running" && job.blockedReason == nil && jobStates(cluster) == ["running": 1])
        #expect(try Self.activity(in: JobDocument(job)) == "running")
        #expect(
            job.note?.hasPrefix("2 shards wait for a worker with more memory: layers.1 is too large for w1, ") == true, "\(job)")
        #expect(job.forOthers.note == nil)
        try finishLeases(of: worker, in: &cluster, at: .seconds(2))
        job = try status(cluster, at: .seconds(3)).jobs[0]
        #expect(job.activity == .waiting && job.note == nil && job.shards.committed == 1)
    }

    /// A worker that is too small for what is left says so, if another one is at it.
    @Test func aWorkerThatIsTooSmallSaysSo() throws {
        var cluster = ClusterState()
        _ = attach("small", megabytes: 13, to: &cluster)
        _ = attach("large", megabytes: 99, to: &cluster)
        try add(Self.first, [Self.large, Self.large, Self.large], to: &cluster)
        let status = try status(cluster)
        #expect(status.jobs[0].word == "running" && status.jobs[0].note == nil)
        #expect(status.workers.map(\.state) == [.idle, .busy])
        #expect(status.workers.map(\.idleReason) == ["the 2 shards that wait need more memory than it has", nil])
    }

    /// The second job is behind the first, although a worker that is too small for it is free.
    @Test func aJobIsQueuedBesideAFreeWorkerThatIsTooSmall() throws {
        var cluster = ClusterState()
        _ = attach("large", megabytes: 99, to: &cluster)
        try add(Self.first, [Self.large, Self.large, Self.large], to: &cluster)
        _ = attach("small", megabytes: 13, to: &cluster)
        try add(Self.second, [Self.large, Self.large, Self.large], to: &cluster)
        let job = try status(cluster).jobs[1]
        #expect(job.activity == .queued && job.behind == Self.first && jobStates(cluster) == ["running": 1, "queued": 1])
    }

    /// Workers that are leaving take nothing more.
    @Test func aJobWaitsForWorkersWhereAllAreLeaving() throws {
        var cluster = ClusterState()
        let worker = attach("w", megabytes: 99, to: &cluster)
        _ = cluster.drain(worker, at: .zero)
        try add(Self.first, [Self.small, Self.small, Self.small], to: &cluster)
        let job = try status(cluster).jobs[0]
        #expect(job.activity == .waiting && job.blockedReason?.hasPrefix("waits for workers: those that are connected") == true)
        _ = attach("v", megabytes: 99, to: &cluster)
        #expect(try status(cluster).jobs[0].word == "running")
    }

    /// The time in which a job waited is none of its rate's, and is told apart.
    @Test func aWaitIsNoPartOfTheRate() throws {
        var cluster = ClusterState()
        try add(Self.first, [Self.small, Self.small, Self.large], to: &cluster)
        let worker = attach("w", megabytes: 13, to: &cluster, at: .seconds(5))
        try finishLeases(of: worker, in: &cluster, at: .seconds(7))
        try finishLeases(of: worker, in: &cluster, at: .seconds(9))
        let before = try #require(cluster.jobs[Self.first]?.progress.bytesPerSecond(at: .seconds(9)))
        #expect(abs(before - 8) < 1)
        let waiting = try status(cluster, at: .seconds(109)).jobs[0]
        #expect(waiting.bytesPerSecond == nil && waiting.secondsWaited == 105 && waiting.seconds == 109)
        _ = attach("large", megabytes: 99, to: &cluster, at: .seconds(209))
        let job = try status(cluster, at: .seconds(209)).jobs[0], after = try #require(job.bytesPerSecond)
        #expect(job.word == "running" && job.secondsWaited == 205 && abs(after - before) < 0.01)
        // It fades while the worker is at it.
        #expect(try #require(status(cluster, at: .seconds(299)).jobs[0].bytesPerSecond) < before / 2)
    }
}
