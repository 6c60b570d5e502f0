import Checkpoints
import Core
import Foundation
import Planning
import TestSupport
import Testing
import Work

/// LoRA adapters: `model+adapter` is the model with the adapter folded in.
@Suite struct AdapterTests {
    private let directory: TemporaryDirectory
    /// 3 × 2, and an embedding of 4 tokens.
    private static let tensors = [
        ("model.layers.0.q.weight", TestTensor([1, 2, 3, 4, 5, 6], shape: [3, 2])),
        ("model.embed_tokens.weight", TestTensor([0, 0, 0, 0, 0, 0, 0, 0], shape: [4, 2])),
        ("model.norm.weight", TestTensor([1])),
    ]

    init() throws {
        directory = try TemporaryDirectory()
        try TestTensor.writeCheckpoint("\(directory.path)/m", Self.tensors)
    }

    private func writeAdapter(_ config: String, _ tensors: [(String, TestTensor)]) throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/l", withIntermediateDirectories: true)
        try directory.write(config, to: "l/adapter_config.json")
        try Data(TestTensor.encode(tensors)).write(to: URL(fileURLWithPath: "\(directory.path)/l/adapter_model.safetensors"))
    }

    private static let q = [
        ("base_model.model.model.layers.0.q.lora_A.weight", TestTensor([1, 10], shape: [1, 2])),
        ("base_model.model.model.layers.0.q.lora_B.weight", TestTensor([1, 2, 3], shape: [3, 1])),
    ]

    private func plan() throws -> [String: TensorWork] {
        let plan = try Planner.plan(
            PlanRequest(
                recipe: "merge_method: passthrough\nmodels:\n- model: m+l\n", recipeName: "recipe.yml",
                workingDirectory: directory.path))
        #expect(plan.inputs.map { $0.parts.map(\.file) } == [["model.safetensors", "adapter_model.safetensors"]])
        return Dictionary(uniqueKeysWithValues: plan.stages.joined().flatMap(\.tensors).map { ($0.name, $0) })
    }

    private func problem() -> TesseraError? { #expect(throws: Problems.self) { try plan() }?.all.first }

    @Test(arguments: [
        (#"{"peft_type": "LORA", "r": 1, "lora_alpha": 4}"#, 4.0), (#"{"lora_alpha": 4, "use_rslora": true}"#, 4),
        (#"{"lora_alpha": 4, "alpha_pattern": {"layers.0.q": 6}}"#, 6), (#"{"lora_alpha": 4, "alpha_pattern": {"q": 7}}"#, 7),
        (#"{"lora_alpha": 4, "alpha_pattern": {"model.layers.[1-9].q": 7}}"#, 4),
    ])
    func theScaleIsAlphaOverRank(config: String, scale: Double) throws {
        try writeAdapter(config, Self.q)
        let adapter = try #require(try plan()["model.layers.0.q.weight"]?.sources[0].lowRank)
        #expect(adapter.scale == scale && adapter.rank == 1 && !adapter.isTransposed)
        #expect(try plan()["model.norm.weight"]?.sources[0].lowRank == nil)
    }

    @Test func theRankIsWhatTheFactorsSay() throws {
        try writeAdapter(
            #"{"r": 64, "lora_alpha": 8, "use_rslora": true}"#,
            [
                ("base_model.model.model.layers.0.q.lora_A.weight", TestTensor([Float](repeating: 1, count: 8), shape: [4, 2])),
                ("base_model.model.model.layers.0.q.lora_B.weight", TestTensor([Float](repeating: 1, count: 12), shape: [3, 4])),
            ])
        #expect(try plan()["model.layers.0.q.weight"]?.sources[0].lowRank?.scale == 4)
    }

    @Test func embeddingsAndWholeModules() throws {
        try writeAdapter(
            #"{"lora_alpha": 2, "modules_to_save": ["norm"]}"#,
            [
                ("base_model.model.model.embed_tokens.lora_embedding_A", TestTensor([1, 2, 3, 4], shape: [1, 4])),
                ("base_model.model.model.embed_tokens.lora_embedding_B", TestTensor([5, 6], shape: [2, 1])),
                ("base_model.model.model.norm.weight", TestTensor([9])),
            ])
        let work = try plan()
        #expect(work["model.embed_tokens.weight"]?.sources[0].lowRank?.isTransposed == true)
        #expect(work["model.norm.weight"]?.sources[0].file != work["model.layers.0.q.weight"]?.sources[0].file)
    }

    /// The scales that stay behind would be applied to the new module, too.
    @Test func wholeModulesInPlaceOfScaledNumbers() throws {
        let scaled = [
            ("model.norm.weight", TestTensor(float8: [1], .f8E4M3)), ("model.norm.weight_scale", TestTensor([0.5])),
        ]
        try TestTensor.writeCheckpoint("\(directory.path)/m", Array(Self.tensors.dropLast()) + scaled)
        try writeAdapter(#"{"lora_alpha": 4}"#, Self.q)
        #expect(try plan()["model.norm.weight"]?.outputs.map(\.dtype) == [.f8E4M3])
        try writeAdapter(#"{"lora_alpha": 4}"#, Self.q + [("base_model.model.model.norm.weight", TestTensor([9]))])
        #expect(problem()?.tensor == "model.norm.weight" && problem()?.problem.contains("scaled float8 values") == true)
    }

    @Test(arguments: [
        (#"{"peft_type": "IA3"}"#, "an (IA)³ adapter"), (#"{"lora_alpha": 1, "use_dora": true}"#, "has no magnitudes"),
        (#"{"peft_type": "PROMPT_TUNING"}"#, "a prompt tuning adapter"), (#"{"peft_type": "NEWER"}"#, "a NEWER adapter"),
        (#"{"lora_alpha": null}"#, "'lora_alpha' is null, not a number"), ("[", "of the JSON"),
        (#"{"layer_replication": [[0, 2], [1, 3]]}"#, "stack the layers with 'slices' first"),
        (#"{"alora_invocation_tokens": [1, 2]}"#, "aLoRA"), (#"{"init_lora_weights": "pissa_niter_16"}"#, "PiSSA"),
        (#"{"init_lora_weights": "lora_ga"}"#, "depends on gradients"), (#"{"init_lora_weights": "loftq"}"#, "that LoftQ made"),
        (#"{"init_lora_weights": "corda"}"#, "path_initial_model_for_weight_conversion"),
        (#"{"alpha_pattern": {"(": 2}}"#, "has a '(' without ')'"), (#"{"alpha_pattern": {"q*{": 2, "a**": 2}}"#, "repeats"),
        (#"{"alpha_pattern": {"(?!q)": 2}}"#, "has a group '(?…'"), (#"{"alpha_pattern": {"(q)\\1": 2}}"#, "is not understood"),
        (#"{"alpha_pattern": {"q{9,2}": 2}}"#, "out of order"), (#"{"alpha_pattern": {"q": "much"}}"#, "not a number"),
    ])
    func configsThatCannotBeFolded(config: String, words: String) throws {
        try writeAdapter(config, Self.q)
        #expect(problem()?.description.contains(words) == true)
        #expect(problem()?.code == .badData)
    }

    @Test func adaptersOfOtherModels() throws {
        try writeAdapter(
            #"{"lora_alpha": 1}"#,
            [
                ("base_model.model.other.lora_A.weight", TestTensor([1, 1], shape: [1, 2])),
                ("base_model.model.other.lora_B.weight", TestTensor([1, 1], shape: [2, 1])),
            ])
        #expect(problem()?.problem == "the model has no tensor 'other.weight' for it")
        try writeAdapter(#"{"lora_alpha": 1}"#, [Self.q[0]])
        #expect(problem()?.problem == "has no second factor with the same rank")
        try FileManager.default.removeItem(atPath: "\(directory.path)/l/adapter_model.safetensors")
        #expect(problem()?.code == .inputMissing)
    }

    // MARK: The hub's cache

    @Test func modelsAreFoundInTheHubsCache() throws {
        let hub = "\(directory.path)/hub", repository = "\(hub)/models--org--name"
        for folder in ["refs", "blobs", "snapshots/abc123"] {
            try FileManager.default.createDirectory(atPath: "\(repository)/\(folder)", withIntermediateDirectories: true)
        }
        try directory.write("abc123\n", to: "hub/models--org--name/refs/main")
        try FileManager.default.moveItem(atPath: "\(directory.path)/m/model.safetensors", toPath: "\(repository)/blobs/f00")
        try FileManager.default.createSymbolicLink(
            atPath: "\(repository)/snapshots/abc123/model.safetensors", withDestinationPath: "../../blobs/f00")
        setenv("HF_HUB_CACHE", hub, 1)
        defer { unsetenv("HF_HUB_CACHE") }
        func plan(_ reference: String) throws -> Plan {
            try Planner.plan(
                PlanRequest(
                    recipe: "merge_method: passthrough\nmodels:\n- model: \(reference)\n", recipeName: "recipe.yml",
                    workingDirectory: directory.path))
        }
        for reference in ["org/name", "org/name@main", "org/name@abc"] {
            #expect(try plan(reference).inputs.map(\.reference) == [reference])
            #expect(try plan(reference).files.first?.path.hasSuffix("models--org--name/blobs/f00") == true)
        }
        let card = try plan("org/name").sidecars.first { $0.name == "README.md" }?.contents(from: LocalFiles()) ?? []
        #expect(String(decoding: card, as: UTF8.self).hasPrefix("---\nbase_model:\n- org/name\nlibrary_name: transformers\n"))
        for (reference, words) in [("org/other", "does not contain it"), ("org/name@v2", "has no revision 'v2'")] {
            let problem = #expect(throws: Problems.self) { try plan(reference) }?.all.first
            #expect(
                problem?.code == .inputMissing && problem?.description.contains(words) == true, "\(String(describing: problem))")
        }
        // A link that leads out of the cache is followed only within the roots.
        var request = PlanRequest(
            recipe: "merge_method: passthrough\nmodels:\n- model: org/name\n", recipeName: "recipe.yml",
            workingDirectory: directory.path, roots: try Roots(["\(repository)/snapshots"]))
        request.strict = true
        #expect(#expect(throws: Problems.self) { try Planner.plan(request) }?.all.first?.code == .notAllowed)
    }
}
