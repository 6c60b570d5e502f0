import Core
import Foundation
import TestSupport
import Testing

/// Beginnings and ends of processes and jobs: signals, cancelling, draining, coming back.
@Suite(.serialized) struct LifecycleTests {
    private let directory: TemporaryDirectory
    /// Makes a shard of every few tensors.
    private static let shards = ["--shard-size", "10kB"]

    init() throws { directory = try TemporaryDirectory() }

    private func submit(_ cluster: Cluster, _ name: String = "out", _ options: [String] = shards) async throws -> String {
        let outcome = try await cluster.submit("cases/ties/recipe.yml", "\(directory.path)/\(name)", options)
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
        return outcome.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private func waitForWork(_ cluster: Cluster, _ id: String) async throws {
        try await eventually("work") { try await cluster.job(id).shards.committed > 0 }
    }

    @Test func aCancelledJobLeavesNothing() async throws {
        // So slow that the job is still there when a busy machine comes to look at it.
        let cluster = try await Cluster(workers: 1, worker: ["--pause-milliseconds", "2000"])
        let id = try await submit(cluster)
        try await waitForWork(cluster, id)
        #expect(directory.names == ["out.partial-\(id)"])
        let outcome = try await Tessera.run(["cancel", String(id.prefix(8)), "--coordinator", cluster.jobs])
        #expect(outcome.exitCode == 0 && outcome.output == "cancelled \(id)\n")
        #expect(directory.names == [])
        #expect(try await cluster.job(id).state == "cancelled")
        // The worker is free for the next job.
        let next = try await submit(cluster, "next", [])
        try await eventually("the next job") { try await cluster.job(next).state == "done" }
        #expect(try await Tessera.run(["cancel", "ffff", "--coordinator", cluster.jobs]).exitCode == 66)
    }

    @Test func aDrainingWorkerFinishesWhatItHas() async throws {
        let cluster = try await Cluster(workers: 1, worker: ["--pause-milliseconds", "3000", "--pause-after", "1"])
        let id = try await submit(cluster)
        try await waitForWork(cluster, id)
        cluster.workers[0].signal(SIGTERM)
        #expect(await cluster.workers[0].exitCode() == 0)
        let job = try await cluster.job(id)
        #expect(job.shards.leased == 0 && job.shards.committed == job.attempts, "nothing was thrown away")
        try cluster.addWorker()
        try await eventually("the end") { try await cluster.job(id).state == "done" }
    }

    @Test func aDrainingCoordinatorFinishesItsJobs() async throws {
        // So slow that the job still runs when a busy machine comes to submit another.
        let cluster = try await Cluster(workers: 1, worker: ["--pause-milliseconds", "2000"])
        let id = try await submit(cluster)
        try await waitForWork(cluster, id)
        let follower = try RunningTessera(["wait", id, "--coordinator", cluster.jobs])
        cluster.coordinator.signal(SIGTERM)
        try await eventually("no more jobs") {
            let outcome = try await cluster.submit("cases/ties/recipe.yml", "\(directory.path)/late")
            return outcome.exitCode == 75 && outcome.errors.contains("is shutting down")
        }
        #expect(await cluster.coordinator.exitCode() == 0)
        #expect(await follower.exitCode() == 0, "whoever follows a job learns its end: \(follower.errors)")
        #expect(directory.names == ["out"])
        #expect(try await Tessera.run(["verify", "\(directory.path)/out"]).exitCode == 0)
    }

    @Test func anInterruptedCoordinatorEndsAtOnceAndLeavesNothing() async throws {
        let cluster = try await Cluster()
        _ = try await submit(cluster)
        #expect(directory.names.count == 1)
        cluster.coordinator.signal(SIGINT)
        #expect(await cluster.coordinator.exitCode() == 130)
        #expect(directory.names == [])
    }

    /// A checkpoint that is replaced between two jobs by another of the same shapes is read anew, wherever it was kept.
    @Test(arguments: [false, true])
    func replacedInputsAreReadAnew(fetched: Bool) async throws {
        func write(_ value: Float) throws {
            try TestTensor.writeCheckpoint("\(directory.path)/new", [("x", TestTensor([value, value], shape: [2]))])
            if FileManager.default.fileExists(atPath: "\(directory.path)/m") {
                try FileManager.default.removeItem(atPath: "\(directory.path)/m")
            }
            try FileManager.default.moveItem(atPath: "\(directory.path)/new", toPath: "\(directory.path)/m")
        }
        let recipe = try directory.write("merge_method: passthrough\nmodels:\n- model: \(directory.path)/m\n", to: "r.yml")
        let empty = try TemporaryDirectory()
        let cluster = try await Cluster(workers: 1, worker: fetched ? ["--root", empty.path] : [])
        for value in [Float(1), 2] {
            try write(value)
            let output = "\(directory.path)/out-\(value)"
            let outcome = try await cluster.submit(recipe, output, ["--wait"])
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
            #expect(try TestTensor.read(output)["x"]?.values == [Double(value), Double(value)])
        }
    }

    @Test func workersComeBackToACoordinatorThatComesBack() async throws {
        let first = try await Cluster()
        let port = first.jobs
        let worker = try RunningTessera(["worker", "--coordinator", port, "--name", "faithful"])
        try await first.waitForWorkers(1)
        first.coordinator.signal(SIGKILL)
        _ = await first.coordinator.exitCode()
        let second = try await Cluster(coordinator: ["--listen", port])
        try await second.waitForWorkers(1)
        let outcome = try await second.submit("cases/linear/recipe.yml", "\(directory.path)/out", ["--wait"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        worker.signal(SIGTERM)
        #expect(await worker.exitCode() == 0)
    }

    @Test func aJobWaitsForItsFirstWorker() async throws {
        let cluster = try await Cluster()
        let id = try await submit(cluster)
        #expect(try await cluster.job(id).shards.pending > 0)
        try cluster.addWorker()
        try await eventually("the end") { try await cluster.job(id).state == "done" }
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func aRunThatIsInterruptedBeforeAnythingIsDoneLeavesNothing(signal: Int32) async throws {
        // Large enough to be interrupted, made of zeros that take no time to write.
        let count = 64 << 20
        for model in ["a", "b"] {
            try TestTensor.writeCheckpoint("\(directory.path)/\(model)", [("x", TestTensor(.f32, [0], bytes: []))])
            try writeSparse(model, elements: count)
        }
        try directory.write(
            "merge_method: ties\nbase_model: a\nmodels:\n- model: b\nparameters: {weight: 1, density: 0.5}\n", to: "r.yml")
        let run = try RunningTessera(["run", "r.yml", "out", "--threads", "1"], in: directory.path)
        try await eventually("the partial output") { directory.names.contains { $0.hasPrefix("out.partial-") } }
        run.signal(signal)
        #expect(await run.exitCode() == 128 + signal)
        #expect(run.errors.contains("nothing was done yet"), "\(run.errors)")
        #expect(directory.names == ["a", "b", "r.yml"])
    }

    private func writeSparse(_ model: String, elements: Int) throws {
        let header = Array("{\"t\":{\"dtype\":\"F32\",\"shape\":[\(elements)],\"data_offsets\":[0,\(4 * elements)]}}".utf8)
        let prefix = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        let url = URL(fileURLWithPath: "\(directory.path)/\(model)/model.safetensors")
        try Data(prefix + header).write(to: url)
        let handle = try FileHandle(forWritingTo: url)
        try handle.truncate(atOffset: UInt64(8 + header.count + 4 * elements))
        try handle.close()
    }
}
