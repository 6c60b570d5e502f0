import Checkpoints
import Core
import Planning
import Synchronization
import TaskVectors
import TestSupport
import Testing
import Work

/// Numbers and names that a file may hold and no model has: they are refused by name, or mean nothing, but never trap.
@Suite struct HostileInputTests {
    private let family = MemoryFamily()

    private func problem(_ recipe: String) -> TesseraError? {
        #expect(throws: (any Error).self) { try family.plan(recipe) }.map {
            ($0 as? Problems)?.all.first ?? TesseraError(wrapping: $0)
        }
    }

    /// No layer has such a number: the tensor belongs to none.
    @Test(arguments: ["9223372036854775807", "9223372036854775808", "99999999999999999999999", "1000000"])
    func numbersOfLayersInNames(number: String) throws {
        for model in ["a", "b"] {
            family.write(model, MemoryFamily.tensors(1) + [("model.layers.\(number).mlp.weight", TestTensor([1]))])
        }
        let gradient = MemoryFamily.linear.replacing("weight: 0.5", with: "weight: [0.2, 0.8]")
        let plan = try family.plan(gradient)
        #expect(plan.stages[0].map(\.label) == ["outside layers", "model.layers.0", "model.layers.1"])
    }

    /// Nothing of such a shape is in the file, so that its size does not give it away.
    @Test(arguments: [[0, 1 << 62], [1 << 62, 0], [0, Int.max, Int.max]])
    func shapesOfEmptyTensors(shape: [Int]) {
        for model in ["a", "b"] { family.write(model, [("model.embed_tokens.weight", TestTensor(.f32, shape, bytes: []))]) }
        let found = problem(MemoryFamily.linear + "tokenizer_source: union\n")
        #expect(found?.code == .badData && found?.tensor == "model.embed_tokens.weight")
        #expect(found?.problem.contains("is too large") == true)
    }

    /// A row of a matrix by a token's number, which a config allows that claims to have as many.
    @Test func rowsOfTokens() {
        for model in ["a", "b"] {
            family.write(SmallTokenizers.first, to: "\(model)/tokenizer.json")
            family.write(#"{"vocab_size": 9223372036854775807}"#, to: "\(model)/config.json")
        }
        let found = problem(
            MemoryFamily.linear
                + "tokenizer:\n  source: union\n  tokens:\n"
                + "    <x>: {source: {kind: model_token, model: a, token_id: 9223372036854775806}}\n"
                + "    <y>: {source: {kind: model_token, model: a, token_id: 9223372036854775805}}\n")
        #expect(found?.code == .badData && found?.problem.contains("has no row for it") == true)
    }

    // MARK: Time

    /// The plan is given up when it has been asked for so often, which takes no tensors.
    private func isGivenUp(afterChecks limit: Int, _ recipe: String) -> Bool {
        let checks = Atomic(0)
        var request = family.request(recipe)
        request.isOverdue = { checks.add(1, ordering: .relaxed).newValue > limit }
        let error = #expect(throws: TesseraError.self) { try Planner.plan(request) }
        return error?.problem == "planning takes too long and was given up"
    }

    private static func factors(_ modules: Range<Int>) -> [(String, TestTensor)] {
        modules.flatMap { module in
            [
                ("base_model.model.model.layers.\(module).mlp.lora_A.weight", TestTensor([1, 10], shape: [1, 2])),
                ("base_model.model.model.layers.\(module).mlp.lora_B.weight", TestTensor([1, 2, 3], shape: [3, 1])),
            ]
        }
    }

    /// Each of 200 modules is looked for in each pattern. The 202 tensors alone are no reason to give up.
    @Test func patternsOfAnAdapter() {
        for model in ["base", "a"] { family.write(model, MemoryFamily.tensors(1, layers: 200)) }
        let patterns = (0..<100).map { "\".*.*m\($0)\": 1" }.joined(separator: ", ")
        family.write("{\"alpha_pattern\": {\(patterns)}}", to: "x/adapter_config.json")
        family.files.write(TestTensor.encode(Self.factors(0..<200)), to: "/models/x/adapter_model.safetensors")
        #expect(isGivenUp(afterChecks: 300, "merge_method: linear\nmodels:\n- model: a+x\nparameters: {weight: 1}\n"))
    }

    /// Each filter is looked for in each name.
    @Test func filtersOfARecipe() {
        let filters = (0..<200).map { "  - {filter: x\($0), value: 1}\n" }.joined()
        let recipe = "merge_method: linear\nmodels:\n- model: a\nparameters:\n  weight:\n\(filters)  - value: 1\n"
        #expect(isGivenUp(afterChecks: 150, recipe))
    }

    /// Files with a key for each of many things are read once, not once for each key.
    @Test(.timeLimit(.minutes(5))) func keysOfConfigs() throws {
        let keys = (0..<100_000).map { "\"m\($0)\": [0]" }.joined(separator: ", ")
        family.write("{\"trainable_token_indices\": {\(keys)}}", to: "x/adapter_config.json")
        family.files.write(TestTensor.encode(Self.factors(0..<1)), to: "/models/x/adapter_model.safetensors")
        family.write("{\"vocab_size\": 4, \"auto_map\": {\(keys)}}", to: "a/config.json")
        _ = try family.plan("merge_method: linear\nmodels:\n- model: a+x\nparameters: {weight: 1}\n")
    }

    // MARK: Stores

    @Test(arguments: ["", "../x", "a/b", ".x", "shared", "a\nb", "<img>", String(repeating: "x", count: 129)])
    func namesOfTasks(name: String) throws {
        try writeStore([2], .dense(.raw(.f32)), tasks: [name])
        let found = problem("merge_method: linear\nbase_model: base\nmodels:\n- model: store#x\nparameters: {weight: 1}\n")
        #expect(found?.problem == "is damaged: has a task with the invalid name '\(name)'")
    }

    @Test func tasksOfOneName() throws {
        try writeStore([2], .dense(.raw(.f32)), tasks: ["x", "x"])
        let found = problem("merge_method: linear\nbase_model: base\nmodels:\n- model: store#x\nparameters: {weight: 1}\n")
        #expect(found?.problem == "is damaged: has two tasks 'x'")
    }

    /// A decoder makes a tree of all of them.
    @Test func valuesThatNobodyWants() throws {
        try writeStore([2], .dense(.raw(.f32)))
        let path = "/models/store/task-vectors.json", index = try family.files.read(path, maxBytes: .max)
        family.files.write(
            Array("{\"junk\": [0".utf8) + Array(repeatElement(",0".utf8, count: 13 << 20).joined()) + Array("],".utf8)
                + index.dropFirst(), to: path)
        let found = problem("merge_method: linear\nbase_model: base\nmodels:\n- model: store#x\nparameters: {weight: 1}\n")
        #expect(found?.problem.hasPrefix("has more than 12582912 values") == true)
    }

    private func writeStore(_ shape: [Int], _ format: StorageFormat, tasks: [String] = ["x"]) throws {
        let digest = try Digest.sha256(of: [1])
        let index = StoreIndex(
            base: .init(model: "base", parts: [], digest: digest),
            tensors: [.init(name: "t", dtype: .f32, shape: shape, base: BaseIdentity(digest: digest, sample: digest))],
            shared: nil,
            tasks: tasks.map { name in
                .init(
                    name: name, model: "a", parts: [], scheme: "tvq", files: ["x.safetensors"], formats: [format], factor: 1,
                    error: 0, energy: 1, predicted: nil, lost: [])
            })
        family.files.write(try index.encoded(), to: "/models/store/task-vectors.json")
        family.files.write(TestTensor.encode([("t.mask", TestTensor([1]))]), to: "/models/store/x.safetensors")
    }

    @Test(arguments: [
        ([1 << 62, 4], StorageFormat.dense(.raw(.f32)), "is too large"), ([4, 1 << 62], .dense(.raw(.f32)), "is too large"),
        ([-1], .mask, "is too large"), ([0, 1 << 62], .dense(.grid(Grid(bits: 3, granularity: .row))), "is too large"),
        ([2, 4], .sparse(kept: 1 << 30, .raw(.f64)), "keeps 1073741824 of 8 elements"),
        ([2, 4], .sparse(kept: 9, .grid(Grid(bits: 3, granularity: .group(64)))), "keeps 9 of 8 elements"),
    ])
    func sizesInAnIndexOfAStore(shape: [Int], format: StorageFormat, words: String) throws {
        try writeStore(shape, format)
        let found = problem("merge_method: linear\nbase_model: base\nmodels:\n- model: store#x\nparameters: {weight: 1}\n")
        #expect(found?.code == .badData && found?.tensor == "t" && found?.file == "/models/store/task-vectors.json")
        #expect(found?.problem.contains(words) == true, "\(found?.problem ?? "nothing")")
    }

    // MARK: Names

    private static let spellings = ["\u{e9}.weight", "e\u{301}.weight"]

    /// `é` as one scalar and as two: Swift takes the two names for the same, files and models do not.
    @Test(arguments: [
        MemoryFamily.linear,
        "merge_method: linear\nparameters: {weight: 0.5}\nmodules:\n  default:\n    models: [{model: a}, {model: b}]\n",
        MemoryFamily.store("quantize: {bits: 4}"),
    ])
    func namesAreBytes(recipe: String) throws {
        for (model, value) in [("base", Float(1)), ("a", 2), ("b", 3)] {
            family.write(
                model, Self.spellings.enumerated().map { ($1, TestTensor([value, Float($0)], shape: [1, 2])) })
        }
        let plan = try family.plan(recipe)
        #expect(plan.tensors.map { Array($0.name.utf8) } == Self.spellings.sortedByBytes().map { Array($0.utf8) })
        #expect(
            Set(plan.tensors.flatMap(\.outputs).map { "\($0.part) \($0.offset)" }).count == plan.tensors.flatMap(\.outputs).count)
        let offsets = plan.tensors.map { tensor -> Int in
            if case .stored(let stored) = tensor.sources[0] { stored.offset } else { -1 }
        }
        #expect(Set(offsets).count == 2)
    }

    @Test func aModelWithTheOtherSpellingLacksTheTensor() throws {
        for (model, name) in zip(["a", "b"], Self.spellings) { family.write(model, [(name, TestTensor([1]))]) }
        #expect(problem(MemoryFamily.linear)?.problem == "missing in a, present in 1 of 2 models")
    }
}
