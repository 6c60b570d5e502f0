import Foundation
import TestSupport
import Testing

/// A sweep makes what the recipes of its points make, wherever it runs.
@Suite(.serialized) struct SweepTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private static let head = "base_model: models/f32/base\nmodels:\n"
    private static let plain = (0..<3).map { "- model: models/f32/tune-\($0)\n" }.joined()
    private static let weighted = "\(plain)parameters: {weight: 0.4, density: 0.5, "
    /// Each with the names of its checkpoints. The first two merge once; `svc` once for each value, `metagpt` after a stage that
    /// looks at the models, and the grid partly.
    private static let sweeps = [
        (
            "merge_method: ties\n\(head)\(weighted)lambda: {sweep: [0.5, 1.0, -2]}}\n",
            ["lambda=0.5", "lambda=1.0", "lambda=-2"]
        ),
        (
            "merge_method: tsv\n\(head)\(plain)parameters: {lambda: {sweep: [0.5, 1]}, others: base}\n",
            ["lambda=0.5", "lambda=1"]
        ),
        ("merge_method: svc\n\(head)\(plain)parameters: {lambda: {sweep: [0.3, 1]}}\n", ["lambda=0.3", "lambda=1"]),
        (
            "merge_method: dare_ties\n\(head)\(weighted)lambda: {sweep: [0.5, 1]}, rescale: {sweep: [true, false]}}\n",
            ["lambda=0.5,rescale=true", "lambda=0.5,rescale=false", "lambda=1,rescale=true", "lambda=1,rescale=false"]
        ),
        (
            "merge_method: task_arithmetic\n\(head)"
                + "- {model: models/f32/tune-0, parameters: {weight: {sweep: [1, 0.25]}}}\n"
                + "- {model: models/f32/tune-1, parameters: {weight: {sweep: [0, 0.75]}}}\n",
            ["weight=1_0", "weight=0.25_0.75"]
        ),
        // Each value has measurements of its own; in the last two, all values share them.
        (
            "merge_method: ties\n\(head)\(plain)"
                + "parameters: {weight: 0.4, trim: model, density: {sweep: [0.1, 0.5]}, lambda: {sweep: [0.5, 1]}}\n",
            ["density=0.1,lambda=0.5", "density=0.1,lambda=1", "density=0.5,lambda=0.5", "density=0.5,lambda=1"]
        ),
        ("merge_method: emr\n\(head)\(plain)parameters: {task: {sweep: [1, 2, 3]}}\n", ["task=1", "task=2", "task=3"]),
        (
            "merge_method: doge\n\(head)\(plain)parameters: {include: ['layers.0.*'], steps: {sweep: [0, 3]}}\n",
            ["steps=0", "steps=3"]
        ),
    ]
    private static let limits = ["--max-part-size", "300kB", "--shard-size", "20kB"]

    private func write(_ recipe: String, _ name: String = "sweep.yml") throws -> String { try directory.write(recipe, to: name) }

    private func expectSuccess(_ outcome: Tessera.Outcome, _ what: String) {
        #expect(outcome.exitCode == 0, "\(what): \(outcome.errors)")
    }

    /// Every file below a directory but the report of the run.
    private func files(_ directory: String) throws -> [String: Data] {
        var files: [String: Data] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: directory) where name != "tessera.report.json" {
            if let contents = FileManager.default.contents(atPath: "\(directory)/\(name)") { files[name] = contents }
        }
        return files
    }

    @Test(arguments: sweeps)
    func everyPointIsWhatItsRecipeMakes(recipe: String, names: [String]) async throws {
        let output = "\(directory.path)/out"
        expectSuccess(try await Tessera.run(["run", write(recipe), output, "--seed", "5"] + Self.limits), "the sweep")
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: output).sorted()
                == (names + ["README.md", "recipe.yml", "tessera.manifest.json", "tessera.report.json"]).sorted())
        let inspection = try await Tessera.run(["inspect", output])
        #expect(
            inspection.exitCode == 66 && inspection.errors.contains("name one of them: \(output)/\(names.sorted()[0])"),
            "\(inspection.errors)")
        #expect(try String(contentsOfFile: "\(output)/recipe.yml", encoding: .utf8) == recipe)
        expectSuccess(try await Tessera.run(["verify", output]), "the whole")
        for name in names {
            let point = "\(output)/\(name)", alone = "\(directory.path)/alone"
            expectSuccess(try await Tessera.run(["verify", point]), name)
            let outcome = try await Tessera.run(["run", "\(point)/recipe.yml", alone, "--strict", "--seed", "5"] + Self.limits)
            expectSuccess(outcome, "\(name) alone")
            // A manifest names the plan, which is another.
            let made = try outputFiles(point).filter { $0.key != "tessera.manifest.json" }
            #expect(try outputFiles(alone).filter { $0.key != "tessera.manifest.json" } == made, "\(name)")
            #expect(try manifestWithoutPlan(point) == manifestWithoutPlan(alone), "\(name)")
            try FileManager.default.removeItem(atPath: alone)
        }
    }

    private func manifestWithoutPlan(_ directory: String) throws -> NSDictionary {
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/tessera.manifest.json"))
        var manifest = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        manifest["plan"] = nil
        return manifest as NSDictionary
    }

    @Test func theSameBytesOnAnyNumberOfWorkers() async throws {
        for (index, sweep) in Self.sweeps.enumerated() {
            expectSuccess(
                try await Tessera.run(["run", write(sweep.0, "\(index).yml"), "\(directory.path)/\(index)"] + Self.limits),
                "\(index)")
        }
        for workers in [1, 2, 5] {
            let cluster = try await Cluster(workers: workers)
            for index in Self.sweeps.indices {
                let output = "\(directory.path)/cluster"
                expectSuccess(
                    try await cluster.submit("\(directory.path)/\(index).yml", output, ["--wait"] + Self.limits), "\(index)")
                #expect(try files(output) == files("\(directory.path)/\(index)"), "\(index), \(workers) workers")
                try FileManager.default.removeItem(atPath: output)
            }
        }
    }

    /// A coordinator that is killed goes on with the folders that it has.
    @Test func aKilledCoordinatorGoesOn() async throws {
        let recipe = try write(Self.sweeps[0].0), output = "\(directory.path)/out", state = "\(directory.path)/state"
        expectSuccess(try await Tessera.run(["run", recipe, "\(directory.path)/whole"] + Self.limits), "the whole")
        let first = try await Cluster(workers: 2, coordinator: ["--state", state], worker: ["--pause-milliseconds", "100"])
        let id = try await first.submit(recipe, output, Self.limits).output.trimmingCharacters(in: .whitespacesAndNewlines)
        try await eventually("some shards") { try await first.job(id).shards.committed > 1 }
        first.coordinator.signal(SIGKILL)
        _ = await first.coordinator.exitCode()
        let second = try await Cluster(coordinator: ["--listen", first.jobs, "--state", state])
        try await eventually("the end") { try await second.job(id).state == "done" }
        let job = try await second.job(id)
        #expect(job.attempts < 2 * job.shards.total)
        #expect(try files(output) == files("\(directory.path)/whole"))
        #expect(directory.names.filter { $0.hasPrefix("out") } == ["out"])
    }

    /// A sweep replaces another sweep or a checkpoint, and a checkpoint a sweep, unless they hold what Tessera did not write.
    @Test func outputsAreOverwritten() async throws {
        let recipe = try write(Self.sweeps[0].0), output = "\(directory.path)/out"
        expectSuccess(try await Tessera.run(["run", recipe, output, "--sha256sums"]), "the sweep")
        #expect(try await Tessera.run(["run", recipe, output]).exitCode == 73)
        expectSuccess(try await Tessera.run(["run", "cases/ties/recipe.yml", output, "--overwrite"]), "a checkpoint")
        expectSuccess(try await Tessera.run(["run", recipe, output, "--overwrite"]), "the sweep again")
        try Data().write(to: URL(fileURLWithPath: "\(output)/lambda=0.5/mine.txt"))
        let outcome = try await Tessera.run(["run", recipe, output, "--overwrite"])
        #expect(outcome.exitCode == 73 && outcome.errors.contains("holds 'lambda=0.5/mine.txt'"), "\(outcome.errors)")
        let verification = try await Tessera.run(["verify", output])
        #expect(verification.exitCode == 1 && verification.output.contains("lambda=0.5/mine.txt: is not in the manifest"))
    }

    @Test func thePlanSaysWhatIsMergedOnce() async throws {
        for (index, remark) in [
            (0, "sweep of lambda: 3 checkpoints; each tensor is merged once for all of them"),
            (2, "sweep of lambda: 2 checkpoints; "),
        ] {
            let outcome = try await Tessera.run(["plan", write(Self.sweeps[index].0)])
            // In a pipe, lines are wrapped.
            let words = outcome.output.split { $0.isWhitespace }.joined(separator: " ") + " "
            #expect(outcome.exitCode == 0 && words.contains(remark), "\(outcome.output)\(outcome.errors)")
            #expect(outcome.output.contains("\(Self.sweeps[index].1[0])/model.safetensors"))
            #expect(outcome.output.contains(index == 0 ? "2.0 times" : " times"), "\(outcome.output)")
        }
    }

    /// Values on which nothing depends that is measured are measured at once: the job has as many stages as a single merge.
    @Test func whatIsMeasuredAlikeIsMeasuredOnce() async throws {
        struct Report: Decodable { let shards: Int }
        func shards(_ recipe: String) async throws -> Int {
            let output = "\(directory.path)/out"
            expectSuccess(try await Tessera.run(["run", write(recipe), output, "--overwrite", "--shard-size", "1GB"]), recipe)
            let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(output)/tessera.report.json"))
            let report = try JSONDecoder().decode(Report.self, from: bytes)
            return report.shards
        }
        func emr(_ task: String) -> String { "merge_method: emr\n\(Self.head)\(Self.plain)parameters: {task: \(task)}\n" }
        let alone = try await shards(emr("1"))
        #expect(try await shards(emr("{sweep: [1, 2, 3]}")) == alone)
        #expect(try await shards(emr("1, rescale: {sweep: [means, sums]}")) > alone)
    }

    /// A value that the method cannot take is one problem, wherever in the sweep it stands.
    @Test func wrongValuesAreRefused() async throws {
        let recipe = try write(
            "merge_method: ties\n\(Self.head)- {model: models/f32/tune-0, parameters: {weight: 1, density: {sweep: [0.5, 3]}}}\n")
        let outcome = try await Tessera.run(["run", recipe, "\(directory.path)/out"])
        #expect(
            outcome.exitCode == 65 && outcome.errors.contains("sweep.yml:4: 'density' is 3; it must be from 0 to 1"),
            "\(outcome.errors)")
        #expect(directory.names == ["sweep.yml"])
    }
}
