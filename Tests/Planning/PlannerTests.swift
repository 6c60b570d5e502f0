import Checkpoints
import Core
import Foundation
import Planning
import TestSupport
import Testing
import Work

@Suite struct PlannerTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func write(_ model: String, _ tensors: [(String, TestTensor)]) throws {
        try TestTensor.writeCheckpoint("\(directory.path)/\(model)", tensors)
    }

    private func plan(_ recipe: String, in folder: String? = nil, configure: (inout PlanRequest) -> Void = { _ in }) throws
        -> Plan
    {
        var request = PlanRequest(recipe: recipe, recipeName: "recipe.yml", workingDirectory: folder ?? directory.path)
        configure(&request)
        return try Planner.plan(request)
    }

    private func problems(_ recipe: String) -> [TesseraError] {
        #expect(throws: Problems.self) { try plan(recipe) }?.all ?? []
    }

    private static let linear = "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n"
    private static let layers =
        (0..<4).flatMap { layer in
            [
                ("layers.\(layer).a", TestTensor([Float](repeating: 1, count: 100))),
                ("layers.\(layer).b", TestTensor([Float](repeating: 2, count: 50))),
            ]
        } + [("embed", TestTensor([Float](repeating: 3, count: 300))), ("norm", TestTensor([1, 1]))]

    private func writeFamily() throws {
        for model in ["a", "b"] { try write(model, Self.layers) }
    }

    // MARK: Work

    @Test func everyTensorIsInOneShardAndAtItsPlace() throws {
        try writeFamily()
        let plan = try plan(Self.linear) { $0.maxPartBytes = 1500 }
        let work = plan.stages.joined().flatMap(\.tensors)
        #expect(work.map(\.name).sorted() == Self.layers.map(\.0).sorted())
        #expect(plan.layout.parts.count > 1)
        for tensor in work {
            let output = try #require(tensor.outputs.first)
            let entry = plan.layout.parts[output.part].tensors.first { $0.name == tensor.name }
            #expect(tensor.outputs.count == 1)
            #expect(entry?.range.lowerBound == output.offset)
            #expect(entry?.byteCount == output.byteCount)
        }
    }

    @Test func shardsAreCutByLayerAndSize() throws {
        try writeFamily()
        let whole = try plan(Self.linear)
        #expect(whole.stages.count == 1)
        #expect(whole.stages[0].map(\.label).sorted() == ["layers.0", "layers.1", "layers.2", "layers.3", "outside layers"])
        let small = try plan(Self.linear) { $0.shardBytes = 450 }
        #expect(small.stages[0].map(\.label).contains("layers.2 (2/2)"))
        #expect(small.stages[0].allSatisfy { $0.byteCount <= 450 || $0.tensors.count == 1 })
    }

    @Test func aShardNamesOnlyTheFilesItReads() throws {
        try writeFamily()
        let plan = try plan(Self.linear)
        for shard in plan.stages[0].indices {
            let work = plan.work(of: plan.stages[0][shard])
            #expect(Set(work.tensors.flatMap { $0.sources.compactMap(\.file) }) == Set(work.files.indices))
            #expect(work.files.allSatisfy { $0.path.hasSuffix("/model.safetensors") && !$0.path.hasPrefix("/") })
            #expect(try JSONDecoder().decode(ShardWork.self, from: JSONEncoder().encode(work)) == work)
        }
    }

    // MARK: Identity

    @Test func theDigestNamesTheResultAndNotThePlace() throws {
        try writeFamily()
        let other = try TemporaryDirectory()
        for model in ["a", "b"] {
            try FileManager.default.copyItem(atPath: "\(directory.path)/\(model)", toPath: "\(other.path)/\(model)")
        }
        let digest = try plan(Self.linear).digest
        #expect(try plan(Self.linear, in: other.path).digest == digest)
        #expect(try plan(Self.linear) { $0.shardBytes = 100 }.digest == digest)
        #expect(try plan("# a comment\n" + Self.linear).digest == digest)
        #expect(try plan(Self.linear) { $0.maxPartBytes = 1500 }.digest != digest)
        #expect(try plan(Self.linear.replacingOccurrences(of: "0.5", with: "0.25")).digest != digest)
        #expect(try plan(Self.linear + "dtype: bfloat16\n").digest != digest)
        #expect(
            try plan(
                Self.linear + "parameters: {weight: 0.5, normalize: false}\n".replacingOccurrences(of: "parameters", with: "x")
            ).digest == digest)
    }

    @Test func aReplacedInputChangesTheDigest() throws {
        try writeFamily()
        let digest = try plan(Self.linear).digest
        try write("b", Self.layers.reversed())
        #expect(try plan(Self.linear).digest != digest)
    }

    // MARK: Types

    @Test(arguments: [
        ("", DType.f32), ("dtype: bfloat16\n", .bf16), ("dtype: bfloat16\nout_dtype: float16\n", .f16),
        ("out_dtype: float64\n", .f64), ("dtype: torch.float8_e4m3fn\n", .f8E4M3), ("out_dtype: float8_e5m2\n", .f8E5M2),
    ])
    func theOutputTypeFollowsTheRecipe(lines: String, dtype: DType) throws {
        try writeFamily()
        let plan = try plan(Self.linear + lines)
        #expect(plan.stages.joined().flatMap(\.tensors).allSatisfy { $0.dtype == dtype })
        let config = try #require(plan.sidecars.first { $0.name == "config.json" }).contents(from: LocalFiles())
        let names: [DType: String] = [
            .f32: "float32", .bf16: "bfloat16", .f16: "float16", .f64: "float64", .f8E4M3: "float8_e4m3fn",
            .f8E5M2: "float8_e5m2",
        ]
        #expect(try JSONText(config).string(["torch_dtype"]) == names[dtype])
    }

    @Test func mixedInputsAreWidened() throws {
        try write("a", [("t", TestTensor([1])), ("ids", TestTensor(.i64, [1], bytes: [UInt8](repeating: 1, count: 8)))])
        try write(
            "b", [("t", TestTensor(bfloat16: [1])), ("ids", TestTensor(.i64, [1], bytes: [UInt8](repeating: 1, count: 8)))])
        let tensors = try plan(Self.linear).stages.joined().flatMap(\.tensors)
        #expect(tensors.first { $0.name == "t" }?.dtype == .f32)
        #expect(tensors.first { $0.name == "ids" }?.method == "identical")
    }

    /// The narrowest type that holds both, in whichever order they come.
    @Test(arguments: [
        ([DType.f8E4M3, .f8E4M3], DType.f8E4M3), ([.f8E4M3, .f8E5M2], .f16), ([.f8E5M2, .bf16], .bf16), ([.f8E4M3, .f16], .f16),
        ([.f8E4M3, .f8E5M2, .bf16], .bf16), ([.f8E4M3, .bf16, .f16], .f32), ([.f8E5M2, .f64], .f64), ([.bf16, .f32], .f32),
    ])
    func theTypeHoldsAllInputs(types: [DType], dtype: DType) throws {
        for order in [types, types.reversed()] {
            for (model, type) in zip(["a", "b", "c"], order) {
                try write(model, [("t", TestTensor(type, [1], bytes: [UInt8](repeating: 0, count: type.bitWidth / 8)))])
            }
            let models = ["a", "b", "c"].prefix(types.count).map { "- model: \($0)\n" }.joined()
            let plan = try plan("merge_method: linear\nparameters: {weight: 1}\nmodels:\n\(models)")
            #expect(plan.stages.joined().flatMap(\.tensors).map(\.dtype) == [dtype], "\(order)")
        }
    }

    // MARK: Float8 with scales

    /// By whichever name the scales are found; the others of the module's tensors are of no account.
    @Test(arguments: ["weight_scale_inv", "weight_scale", "scale_weight", "scale", nil])
    func scaledFloat8IsRefused(scale: String?) throws {
        let weight = TestTensor(float8: [1, 2], .f8E4M3)
        var scaled = [("l.0.weight", weight), ("l.0.bias", TestTensor(bfloat16: [1])), ("l.0.k_scale", TestTensor([1]))]
        for model in ["a", "b"] { try write(model, scaled) }
        #expect(try plan(Self.linear).stages.joined().flatMap(\.tensors).first { $0.name == "l.0.weight" }?.dtype == .f8E4M3)
        if let scale { scaled.append(("l.0.\(scale)", TestTensor([0.5]))) }
        for model in ["a", "b"] { try write(model, scaled) }
        if scale == nil { try directory.write(#"{"quantization_config": {"quant_method": "fp8"}}"#, to: "b/config.json") }
        let found = problems(Self.linear)
        let (model, name) = scale.map { ("a", "'l.0.\($0)'") } ?? ("b", "'quantization_config' in its config.json")
        #expect(found.map(\.tensor) == ["l.0.weight"] && found.first?.code == .badData)
        #expect(found.first?.problem == "has scaled float8 values in \(model), which need \(name)")
        #expect(found.first?.advice?.contains("apply the scales first") == true)
        let stored = problems("quantize: {bits: 4}\nbase_model: b\nmodels:\n- model: a\n")
        #expect(stored.contains { $0.tensor == "l.0.weight" && $0.problem.contains("scaled float8 values in b") })
    }

    /// Copies keep what belongs together; anything that would compute does not.
    @Test func scaledFloat8IsCopied() throws {
        try write(
            "a", [("l.0.weight", TestTensor(float8: [1, 2], .f8E4M3)), ("l.0.weight_scale_inv", TestTensor([0.5]))])
        let copy = "merge_method: passthrough\nmodels:\n- model: a\n"
        #expect(Set(try plan(copy).stages.joined().flatMap(\.tensors).map(\.dtype)) == [.f32, .f8E4M3])
        for line in ["dtype: bfloat16\n", "dtype: float8_e4m3fn\n", "parameters: {scale: 0.5}\n", "out_dtype: float32\n"] {
            #expect(problems(copy + line).map(\.tensor) == ["l.0.weight"], "\(line)")
        }
    }

    /// A head that is tied to a scaled embedding is one too.
    @Test func aTiedHeadIsScaledAsItsEmbedding() throws {
        let embedding = [
            ("embed_tokens.weight", TestTensor(float8: [1], .f8E4M3)), ("embed_tokens.weight_scale", TestTensor([1])),
        ]
        try write("a", embedding)
        try write("b", embedding + [("lm_head.weight", TestTensor(float8: [1], .f8E4M3))])
        #expect(problems(Self.linear).map(\.tensor) == ["embed_tokens.weight", "lm_head.weight"])
    }

    // MARK: Problems

    @Test func reportsAllProblemsAtOnce() throws {
        try write("a", [("shape", TestTensor([1, 2])), ("missing", TestTensor([1])), ("types", TestTensor([1]))])
        try write("b", [("shape", TestTensor([1, 2, 3])), ("types", TestTensor(.i32, [1], bytes: [0, 0, 0, 0]))])
        let found = problems(Self.linear)
        #expect(found.map(\.tensor) == ["missing", "shape", "types"])
        #expect(found[0].problem == "missing in b, present in 1 of 2 models")
        #expect(found[1].problem == "has shape [2] in a and [3] in b")
        #expect(found[2].problem.contains("F32, I32"))
    }

    @Test func manyProblemsAreCut() throws {
        try write("a", (0..<100).map { ("t\($0)", TestTensor([1])) })
        try write("b", [("t0", TestTensor([1]))])
        let found = problems(Self.linear)
        #expect(found.map(\.tensor) == ["t1"])
        #expect(
            found.first?.problem == "missing in b, present in 1 of 2 models (and 98 more tensors, such as 't10', 't11')")
    }

    /// One line, and not one for each tensor.
    @Test func modelsOfOtherArchitecturesAreNamed() throws {
        try write("a", (0..<100).map { ("t\($0)", TestTensor([1])) })
        try write("b", (0..<100).map { ("u\($0)", TestTensor([1])) })
        let found = problems(Self.linear)
        #expect(found.map(\.problem) == ["'b' and 'a' share no tensor: one has 'u0', the other 't0'"])
        #expect(found.first?.line == 4)
        // One tensor in common is enough: then the others are told.
        try write("b", (0..<100).map { ("u\($0)", TestTensor([1])) } + [("t7", TestTensor([1]))])
        #expect(problems(Self.linear).map(\.problem.first) == ["m", "m"])
    }

    @Test(arguments: [
        ("merge_method: tise\nmodels:\n- model: a\n", 1, "did you mean 'ties'?"),
        ("merge_method: ties\nmodels:\n- model: a\n  parameters: {weight: 1}\n", 1, "needs a base"),
        (
            "merge_method: linear\nmodels:\n- model: a\n- model: b\n  parameters: {weight: 1}\n", 3,
            "needs a value for 'weight' for the model 'a'"
        ),
        ("merge_method: linear\nmodels:\n- model: a\n- model: a\nparameters: {weight: 1}\n", 4, "listed twice"),
        ("merge_method: passthrough\nmodels:\n- model: a\n- model: b\n", 1, "takes 1 model; the recipe has 2"),
        (
            "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters:\n  weight: heavy\n", 6,
            "'weight' is 'heavy'; it must be a number"
        ),
        ("merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters:\n  weight: .nan\n", 6, "it must be a number"),
        (
            "merge_method: linear\nmodels:\n- model: a\nparameters:\n  weight: 1\n  normalize: 7\n", 6,
            "'normalize' is 7; it must be true or false"
        ),
        (
            "merge_method: ties\nbase_model: a\nmodels:\n- model: b\nparameters:\n  weight: 1\n  density: 1.5\n", 7,
            "it must be from 0 to 1"
        ),
    ])
    func recipesThatMakeNoSenseNameTheirLine(recipe: String, line: Int, words: String) throws {
        try writeFamily()
        let found = problems(recipe)
        #expect(found.first?.line == line)
        #expect(found.first?.file == "recipe.yml")
        #expect(found.first?.description.contains(words) == true, "\(found)")
    }

    @Test func missingModelsAreAllNamed() {
        let found = problems(Self.linear)
        #expect(found.map(\.code) == [.inputMissing, .inputMissing])
        #expect(found.map(\.line) == [3, 4])
        #expect(zip(found, ["a", "b"]).allSatisfy { $0.problem.hasPrefix("\($1): no such file or directory") })
    }

    @Test func weightsThatCancelAreFoundBeforeTheWork() throws {
        try writeFamily()
        let recipe =
            "merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1}\n- model: b\n  parameters: {weight: -1}\n"
        #expect(problems(recipe).first?.advice?.contains("normalize: false") == true)
    }

    // MARK: Sidecars

    @Test func companionsComeFromTheBase() throws {
        try writeFamily()
        try write("base", Self.layers)
        try directory.write("{}", to: "base/tokenizer.json")
        try directory.write("secret", to: "base/notes.txt")
        let plan = try plan("merge_method: ties\nbase_model: base\nmodels:\n- model: a\nparameters: {weight: 1}\n")
        #expect(plan.sidecars.map(\.name) == ["config.json", "tokenizer.json", "recipe.yml", "README.md"])
    }

    // MARK: Contracts, parameters and seeds

    @Test func contractsSayHowManyModelsAMethodTakes() throws {
        for model in ["a", "b", "c"] { try write(model, Self.layers) }
        func recipe(_ method: String, base: String? = nil, _ models: [String]) -> String {
            "merge_method: \(method)\n" + (base.map { "base_model: \($0)\n" } ?? "") + "models:\n"
                + models.map { "- model: \($0)\n" }.joined() + "parameters: {t: 0.5, weight: 0.5}\n"
        }
        for good in [
            recipe("slerp", base: "a", ["a", "b"]), recipe("slerp", base: "a", ["b"]), recipe("nuslerp", ["a", "b"]),
            recipe("nuslerp", base: "c", ["a", "b"]), recipe("multislerp", base: "c", ["a"]), recipe("karcher", base: "c", ["a"]),
            recipe("model_stock", base: "c", ["a", "b"]), recipe("sce", base: "a", ["a"]),
        ] {
            #expect(throws: Never.self) { try plan(good) }
        }
        #expect(problems(recipe("slerp", ["a", "b"])).contains { $0.advice == "add 'base_model: PATH'" })
        #expect(problems(recipe("slerp", base: "c", ["a", "b"]))[0].problem.contains("takes 1 model besides the base"))
        #expect(problems(recipe("nuslerp", base: "a", ["a", "b"]))[0].problem.contains("takes 2 models besides the base"))
        #expect(problems(recipe("model_stock", base: "c", ["a"]))[0].problem.contains("at least 2 models"))
        // The number of models, and a weight that the method does not have.
        #expect(problems(recipe("nearswap", base: "c", ["a", "b"])).count == 2)
        let work = try plan(recipe("nuslerp", base: "c", ["a", "b"])).stages[0][0].tensors[0]
        #expect(work.base == 2)
        #expect(try plan(recipe("karcher", base: "c", ["a"])).stages[0][0].tensors[0].base == nil)
    }

    @Test func wholeAndPositiveNumbersAreChecked() throws {
        try writeFamily()
        let karcher = "merge_method: karcher\nmodels:\n- model: a\n- model: b\nparameters: {max_iter: 2.5, tol: 0}\n"
        let found = problems(karcher).map(\.problem)
        #expect(found.contains("'max_iter' is 2.5; it must be an integer"))
        #expect(found.contains("'tol' is 0; it must be greater than 0"))
        let della = "merge_method: della\nbase_model: a\nmodels:\n- model: b\nparameters: {weight: 1, density: 0.9}\n"
        #expect(problems(della).allSatisfy { $0.advice?.contains("set 'epsilon' below") == true })
    }

    @Test func aSeedIsPartOfRandomPlansOnly() throws {
        try writeFamily()
        let random = "merge_method: dare_ties\nbase_model: a\nmodels:\n- model: b\nparameters: {weight: 1, density: 0.5}\n"
        let fixed = random.replacingOccurrences(of: "dare_ties", with: "ties")
        func digest(_ recipe: String, seed: UInt64) throws -> Digest { try plan(recipe) { $0.seed = seed }.digest }
        #expect(try digest(random, seed: 0) == digest(random, seed: 0))
        #expect(try digest(random, seed: 0) != digest(random, seed: 1))
        #expect(try digest(fixed, seed: 0) == digest(fixed, seed: 1))
        let keys = try plan(random).stages.joined().flatMap(\.tensors).map(\.randomKey)
        #expect(Set(keys).count == keys.count && !keys.contains(nil))
    }
}
