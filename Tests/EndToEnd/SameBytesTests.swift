import Foundation
import TestSupport
import Testing

/// The keystone: a checkpoint has the same bytes however it was made.
@Suite(.serialized) struct SameBytesTests {
    /// The methods that work most differently on every family; all the others on one of them.
    private static let families: [String: (base: String, models: [String])] = [
        "f32": ("models/f32/base", (0..<3).map { "models/f32/tune-\($0)" }),
        "bf16": ("models/bf16/base", (0..<3).map { "models/bf16/tune-\($0)" }),
        "deep": ("models/deep/base", (0..<2).map { "models/deep/tune-\($0)" }),
        "digits": ("\(Repository.digits)/base", ["rotated", "inverted", "noisy"].map { "\(Repository.digits)/\($0)" }),
    ]

    private struct Job {
        let name: String
        let recipe: String
        let reference: String
    }

    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// The recipes, each with what `tessera run` makes of it on one thread.
    private func jobs() async throws -> [Job] {
        var jobs: [Job] = []
        for (family, models) in Self.families.sorted(by: { $0.key < $1.key }) {
            let listed = models.models.map { "- model: \($0)\n  parameters: {weight: 0.4, density: 0.3}\n" }.joined()
            let based = { (method: String) in "merge_method: \(method)\nbase_model: \(models.base)\nmodels:\n" }
            let pair = "- model: \(models.models[0])\n"
            var recipes = [
                "linear": "merge_method: linear\nmodels:\n\(listed)",
                "task_arithmetic": based("task_arithmetic") + listed,
                "ties": based("ties") + listed + "parameters: {rescale: true}\n",
                "passthrough": "merge_method: passthrough\nmodels:\n- model: \(models.models[0])\n  parameters: {scale: 0.7}\n",
            ]
            if family == "bf16" {
                for method in [
                    "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "sce", "ram",
                    "ramplus_tl",
                    "model_stock", "multislerp",
                ] { recipes[method] = based(method) + listed }
                for method in ["slerp", "nearswap"] { recipes[method] = based(method) + pair + "parameters: {t: 0.3}\n" }
                recipes["arcee_fusion"] = based("arcee_fusion") + pair
                recipes["karcher"] = "merge_method: karcher\nmodels:\n\(listed)"
                recipes["nuslerp"] =
                    "merge_method: nuslerp\nmodels:\n\(listed.split(separator: "\n").prefix(4).joined(separator: "\n"))\n"
                #expect(recipes.count == 20, "every method")
            }
            for (method, recipe) in recipes.sorted(by: { $0.key < $1.key }) {
                let name = "\(family)-\(method)"
                let path = try directory.write(recipe, to: "\(name).yml"), reference = "\(directory.path)/\(name)"
                let outcome = try await Tessera.run(["run", path, reference, "--threads", "1"] + Self.limits)
                try #require(outcome.exitCode == 0, "\(name): \(outcome.errors)")
                jobs.append(Job(name: name, recipe: path, reference: reference))
            }
        }
        return jobs
    }

    /// Small enough for several parts and many shards.
    private static let limits = ["--max-part-size", "300kB", "--shard-size", "20kB"]

    private func expectSame(_ output: String, _ job: Job, _ how: String) throws {
        let found = try outputFiles(output), expected = try outputFiles(job.reference)
        #expect(found.keys.sorted() == expected.keys.sorted(), "\(job.name), \(how)")
        for (name, bytes) in expected { #expect(found[name] == bytes, "\(job.name)/\(name), \(how)") }
        try FileManager.default.removeItem(atPath: output)
    }

    @Test func forAnyNumberOfThreadsAndAnyShards() async throws {
        for job in try await jobs() {
            for arguments in [
                ["--threads", "2"], ["--threads", "5", "--shard-size", "1kB"], ["--threads", "3", "--shard-size", "1GB"],
            ] {
                let output = "\(directory.path)/again"
                let outcome = try await Tessera.run(["run", job.recipe, output, "--max-part-size", "300kB"] + arguments)
                #expect(outcome.exitCode == 0, "\(outcome.errors)")
                try expectSame(output, job, "\(arguments)")
            }
        }
    }

    @Test func forOneTwoAndFiveWorkers() async throws {
        let jobs = try await jobs()
        for workers in [1, 2, 5] {
            let cluster = try await Cluster(workers: workers)
            for job in jobs {
                let output = "\(directory.path)/cluster"
                let outcome = try await cluster.submit(job.recipe, output, ["--wait"] + Self.limits)
                #expect(outcome.exitCode == 0, "\(outcome.errors)")
                try expectSame(output, job, "\(workers) workers")
            }
            let listed = try await cluster.get("/api/v1/jobs", as: [Cluster.Job].self)
            #expect(listed.count == jobs.count && listed.allSatisfy { $0.state == "done" })
        }
    }

    @Test func withPackedBlocksAndFetchedInputs() async throws {
        let jobs = try await jobs()
        // These workers have none of the inputs: their only root is empty.
        let empty = try TemporaryDirectory()
        let cluster = try await Cluster(workers: 2, worker: ["--root", empty.path, "--pack", "always", "--blocks", "return"])
        for job in jobs {
            let output = "\(directory.path)/fetched"
            let outcome = try await cluster.submit(job.recipe, output, ["--wait"] + Self.limits)
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
            try expectSame(output, job, "fetched")
        }
    }

    @Test func withAWorkerKilledInTheMiddle() async throws {
        let jobs = try await jobs()
        for job in jobs {
            let cluster = try await Cluster(workers: 1, worker: Cluster.stuck + ["--blocks", "auto"])
            let output = "\(directory.path)/killed"
            let id = try await cluster.submitAndKillItsWorker(job.recipe, output, Self.limits)
            try await eventually("the end of \(job.name)") { try await cluster.job(id).state == "done" }
            let status = try await cluster.job(id)
            #expect(status.attempts > status.shards.total, "the victim's shard was done again")
            try expectSame(output, job, "killed")
        }
    }
}

extension Cluster {
    /// A worker that finishes one shard and holds the next one for longer than a test takes.
    static let stuck = ["--pause-milliseconds", "600000", "--pause-after", "1"]

    /// Submits a job to a cluster of one worker, which dies in the middle of it and is replaced.
    func submitAndKillItsWorker(_ recipe: String, _ output: String, _ options: [String]) async throws -> String {
        let submission = try await submit(recipe, output, options)
        try #require(submission.exitCode == 0, "\(submission.errors)")
        let id = submission.output.trimmingCharacters(in: .whitespacesAndNewlines)
        try await eventually("a shard in the victim's hands") {
            let shards = try await job(id).shards
            return shards.committed > 0 && shards.leased > 0
        }
        workers[0].signal(SIGKILL)
        try addWorker()
        return id
    }
}
