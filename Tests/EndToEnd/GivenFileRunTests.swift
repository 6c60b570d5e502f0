import Core
import Foundation
import TestSupport
import Testing

/// Merges with files beside the models, and task models out of a shared vector, as processes run them.
@Suite struct GivenFileRunTests {
    private static let cases = "\(Repository.golden)/seed-cases"

    /// What a store of masks rebuilds, a merge makes as well.
    @Test(arguments: [("tall", 4), ("emr", 2)])
    func taskModelsOutOfASharedVector(method: String, tasks: Int) async throws {
        let directory = try TemporaryDirectory()
        for task in 0..<tasks {
            let models = (0..<4).map { "- model: models/f32/tune-\($0)\n" }.joined()
            let recipe = try directory.write(
                "merge_method: \(method)\nbase_model: models/f32/base\nmodels:\n\(models)parameters: {task: \(task + 1)}\n"
                    + "dtype: float32\n", to: "recipe.yml")
            let outcome = try await Tessera.run(["run", recipe, "\(directory.path)/out", "--overwrite", "--strict"])
            try #require(outcome.exitCode == 0, "\(outcome.errors)")
            let expected = try TestTensor.read("\(Self.cases)/\(method)-tune-\(task)/expected.safetensors")
            #expect(
                Comparison.differences(try TestTensor.read("\(directory.path)/out"), from: expected, rtol: 2e-6) == [], "\(task)")
        }
    }

    /// A Fisher file with a value that is none: run and cluster name file, tensor and element, and leave nothing behind.
    @Test func valuesThatCannotBeAreNamed() async throws {
        let directory = try TemporaryDirectory(), names = ["a", "b"]
        func write(_ path: String, _ values: [Float]) throws {
            try Data(TestTensor.encode([("w", TestTensor(values, shape: [2, 2]))])).write(
                to: URL(fileURLWithPath: "\(directory.path)/\(path)"))
        }
        for name in names {
            try TestTensor.writeCheckpoint("\(directory.path)/\(name)", [("w", TestTensor([1, 2, 3, 4], shape: [2, 2]))])
        }
        try write("good.safetensors", [1, 1, 1, 1])
        try write("bad.safetensors", [1, 1, -1, 1])
        try directory.write(
            "merge_method: fisher\nmodels:\n- model: a\n  parameters: {fisher: good.safetensors}\n"
                + "- model: b\n  parameters: {fisher: bad.safetensors}\n", to: "recipe.yml")
        let before = directory.names, cluster = try await Cluster(workers: 1)
        for outcome in [
            try await Tessera.run(["run", "recipe.yml", "out"], in: directory.path),
            try await cluster.submit("recipe.yml", "out", ["--wait"], in: directory.path),
        ] {
            #expect(outcome.exitCode == 65, "\(outcome.errors)")
            for word in ["bad.safetensors", "tensor 'w'", "-1.0 at element 2"] {
                #expect(outcome.errors.contains(word), "\(outcome.errors)")
            }
        }
        #expect(directory.names == before)
    }

    @Test func theManifestListsGivenFiles() async throws {
        struct Manifest: Decodable {
            struct Input: Decodable {
                struct Part: Decodable { let file: String; let size: Int; let headerDigest: String }
                let model: String
                let parts: [Part]
            }
            let inputs: [Input]
        }
        let directory = try TemporaryDirectory(), output = "\(directory.path)/out"
        #expect(try await Tessera.run(["run", "seed-cases/atlas/recipe.yml", output]).exitCode == 0)
        let manifest = try JSONDecoder().decode(
            Manifest.self, from: Data(contentsOf: URL(fileURLWithPath: "\(output)/tessera.manifest.json")))
        let input = try #require(manifest.inputs.last)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(Self.cases)/atlas/coefficients.json"))
        #expect(input.model == "seed-cases/atlas/coefficients.json" && input.parts.map(\.file) == ["coefficients.json"])
        #expect(input.parts[0].size == bytes.count)
        #expect(input.parts[0].headerDigest == (try Digest.sha256(of: Array(bytes)).hex))
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        let plan = try await Tessera.run(["plan", "seed-cases/atlas/recipe.yml"])
        #expect(
            plan.output.hasPrefix("atlas of 3 models on models/f32/base") && plan.output.contains("coefficients.json"),
            "\(plan.output)")
    }
}
