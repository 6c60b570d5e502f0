import Foundation
import TestSupport
import Testing

/// What an independent reference in float64 made of the merges in `Tests/Golden/seed-cases`. In `tsv-isotropic`, directions that
/// the update does not have were taken out of the reference, whose choice of them was arbitrary.
@Suite struct MatrixGoldenTests {
    private static let directory = "\(Repository.golden)/seed-cases"

    private static let cases = ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted().filter { name in
        let recipe = try? String(contentsOfFile: "\(directory)/\(name)/recipe.yml", encoding: .utf8)
        return recipe?.hasPrefix("merge_method:") ?? false
    }

    @Test func thereAreCases() { #expect(Self.cases.count >= 35) }

    @Test(arguments: cases)
    func matches(name: String) async throws {
        let directory = try TemporaryDirectory(), output = "\(directory.path)/out"
        let outcome = try await Tessera.run(["run", "seed-cases/\(name)/recipe.yml", output, "--strict"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let expected = try TestTensor.read("\(Self.directory)/\(name)/expected.safetensors")
        // Hundreds of steps of a descent add up rounding; where a threshold of the whole model cuts, a few entries may fall on
        // the other side.
        let rtol = name == "doge" ? 1e-4 : 2e-6, share = ["pcb", "ties-model-wide"].contains(name) ? 0.002 : 0
        #expect(
            Comparison.differences(try TestTensor.read(output), from: expected, rtol: rtol, allowedShare: share) == [])
    }

    @Test func theSameBytesThroughThreeWorkers() async throws {
        let directory = try TemporaryDirectory()
        let cluster = try await Cluster(workers: 3)
        for name in Self.cases {
            let recipe = "seed-cases/\(name)/recipe.yml", alone = "\(directory.path)/alone",
                together = "\(directory.path)/together"
            #expect(try await Tessera.run(["run", recipe, alone]).exitCode == 0, "\(name)")
            let outcome = try await cluster.submit(recipe, together, ["--wait", "--shard-size", "5kB"])
            #expect(outcome.exitCode == 0, "\(name): \(outcome.errors)")
            #expect(try outputFiles(alone) == outputFiles(together), "\(name)")
            for output in [alone, together] { try FileManager.default.removeItem(atPath: output) }
        }
    }

    /// The environment and the processor choose the library's loops, which give other bits. Tessera overrules both, and refuses
    /// to compute where it could not.
    @Test(arguments: ["Prescott", "SkylakeX", "Zen"])
    func theSameBytesWhateverLoopsTheEnvironmentAsksFor(loops: String) async throws {
        let directory = try TemporaryDirectory(), recipe = "seed-cases/iso-cts/recipe.yml"
        let plain = "\(directory.path)/plain", asked = "\(directory.path)/asked"
        #expect(try await Tessera.run(["run", recipe, plain]).exitCode == 0)
        let outcome = try await Tessera.run(
            ["run", recipe, asked], environment: ["OPENBLAS_CORETYPE": loops, "OPENBLAS_NUM_THREADS": "2"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try outputFiles(plain) == outputFiles(asked))
    }

    /// A task of a store, and a list of names in which one fits nothing.
    @Test func matricesOfStoredTasksAreMerged() async throws {
        let directory = try TemporaryDirectory(), models = "\(Repository.golden)/models/f32", store = "\(directory.path)/store"
        let tasks = (0..<3).map { "- model: \(models)/tune-\($0)\n" }.joined()
        let storing = try directory.write(
            "quantize: {method: tvq, bits: 8}\nbase_model: \(models)/base\nmodels:\n\(tasks)", to: "store.yml")
        let stored = try await Tessera.run(["run", storing, store])
        #expect(stored.exitCode == 0, "\(stored.errors)")
        func merged(_ tasks: [String]) async throws -> [String: TestTensor] {
            let recipe = try directory.write(
                "merge_method: actmat\nbase_model: \(models)/base\nmodels:\n"
                    + tasks.map { "- model: \($0)\n" }.joined() + "parameters: {mean_only: [embed_tokens, no_such_name]}\n",
                to: "merge.yml")
            let outcome = try await Tessera.run(["run", recipe, "\(directory.path)/out", "--overwrite"])
            #expect(
                outcome.exitCode == 0 && outcome.errors.contains("no tensor name contains 'no_such_name'"), "\(outcome.errors)")
            return try TestTensor.read("\(directory.path)/out")
        }
        let plain = try await merged((0..<3).map { "\(models)/tune-\($0)" })
        let decoded = try await merged((0..<3).map { "'\(store)#tune-\($0)'" })
        // Eight bits change the task vectors by about a percent, and with this method the update by as little.
        #expect(Comparison.differences(decoded, from: plain, rtol: 3e-2) == [])
        #expect(decoded != plain)
    }

    @Test func tooLittleMemoryNamesTheTensor() async throws {
        let directory = try TemporaryDirectory(), models = "\(directory.path)/models"
        for (index, name) in ["base", "tune"].enumerated() {
            try TestTensor.writeCheckpoint(
                "\(models)/\(name)",
                [
                    ("large.weight", TestTensor([Float](repeating: Float(index), count: 900 * 900), shape: [900, 900])),
                    ("small.weight", TestTensor([Float](repeating: Float(index), count: 4), shape: [2, 2])),
                ])
        }
        let recipe = try directory.write(
            "merge_method: wudi\nbase_model: \(models)/base\nmodels:\n- model: \(models)/tune\n", to: "recipe.yml")
        let outcome = try await Tessera.run(
            ["run", recipe, "\(directory.path)/out", "--memory", "100MiB", "--threads", "1"])
        #expect(outcome.exitCode == 64)
        #expect(outcome.errors.contains("tensor 'large.weight': the job needs"), "\(outcome.errors)")
    }

    @Test func wordsAndNamesAreChecked() async throws {
        let directory = try TemporaryDirectory()
        for (setting, complaint) in [
            ("others: median", "'others' is 'median'; it must be one of mean, sum, base"),
            ("others: 3", "'others' is 3; it must be one of"), ("mean_only: [1]", "'mean_only' names 1; it must name parts"),
            ("isotropic: maybe", "'isotropic' is 'maybe'"),
        ] {
            let recipe = try directory.write(
                "merge_method: tsv\nbase_model: models/f32/base\nmodels:\n- model: models/f32/tune-0\nparameters: {\(setting)}\n",
                to: "recipe.yml")
            let outcome = try await Tessera.run(["plan", recipe])
            #expect(outcome.exitCode == 65 && outcome.errors.contains(complaint), "\(outcome.errors)")
        }
    }
}
