import Checkpoints
import Core
import Operators
import Planning
import TestSupport
import Testing
import Work

/// Files that a recipe gives its method beside the models: found, checked and reported as models are.
@Suite struct GivenFileTests {
    private let family = MemoryFamily()

    init() {
        for (name, value) in [("fisher-a", Float(1)), ("fisher-b", 2)] { write(name, MemoryFamily.tensors(value)) }
        write("grams-a", Self.grams)
        write("grams-b", Self.grams)
        family.write(
            """
            {"tensors": ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "model.layers.1.mlp.weight",
                         "model.norm.weight"],
             "coefficients": {"a": [1, [0.5, 0.25], 2, 3], "b": [0, [1, 2], 0, 0], "other": [0, 0, 0, 0]}}
            """, to: "coefficients.json")
        let parts: [UInt8] = [0, 1, 0, 1, 0, 1]
        write("partition", [("3x2", TestTensor(.u8, [3, 2], bytes: parts))])
    }

    private static let grams = (0..<2).map {
        ("model.layers.\($0).mlp.weight", TestTensor([2, 1, 1, 2], shape: [2, 2]))
    }

    private func write(_ name: String, _ tensors: [(String, TestTensor)]) {
        family.files.write(TestTensor.encode(tensors), to: "/models/\(name).safetensors")
    }

    private static let fisher =
        "merge_method: fisher\nmodels:\n- model: a\n  parameters: {fisher: fisher-a.safetensors}\n"
        + "- model: b\n  parameters: {fisher: fisher-b.safetensors}\n"
    private static let regmean =
        "merge_method: regmean\nmodels:\n- model: a\n  parameters: {gram: grams-a.safetensors}\n"
        + "- model: b\n  parameters: {gram: grams-b.safetensors}\n"
    private static let atlas = MemoryFamily.store(
        "merge_method: atlas\nparameters: {coefficients: coefficients.json, partition: partition.safetensors}")

    private func problems(_ recipe: String) -> [TesseraError] {
        #expect(throws: Problems.self) { try family.plan(recipe) }?.all ?? []
    }

    // MARK: Found

    @Test func everyTensorGetsWhatBelongsToIt() throws {
        let first = try family.plan(Self.fisher)
        #expect(first.hasMoreStages && first.tensors.allSatisfy { $0.given.count == 2 }, "norms are measured first")
        for tensor in first.tensors {
            #expect(tensor.given.map(\.role.parameter) == ["fisher", "fisher"])
            #expect(tensor.given.map(\.role.input) == [0, 1])
            #expect(tensor.given.map(\.stored.shape) == [tensor.shape, tensor.shape])
            // Behind the files of both models.
            #expect(tensor.given.map(\.stored.file) == [2, 3])
        }
        let work = first.work(of: try #require(first.stages[0].first))
        #expect(Set(work.files.map(\.path)).isSuperset(of: ["models/fisher-a.safetensors", "models/fisher-b.safetensors"]))
    }

    @Test func givenFilesArePinnedAsInputs() throws {
        let plan = try family.plan(Self.fisher)
        #expect(plan.inputs.map(\.reference) == ["a", "b", "fisher-a.safetensors", "fisher-b.safetensors"])
        #expect(plan.givenCount == 2)
        let other = MemoryFamily()
        for name in ["fisher-a", "fisher-b"] {
            other.files.write(
                TestTensor.encode(MemoryFamily.tensors(1) + [("more", TestTensor([1]))]), to: "/models/\(name).safetensors")
        }
        #expect(try other.plan(Self.fisher).digest != plan.digest)
    }

    @Test func aFileOfSeveralPartsAndOneForAllModels() throws {
        let tensors = MemoryFamily.tensors(3)
        for (part, range) in [(1, 0..<2), (2, 2..<tensors.count)] {
            family.files.write(
                TestTensor.encode(Array(tensors[range])), to: "/models/parts/fisher-0000\(part)-of-00002.safetensors")
        }
        let plan = try family.plan("merge_method: fisher\nmodels:\n- model: a\n- model: b\nparameters: {fisher: parts}\n")
        #expect(plan.inputs.map(\.parts.count) == [1, 1, 2] && plan.givenCount == 1)
        #expect(Set(plan.tensors.flatMap { $0.given.map(\.stored.file) }) == [2, 3])
    }

    @Test func matricesWithoutGramMatricesAreAveraged() throws {
        let plan = try family.plan(Self.regmean)
        for tensor in plan.tensors { #expect(tensor.given.count == (tensor.name.contains("mlp") ? 2 : 0), "\(tensor.name)") }
    }

    @Test func coefficientsBecomeValues() throws {
        let plan = try family.plan(Self.atlas)
        let second = try #require(plan.tensors.first { $0.name == "model.layers.0.mlp.weight" })
        #expect(second.values.perInput.map { $0["coefficients"] } == [.numbers([0.5, 0.25]), .numbers([1, 2]), nil])
        #expect(second.given.map(\.role.parameter) == ["partition"])
        let json = try #require(plan.inputs.first { $0.reference == "coefficients.json" })
        #expect(
            json.parts[0].headerDigest == (try Digest.sha256(of: family.files.read("/models/coefficients.json", maxBytes: 999))))
    }

    // MARK: Refused

    @Test func aFileThatIsNotThereIsAMistakeOfItsLine() {
        let found = problems(Self.fisher.replacing("fisher-b.safetensors", with: "nowhere.safetensors"))
        #expect(found.count == 1 && found[0].code == .inputMissing && found[0].line == 6, "\(found)")
        #expect(found[0].problem.contains("nowhere.safetensors: no such file"))
        #expect(
            problems(Self.fisher.replacing("fisher-b.safetensors", with: "3"))[0].problem.contains("must be the path of a file"))
        #expect(
            problems(Self.fisher.replacing("  parameters: {fisher: fisher-b.safetensors}\n", with: ""))[0].problem
                .contains("needs a value for 'fisher'"))
    }

    @Test func aFileOfOtherTensorsIsRefused() throws {
        var tensors = MemoryFamily.tensors(1)
        tensors[0].1 = TestTensor([1, 2], shape: [1, 2])
        tensors[1].1 = TestTensor(.i64, [3, 2], bytes: [UInt8](repeating: 0, count: 48))
        tensors.removeLast()
        write("fisher-b", tensors)
        let found = problems(Self.fisher)
        #expect(found.allSatisfy { $0.file == "fisher-b.safetensors" && $0.code == .badData } && found.count == 3, "\(found)")
        #expect(found[0].tensor == "model.embed_tokens.weight" && found[0].problem == "has shape [1, 2], and must have [4, 2]")
        #expect(found[1].problem == "holds I64 values, and must hold floating-point numbers")
        #expect(found[2].problem == "has no tensor for 'model.norm.weight', which 'fisher' needs")
    }

    @Test func aTruncatedFileIsNamed() throws {
        let bytes = try family.files.read("/models/fisher-b.safetensors", maxBytes: 10_000)
        family.files.write(Array(bytes.dropLast(3)), to: "/models/fisher-b.safetensors")
        #expect(problems(Self.fisher)[0].file?.contains("fisher-b.safetensors") == true)
    }

    @Test func gramMatricesThatDoNotFitAreRefused() throws {
        write("grams-b", [("model.layers.0.mlp.weight", TestTensor([1, 2, 3, 4, 5, 6, 7, 8, 9], shape: [3, 3]))])
        let found = problems(Self.regmean)
        #expect(
            found.map(\.problem) == [
                "has shape [3, 3], and must have [2, 2]", "has no tensor for 'model.layers.1.mlp.weight', which 'gram' needs",
            ])
    }

    @Test(
        arguments: [
            (#"{"tensors": ["t"]}"#, "has no 'tensors' or no 'coefficients'"),
            (#"{"tensors": ["t", "t"], "coefficients": {"a": [1, 2]}}"#, "lists the tensor 't' twice"),
            (#"{"tensors": ["t"], "coefficients": {"a": [1, 2], "b": [1, 2]}}"#, "2 coefficients of"),
            (#"{"tensors": ["t"], "coefficients": {"a": [1], "b": [NaN]}}"#, "expected a finite number"),
            (#"{"tensors": ["t"], "coefficients": {"a": [1], "b": [[]]}}"#, "no coefficient for a tensor"),
            (#"{"tensors": ["t"], "coefficients": {"a": [1], "c": [1]}}"#, "has no coefficients of 'b'"),
            (#"{"tensors": ["t"], "coefficients": {"a": [1], "b": [1]}}"#, "has no coefficients for this tensor"),
            (#"{"tensors": ["t"], "coefficients""#, "byte"),
        ])
    func coefficientsThatDoNotFitAreRefused(json: String, problem: String) {
        family.write(json, to: "coefficients.json")
        let found = problems(Self.atlas)
        #expect(found.contains { $0.problem.contains(problem) }, "\(found)")
    }

    @Test func modelsOfOneNameNeedWholeReferences() {
        for folder in ["x", "y"] { family.write("\(folder)/tune", MemoryFamily.tensors(1)) }
        let models = "merge_method: atlas\nbase_model: base\nmodels:\n- model: x/tune\n- model: y/tune\n"
        let recipe = models + "parameters: {coefficients: coefficients.json}\n"
        let names = MemoryFamily.tensors(1).map { "\"\($0.0)\"" }.joined(separator: ", ")
        func write(_ tasks: String) {
            family.write("{\"tensors\": [\(names)], \"coefficients\": {\(tasks)}}", to: "coefficients.json")
        }
        write("\"tune\": [1, 1, 1, 1]")
        #expect(problems(recipe).contains { $0.problem.contains("has 'tune' for both 'x/tune' and 'y/tune'") })
        write("\"x/tune\": [1, 1, 1, 1], \"y/tune\": [2, 2, 2, 2]")
        #expect(throws: Never.self) { try family.plan(recipe) }
    }
}
