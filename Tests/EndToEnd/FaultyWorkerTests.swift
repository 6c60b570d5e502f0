import Foundation
import TestSupport
import Testing

/// Workers and coordinators that are broken or stand still, behind one address. None of them costs the job.
@Suite(.serialized) struct FaultyWorkerTests {
    private let directory: TemporaryDirectory
    private static let recipe = "cases/ties/recipe.yml"
    private static let shards = ["--shard-size", "10kB"]
    private static let quick = ["--heartbeat-seconds", "0.1", "--lease-seconds", "2"]

    init() throws { directory = try TemporaryDirectory() }

    private func expectWhole(_ output: String) async throws {
        let outcome = try await Tessera.run(["verify", "\(directory.path)/\(output)"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
    }

    /// One of two workers cannot write the output: the job ends with the other, and `status` names the one that fails, and why.
    @Test func aWorkerThatCannotWriteCostsNoJob() async throws {
        let elsewhere = try TemporaryDirectory()
        let cluster = try await Cluster(workers: 1, worker: ["--blocks", "direct", "--output-root", elsewhere.path])
        try cluster.addWorker()
        try await cluster.waitForWorkers(2)
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait"] + Self.shards)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        try await expectWhole("out")
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        #expect(status.output.contains("worker-1 (127.0.0.1) failed "), "\(status.output)")
        #expect(status.output.contains("in a row") && status.output.contains("outside the output root"), "\(status.output)")
        #expect(cluster.coordinator.errors.contains("attempt failed"), "\(cluster.coordinator.errors)")
    }

    private struct Failure: Decodable { let worker, address: String }
    private struct Job: Decodable {
        struct Shard: Decodable { let workers: [String]; let failures: [Failure]? }
        let state: String
        let shardDetails: [Shard]?
    }

    @Test func aFailedJobSaysWhoFailed() async throws {
        let elsewhere = try TemporaryDirectory()
        let arguments = ["--blocks", "direct", "--output-root", elsewhere.path]
        let cluster = try await Cluster(workers: 2, worker: arguments)
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait"])
        #expect(outcome.exitCode == 73 && outcome.errors.contains("failed on worker-"), "\(outcome.errors)")
        let jobs = try await cluster.get("/api/v1/jobs", as: [Cluster.Job].self)
        let job = try await cluster.get("/api/v1/jobs/\(jobs[0].id)", as: Job.self)
        let failed = try #require(job.shardDetails?.first { $0.failures?.count == 2 })
        #expect(
            Set(failed.workers) == ["worker-1", "worker-2"] && failed.failures?.map(\.address) == ["127.0.0.1", "127.0.0.1"])
    }

    /// - Returns: false when the job has ended: a busy machine may look too late.
    private func waitForLease(_ cluster: Cluster, _ id: String) async throws -> Bool {
        var job = try await cluster.job(id)
        try await eventually("a lease") {
            job = try await cluster.job(id)
            return job.shards.leased > 0 || ["done", "failed"].contains(job.state)
        }
        return job.shards.leased > 0
    }

    /// Three times taken for dead, and one worker all the same.
    @Test func aWorkerThatFreezesThreeTimesCostsNoJob() async throws {
        let cluster = try await Cluster(workers: 1, coordinator: Self.quick, worker: ["--pause-milliseconds", "4000"])
        let id = try await cluster.submit(Self.recipe, "\(directory.path)/out").output
            .trimmingCharacters(in: .whitespacesAndNewlines)
        for _ in 0..<3 {
            guard try await waitForLease(cluster, id) else { break }
            cluster.workers[0].signal(SIGSTOP)
            try await eventually("a worker that is given up") {
                try await cluster.get("/api/v1/workers", as: [Cluster.Worker].self).isEmpty
            }
            cluster.workers[0].signal(SIGCONT)
            try await cluster.waitForWorkers(1)
        }
        try await eventually("the end") { try await ["done", "failed"].contains(cluster.job(id).state) }
        #expect(try await cluster.job(id).state == "done", "\(cluster.coordinator.errors)")
        try await expectWhole("out")
    }

    /// While the coordinator stands still, its workers give it up and come back.
    @Test func aCoordinatorThatFreezesThreeTimesCostsNoJob() async throws {
        let cluster = try await Cluster(workers: 2, coordinator: Self.quick, worker: ["--pause-milliseconds", "4000"])
        let id = try await cluster.submit(Self.recipe, "\(directory.path)/out").output
            .trimmingCharacters(in: .whitespacesAndNewlines)
        for round in 1...3 {
            guard try await waitForLease(cluster, id) else { break }
            cluster.coordinator.signal(SIGSTOP)
            try await eventually("workers that give the coordinator up") {
                cluster.workers.contains { $0.errors.components(separatedBy: "lost the coordinator").count > round }
            }
            cluster.coordinator.signal(SIGCONT)
            try await cluster.waitForWorkers(1)
        }
        try await eventually("the end") { try await ["done", "failed"].contains(cluster.job(id).state) }
        #expect(try await cluster.job(id).state == "done", "\(cluster.coordinator.errors)")
        try await expectWhole("out")
    }
}
