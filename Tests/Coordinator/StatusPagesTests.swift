import Core
import Planning
import Protocol
import TestSupport
import Testing

@testable import Coordinator

/// A message of status stays far below its limit, and pages together hold everything.
@Suite struct StatusPagesTests {
    private static let id = JobID(high: 5, low: 5)

    private func cluster(shards: Int, label: String = "layers.1234.mlp.experts.56") throws -> ClusterState {
        let jobs = try TestJobs(), store = MemoryOutputStore()
        let job = Job(try jobs.stages(), output: try store.begin("/out", job: "1", overwrite: false), options: JobOptions())
        var cluster = ClusterState()
        let summary = PlanSummary(
            method: "linear", digest: try .sha256(of: []), bytesInput: 1, bytesOutput: 1,
            shards: Array(repeating: ShardSummary(label: label, byteCount: 1), count: shards))
        cluster.add(Self.id, job, output: "/out", summary: summary)
        return cluster
    }

    private func size(_ status: Status) throws -> Int { try Message.status(status).frame().byteCount }

    @Test(arguments: [("layers.1234.mlp.experts.56", 100_000), (String(repeating: "\u{1}\"", count: 5000), 10_000)])
    func aJobOfManyShardsComesInPages(label: String, count: Int) throws {
        let cluster = try cluster(shards: count, label: label)
        var after: Int?, seen = 0, pages = 0
        repeat {
            let status = try #require(
                StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(job: Self.id, after: after, limit: .max)))
            #expect(try size(status) < Limits.controlBodyBytes / 2)
            let details = try #require(status.jobs.first?.shardDetails)
            #expect(status.total == count && details.map(\.index) == Array(seen..<seen + details.count))
            seen += details.count
            pages += 1
            after = status.next
        } while after != nil
        #expect(seen == count && pages >= count / 1000)
        let summary = try #require(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(job: Self.id, limit: 0)))
        #expect(summary.jobs.first?.shardDetails == nil && summary.jobs.first?.shards.total == count)
        #expect(try size(summary) < 2000)
    }

    @Test(arguments: [-1, Int.min, 99_999, 100_000, .max - 1, .max])
    func anyPlaceMayBeAskedFor(after: Int) throws {
        let cluster = try cluster(shards: 100_000)
        for limit in [Int.min, -1, 0, 1, .max] {
            let request = StatusRequest(job: Self.id, after: after, limit: limit)
            let details = StatusPages(cluster, at: .zero, for: .local).answer(request)?.jobs.first?.shardDetails ?? []
            #expect(details.count <= StatusPages.shardLimit)
            #expect(after < 0 || details.isEmpty)
            #expect(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(after: after, limit: limit)) != nil)
            #expect(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(workersAfter: after)) != nil)
        }
        #expect(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(job: JobID(high: 9, low: 9))) == nil)
    }

    @Test func jobsComeInPagesAndAreFoundByTheBeginningOfTheirIDs() throws {
        let jobs = try TestJobs(), store = MemoryOutputStore(), stages = try jobs.stages()
        var cluster = ClusterState()
        for number in 0..<450 {
            let job = Job(stages, output: try store.begin("/\(number)", job: "", overwrite: false), options: JobOptions())
            _ = cluster.add(
                JobID(high: UInt64(number) << 48, low: 0), job, key: JobKey("", owner: "o"), output: "/\(number)", stages: stages,
                submittedAt: 0,
                at: .zero)
        }
        for _ in 0..<1200 {
            let name = String(repeating: "\u{1}", count: 5000)
            let description = WorkerDescription(
                name: name, address: "h", build: name, threads: 1, memory: 0, tensorMemory: 0)
            _ = cluster.attach(description, at: .zero) { _ in }
        }
        var after: Int?, outputs: [String] = []
        repeat {
            let status = try #require(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(after: after)))
            #expect(try size(status) < Limits.controlBodyBytes && status.total == 450)
            #expect(status.jobs.count <= 200 && (after == nil) == !status.workers.isEmpty)
            outputs += status.jobs.map(\.output)
            after = status.next
        } while after != nil
        #expect(outputs == (0..<450).map { "/\($0)" })

        var workers: [Int] = [], next: Int? = 0
        while let number = next {
            let status = try #require(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(workersAfter: number)))
            #expect(try status.jobs.isEmpty && size(status) < Limits.controlBodyBytes)
            workers += status.workers.map(\.id)
            next = status.nextWorkers
        }
        #expect(workers == Array(1...1200))

        let found = try #require(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(prefix: "001A")))
        #expect(found.jobs.map(\.output) == ["/26"] && found.total == 1)
        #expect(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(prefix: "000"))?.total == 16)
        #expect(StatusPages(cluster, at: .zero, for: .local).answer(StatusRequest(prefix: "x"))?.jobs == [])
    }
}

extension ClusterState {
    /// A job whose shards are known to status, but not to the scheduler.
    fileprivate mutating func add(_ id: JobID, _ job: Job, output: String, summary: PlanSummary) {
        jobs.add(id, key: JobKey("", owner: "o"), output: output, job: job, startedAt: .zero, submittedAt: 0)
        jobs.apply(.planned(id, summary))
    }
}
