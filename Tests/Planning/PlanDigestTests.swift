import Checkpoints
import Core
import Planning
import TensorKernels
import TestSupport
import Testing
import Work

/// The canonical encoding of a plan, held fast by digests. A digest that changes here breaks the promise that a plan means the
/// same to every build of one `numericsVersion`: raise the encoding's version if that is what you want.
@Suite struct PlanDigestTests {
    private static let recipes: [(recipe: String, seed: UInt64, digest: String)] = [
        (
            MemoryFamily.linear, 0,
            "891f0ae5e7de52cf8a601d1d9e5ac302ab9ffacc634b5f19dab89811b44e427f"
        ),
        (
            MemoryFamily.store("merge_method: ties\nparameters: {weight: 0.5, density: [0.2, 0.9]}"), 0,
            "a2e89e969b8998867a01c09d042ddd70e247e7d14e19adad52585c89921a4c36"
        ),
        (
            "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
                + "- sources: [{model: b, layer_range: [1, 2]}]\n", 0,
            "84f9dec50b04d5b05c088923e9f5b2c66e302e9876e8deaa24fd1201ad0df07c"
        ),
        (
            "merge_method: linear\nmodels:\n- model: a+lora\n- model: b\nparameters: {weight: 0.5}\ndtype: bfloat16\n", 0,
            "c73cb18ea66a089666c3e2bdf778afc7eab9785e3354e11ac668bae05b456178"
        ),
        (
            MemoryFamily.linear + "tokenizer_source: union\n", 0,
            "5c244b4d94503ff0fb61c9a0fe60c298dd3c2469ba0a9db837bf065fa834af0b"
        ),
        (
            "merge_method: dare_ties\nbase_model: base\nmodels:\n- model: a\nparameters: {weight: 1, density: 0.5}\n", 7,
            "4ad29137bd73b9d9ee70649094118e91779e2eb9c6774294c767d12e16072771"
        ),
        (
            MemoryFamily.store("quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}"), 0,
            "fe727b4b31e85d484f01f94a3ce4d4a81c550c422055ecbeac4f4c638bbedb79"
        ),
        (
            MemoryFamily.store("quantize: {budget: 8 bits}"), 0,
            "ed1751ff1b6ebee9b2149bd1647cacc367530984ab9d95821063299577dff441"
        ),
        (
            MemoryFamily.store("sparsify: {method: n:m, n: 2, m: 4}"), 0,
            "90d9e9d04856587a3184a11ee06a423e82dbb606acac2f86f1b1174ba2c273f5"
        ),
        (
            MemoryFamily.store("sparsify: {method: dare, density: 0.25}"), 3,
            "d015fad171d3fc4b062fe65401ab6939d1ddd112ea6fa63a69428077911c9747"
        ),
        (
            MemoryFamily.store("sparsify: {method: emr}"), 0,
            "3b4bdf841d042f21ed4a007ecbc90a1664dfb785cf8225869744dda448818685"
        ),
        (
            "merge_method: lora_sum\nbase_model: base\nmodels:\n- model: base+lora\noutput: adapter\n", 0,
            "daa36f94be36e3ec3d3abd56460d3e3b2ab5fe92e0f395b7c9485a378d509bce"
        ),
    ]

    private let family = MemoryFamily()

    init() {
        for (model, text) in [("a", SmallTokenizers.first), ("b", SmallTokenizers.second)] {
            family.write(text, to: "\(model)/tokenizer.json")
            family.write(#"{"vocab_size": 4}"#, to: "\(model)/config.json")
        }
        family.writeAdapter("lora")
        family.write("c", [("t", TestTensor([1, 2], shape: [1, 2]))])
    }

    @Test(arguments: recipes)
    func isTheSameForEver(recipe: String, seed: UInt64, digest: String) throws {
        if !recipe.contains("tokenizer_source") {
            for model in ["a", "b"] { family.files.remove("/models/\(model)/tokenizer.json") }
        }
        let found = try family.plan(recipe, seed: seed).digest.hex
        #expect(found == digest, "\(recipe)")
    }

    /// Every recipe has a plan of its own.
    @Test func digestsDiffer() { #expect(Set(Self.recipes.map(\.digest)).count == Self.recipes.count) }

    /// The encoding of a small plan, written down from the specification.
    @Test func isTheSpecification() throws {
        let plan = try family.plan("merge_method: linear\nmodels:\n- model: c\nparameters: {weight: 0.5, normalize: false}\n")
        func integer(_ value: Int) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        func text(_ text: String) -> [UInt8] { integer(text.utf8.count) + text.utf8 }
        func number(_ value: Double) -> [UInt8] { integer(Int(bitPattern: UInt(value.bitPattern))) }
        let part = plan.inputs[0].parts[0], output = plan.layout.parts[0]
        var bytes: [UInt8] = [1] + integer(numericsVersion)
        bytes += integer(1) + text("c") + integer(1) + text("model.safetensors") + integer(part.size) + part.headerDigest.bytes
        bytes += integer(1) + output.headerDigest.bytes
        bytes += integer(1) + text("t") + integer(2) + integer(1) + integer(2)
        bytes += [0] + text("linear")
        bytes += integer(1) + text("normalize") + [1, 0]
        bytes += integer(1) + integer(1) + text("weight") + [0] + number(0.5)
        bytes += [0, 0] + text("round") + text("F32")
        bytes += integer(1) + [0] + integer(0) + integer(part.size - 8) + text("F32") + integer(2) + integer(1) + integer(2)
        bytes += integer(1) + text("t") + text("F32") + integer(8) + integer(0) + integer(output.header.count)
        bytes += integer(8 << 20)
        #expect(plan.digest == (try .sha256(of: bytes)))
    }

    /// Lengths stand before what they count: text that moves from one field to the next is another plan.
    @Test func neighboursAreToldApart() throws {
        let plans = try ["x": "1y", "x1": "y"].map { first, second in
            family.write(first, [("t", TestTensor([1]))])
            family.write(second, [("t", TestTensor([1]))])
            return try family.plan(
                "merge_method: linear\nparameters: {weight: 1}\nmodels:\n- model: \(first)\n- model: \(second)\n")
        }
        #expect(plans[0].digest != plans[1].digest)
    }
}
