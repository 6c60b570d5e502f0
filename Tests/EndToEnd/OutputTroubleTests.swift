import Foundation
import TestSupport
import Testing

/// Outputs that others remove, replace or ask for while a job makes them.
@Suite(.serialized) struct OutputTroubleTests {
    private let directory: TemporaryDirectory
    private static let recipe = "cases/ties/recipe.yml"
    /// So slow that the job cannot end before the test has looked at it.
    private static let slow = ["--pause-milliseconds", "3000"]
    private static let shards = ["--shard-size", "10kB"]

    init() throws { directory = try TemporaryDirectory() }

    private func submit(_ cluster: Cluster) async throws -> String {
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", Self.shards)
        return outcome.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Noticed with the next result, and not when all are there.
    @Test(arguments: [false, true], [false, true])
    func anOutputThatIsTakenAwayEndsTheJob(hasState: Bool, isReplaced: Bool) async throws {
        let state = hasState ? ["--state", "\(directory.path)/state"] : []
        let cluster = try await Cluster(workers: 1, coordinator: state, worker: Self.slow)
        let id = try await submit(cluster), partial = "\(directory.path)/out.partial-\(id)"
        try await eventually("a committed shard") { try await cluster.job(id).shards.committed > 0 }
        try FileManager.default.moveItem(atPath: partial, toPath: "\(directory.path)/elsewhere")
        if isReplaced { try FileManager.default.createDirectory(atPath: partial, withIntermediateDirectories: false) }
        try await eventually("the end") { try await cluster.job(id).state == "failed" }
        let job = try await cluster.job(id)
        #expect(job.shards.committed < job.shards.total)
        let status = try await Tessera.run(["status", "--coordinator", cluster.jobs])
        let words = isReplaced ? "was replaced by others" : "was removed by others"
        #expect(status.output.contains("out.partial-\(id): the unfinished output \(words)"), "\(status.output)")
        // What others put there is theirs.
        #expect(directory.names.contains("out.partial-\(id)") == isReplaced)
    }

    /// A run must not write, and later remove, files where a link of somebody else leads.
    @Test func aRunGoesThroughNoLinkedState() async throws {
        let files = FileManager.default, other = "\(directory.path)/other"
        try files.createDirectory(atPath: other, withIntermediateDirectories: false)
        try directory.write("mine", to: "other/lock")
        try files.createSymbolicLink(atPath: "\(directory.path)/out.partial-state", withDestinationPath: other)
        let run = try await Tessera.run(["run", Self.recipe, "\(directory.path)/out"])
        #expect(run.exitCode == 77 && run.errors.contains("out.partial-state: is a link"), "\(run.errors)")
        #expect(directory.names == ["other", "out.partial-state"])
        #expect(files.contents(atPath: "\(other)/lock") == Data("mine".utf8))
    }

    /// The second job learns at once that it could not have its output, and which job has it.
    @Test func twoJobsForOneOutput() async throws {
        let cluster = try await Cluster(workers: 1, worker: Self.slow)
        let id = try await submit(cluster)
        for options in [[], ["--overwrite"]] {
            let second = try await cluster.submit("cases/linear/recipe.yml", "\(directory.path)/./out", options)
            #expect(second.exitCode == 75, "\(second.errors)")
            #expect(second.errors.contains("\(directory.path)/out: the job \(id) makes this output already"), "\(second.errors)")
        }
        // The same job again is no other job.
        let same = try await cluster.submit(Self.recipe, "\(directory.path)/out", Self.shards)
        #expect(same.output == "\(id)\n" && same.errors.contains("goes on as the job"), "\(same.errors)")
        #expect(try await Tessera.run(["cancel", id, "--coordinator", cluster.jobs]).exitCode == 0)
        #expect(try await cluster.submit("cases/linear/recipe.yml", "\(directory.path)/out").exitCode == 0)
    }

    /// Nobody works: the job says so, and since when, and so does the log when the last worker goes.
    @Test func aJobWithoutWorkersSaysSo() async throws {
        let cluster = try await Cluster(workers: 1, worker: Self.slow)
        _ = try await submit(cluster)
        cluster.workers[0].signal(SIGKILL)
        _ = await cluster.workers[0].exitCode()
        try await eventually("a status") {
            try await Tessera.run(["status", "--coordinator", cluster.jobs]).output
                .contains("waits for workers: none has been connected for ")
        }
        #expect(cluster.coordinator.errors.contains("no worker is left: jobs wait until one connects"))
    }
}
