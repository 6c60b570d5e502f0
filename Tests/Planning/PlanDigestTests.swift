import Core
import Planning
import TestSupport
import Testing
import Work

/// The canonical encoding of a plan, held fast by digests. A digest that changes here breaks the promise that a plan means the
/// same to every build of one `numericsVersion`: raise the encoding's version if that is what you want.
@Suite struct PlanDigestTests {
    private static let recipes: [(recipe: String, seed: UInt64, digest: String)] = [
        (MemoryFamily.linear, 0, "?"),
        (
            "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n- model: b\n"
                + "parameters: {weight: 0.5, density: [0.2, 0.9]}\n",
            0, "?"
        ),
        (
            "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
                + "- sources: [{model: b, layer_range: [1, 2]}]\n",
            0, "?"
        ),
        ("merge_method: linear\nmodels:\n- model: a+lora\n- model: b\nparameters: {weight: 0.5}\ndtype: bfloat16\n", 0, "?"),
        (MemoryFamily.linear + "tokenizer_source: union\n", 0, "?"),
        ("merge_method: dare_ties\nbase_model: base\nmodels:\n- model: a\nparameters: {weight: 1, density: 0.5}\n", 7, "?"),
        (MemoryFamily.store("quantize: {scheme: rtvq, bits: {base: 3, offset: 2}}"), 0, "?"),
        (MemoryFamily.store("quantize: {budget: 8 bits}"), 0, "?"),
        (MemoryFamily.store("sparsify: {method: n:m, n: 2, m: 4}"), 0, "?"),
        (MemoryFamily.store("sparsify: {method: dare, density: 0.25}"), 3, "?"),
        (MemoryFamily.store("sparsify: {method: emr}"), 0, "?"),
    ]

    private let family = MemoryFamily()

    init() {
        for (model, text) in [("a", SmallTokenizers.first), ("b", SmallTokenizers.second)] {
            family.write(text, to: "\(model)/tokenizer.json")
            family.write(#"{"vocab_size": 4}"#, to: "\(model)/config.json")
        }
        family.write(#"{"lora_alpha": 4}"#, to: "lora/adapter_config.json")
        family.files.write(
            TestTensor.encode([
                ("base_model.model.model.layers.0.mlp.lora_A.weight", TestTensor([1, 10], shape: [1, 2])),
                ("base_model.model.model.layers.0.mlp.lora_B.weight", TestTensor([1, 2, 3], shape: [3, 1])),
            ]), to: "/models/lora/adapter_model.safetensors")
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
