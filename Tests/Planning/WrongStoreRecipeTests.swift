import Core
import Foundation
import Planning
import TestSupport
import Testing

/// Mistakes that people make in recipes of stores. Each is told once, with its line and what to write instead.
@Suite struct WrongStoreRecipeTests {
    typealias Wrong = WrongRecipeTests.Wrong

    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for model in ["base", "a", "b"] {
            try TestTensor.writeCheckpoint(
                "\(directory.path)/\(model)",
                [("mlp.weight", TestTensor([Float](repeating: 1, count: 6), shape: [2, 3])), ("norm.weight", TestTensor([1]))])
        }
        try directory.write("mlp: a lot\n", to: "weights.yml")
        try directory.write("- mlp\n", to: "list.yml")
    }

    private static let models = "base_model: base\nmodels:\n- model: a\n- model: b\n"

    private static func quantize(_ text: String) -> String { "quantize: {\(text)}\n" + models }
    private static func sparsify(_ text: String) -> String { "sparsify: {\(text)}\n" + models }
    /// One key a line, the first of which is line 2.
    private static func lines(_ key: String, _ lines: String...) -> String {
        "\(key):\n" + lines.map { "  \($0)\n" }.joined() + models
    }

    static let recipes: [Wrong] = [
        Wrong(
            "two kinds", "quantize: {bits: 3}\nsparsify: {method: emr}\n" + models, 2, "both 'quantize' and 'sparsify'",
            "keep one"),
        Wrong(
            "a store and a merge", quantize("bits: 3") + "merge_method: linear\n", 6, "'quantize' and 'merge_method'",
            "make the store first"),
        Wrong(
            "masks and a merge", sparsify("method: emr") + "merge_method: ties\n", 6, "'sparsify' and 'merge_method'",
            "./store#TASK"),
        Wrong("a number", "quantize: 3\n" + models, 1, "'quantize' must be a map", "{scheme: tvq, bits: 3}"),
        Wrong("a name", "sparsify: magnitude\n" + models, 1, "'sparsify' must be a map", "{method: magnitude, density: 0.2}"),
        Wrong("no base", "quantize: {bits: 3}\nmodels:\n- model: a\n", 1, "has no 'base_model'", "'base_model: PATH'"),
        Wrong("no models", "quantize: {bits: 3}\nbase_model: base\n", 1, "has no models", "'- model: PATH'"),
        Wrong("an empty list", "quantize: {bits: 3}\nbase_model: base\nmodels: []\n", 3, "has no models", "'- model: PATH'"),
        Wrong(
            "an unknown key", quantize("bits: 3") + "dtype: float16\n", 6,
            "unknown or unused key 'dtype' in a recipe with 'quantize'", "the known keys are",
            strict: true),
        Wrong(
            "a slip", quantize("bits: 3") + "extends: store\n", 6, "unknown or unused key 'extends' in a recipe with 'quantize'",
            "'extend'", strict: true),
    ]

    static let tasks: [Wrong] = [
        Wrong(
            "a model as text", "quantize: {bits: 3}\nbase_model: base\nmodels:\n- a\n", 4, "a model must be a map",
            "'- model: PATH'"),
        Wrong(
            "parameters", quantize("bits: 3") + "  parameters: {weight: 1}\n", 6, "unknown or unused key 'parameters' in a model",
            "model",
            strict: true),
        Wrong(
            "a name that is a path", quantize("bits: 3") + "  name: x/y\n", 6, "the task name 'x/y' is not a valid file name",
            "'name: TASK'"),
        Wrong(
            "a hidden name", quantize("bits: 3") + "  name: .x\n", 6, "the task name '.x' is not a valid file name",
            "letters, digits"),
        Wrong(
            "the shared vector's name", quantize("bits: 3") + "  name: shared\n", 6,
            "the task name 'shared' is not a valid file name", "'name: TASK'"),
        Wrong("a model twice", quantize("bits: 3") + "- model: ./a\n", 6, "the task 'a' is listed twice", "'name: TASK'"),
        Wrong("a name twice", quantize("bits: 3") + "  name: a\n", 5, "the task 'a' is listed twice", "'name: TASK'"),
        Wrong("no such model", quantize("bits: 3") + "- model: c\n", 6, "c: no such file", "correct the path"),
        Wrong(
            "no such base", quantize("bits: 3").replacing("base_model: base", with: "base_model: bsae"), 2, "bsae: no such file",
            "correct the path"),
    ]

    static let quantizing: [Wrong] = [
        Wrong("an unknown scheme", lines("quantize", "bits: 3", "scheme: tqv"), 3, "unknown scheme 'tqv'", "'tvq'"),
        Wrong(
            "bits of signs", lines("quantize", "scheme: bitdelta", "bits: 1"), 3, "'bits' does not apply to 'bitdelta'",
            "'scheme: tvq'"),
        Wrong(
            "a budget of signs", lines("quantize", "scheme: axis_sign", "budget: 1 bits"), 3,
            "'budget' does not apply to 'axis_sign'", "'scheme: tvq'"),
        Wrong(
            "masks of nobody", lines("quantize", "budget: 1 bits", "masks: shared"), 3, "'masks' must be 'own' or 'common'",
            "write 'common'"),
        Wrong(
            "masks of offsets", lines("quantize", "scheme: rtvq", "budget: 3 bits", "masks: common"), 4,
            "'masks' does not apply to 'rtvq'", "remove it"),
        Wrong(
            "masks of what is not thinned", lines("quantize", "bits: 3", "masks: common"), 3,
            "'masks' applies only with a budget",
            "remove 'masks'"),
        Wrong("no bits", quantize("scheme: tvq"), 1, "neither 'bits' nor 'budget'", "'bits: 4'"),
        Wrong("no bits of residuals", quantize("scheme: rtvq"), 1, "neither 'bits' nor 'budget'", "{base: 3, offset: 2}"),
        Wrong(
            "bits of nothing", lines("quantize", "scheme: tvq", "bits: 0"), 3, "'bits' is 0; it must be an integer from 1 to 8",
            "'bits: 3'"),
        Wrong("too many bits", lines("quantize", "bits: 9"), 2, "'bits' is 9; it must be an integer from 1 to 8", "'bits: 3'"),
        Wrong("half a bit", lines("quantize", "bits: 2.5"), 2, "'bits' is 2.5; it must be an integer from 1 to 8", "'bits: 3'"),
        Wrong(
            "one number for residuals", lines("quantize", "scheme: rtvq", "bits: 3"), 3, "bits for the base and for the offsets",
            "{base: 3, offset: 2}"),
        Wrong(
            "bits of the base only", lines("quantize", "scheme: rtvq", "bits: {base: 3}"), 3, "bits for the base and",
            "{base: 3, offset: 2}"),
        Wrong(
            "no bits for the base", lines("quantize", "scheme: rtvq", "bits:", "  base: 0", "  offset: 2"), 4,
            "'base' is 0; it must be an integer from 1 to 8", "'base: 3'"),
        Wrong(
            "words for offsets", lines("quantize", "scheme: rtvq", "bits:", "  base: 3", "  offset: two"), 5,
            "'offset' is 'two'; it must be an integer from 1 to 8", "'offset: 3'"),
        Wrong(
            "more bits than two", lines("quantize", "scheme: rtvq", "bits: {base: 3, offset: 2, ofset: 1}"), 3,
            "unknown or unused key 'ofset' in 'bits'", "'offset'", strict: true),
        Wrong(
            "a group of 100", lines("quantize", "bits: 3", "group: 100"), 3, "'group' must say which elements share a scale",
            "a power of two from 16 to 8192"),
        Wrong(
            "a group of 8", lines("quantize", "bits: 3", "group: 8"), 3, "'group' must say which elements share a scale",
            "from 16 to 8192"),
        Wrong(
            "a group by column", lines("quantize", "bits: 3", "group: column"), 3,
            "'group' must say which elements share a scale", "'row'"),
        Wrong(
            "a flag that is none", lines("quantize", "scheme: rtvq", "bits: {base: 3, offset: 2}", "error_correction: some"), 4,
            "'error_correction' must be true or false", "'error_correction: true'"),
        Wrong(
            "a key of another kind", lines("quantize", "bits: 3", "density: 0.2"), 3,
            "unknown or unused key 'density' in 'quantize'",
            "the known keys are", strict: true),
        Wrong(
            "a rank in words", lines("quantize", "bits: 3", "min_rank: two"), 3, "'min_rank' must be a number of dimensions",
            "such as 2"),
        Wrong(
            "a map of names", lines("quantize", "bits: 3", "include: {mlp: true}"), 3,
            "'include' must be a list of parts of tensor names",
            "'include: [mlp, attn]'"),
        Wrong(
            "a list of maps", lines("quantize", "bits: 3", "exclude: [{mlp: 1}]"), 3,
            "'exclude' must be a list of parts of tensor names",
            "'exclude: [mlp, attn]'"),
        Wrong(
            "a name that fits nothing", lines("quantize", "bits: 3", "exclude: [mlp, attn]"), 3,
            "no tensor name contains 'attn'", "tessera inspect"),
        Wrong(
            "a rest of integers", lines("quantize", "bits: 3", "rest: int8"), 3,
            "'rest' is 'int8'; it must be a floating-point type",
            "one of bfloat16"),
        Wrong(
            "a rest that is too wide", lines("quantize", "bits: 3", "rest: float64"), 3,
            "'rest' is 'float64'; it must be a floating-point type",
            "float"),
    ]

    static let budgets: [Wrong] = [
        Wrong(
            "a budget and bits", lines("quantize", "budget: 2 bits", "bits: 3"), 3, "both 'budget' and 'bits'", "remove 'bits'"
        ),
        Wrong(
            "a budget and a group", lines("quantize", "budget: 2 bits", "group: 64"), 3, "both 'budget' and 'group'",
            "remove 'group'"),
        Wrong(
            "a budget in words", lines("quantize", "budget: small"), 2,
            "'budget' must be a number of bits per parameter, or a share of the",
            "'budget: 2.25 bits' or 'budget: 8%'"),
        Wrong(
            "a budget of nothing", lines("quantize", "budget: 0%"), 2,
            "'budget' must be a number of bits per parameter, or a share of the", "'budget: 8%'"),
        Wrong(
            "more than everything", lines("quantize", "budget: 120%"), 2,
            "'budget' must be a number of bits per parameter, or a share of the", "'budget: 8%'"),
        Wrong(
            "a budget of 40 bits", lines("quantize", "budget: 40 bits"), 2,
            "'budget' must be a number of bits per parameter, or a share of the", "2.25 bits"),
        Wrong(
            "a budget in bytes", lines("quantize", "budget: 3 GB"), 2,
            "'budget' must be a number of bits per parameter, or a share of the", "2.25 bits"),
        Wrong(
            "a sensitivity without budget", lines("quantize", "bits: 3", "sensitivity: relative"), 3,
            "'sensitivity' applies only with a budget", "'budget: 2.25 bits'"),
        Wrong(
            "a floor without budget", lines("quantize", "bits: 3", "floor: 1"), 3, "'floor' applies only with a budget",
            "remove 'floor'"),
        Wrong(
            "a floor of 9", lines("quantize", "budget: 3 bits", "floor: 9"), 3, "'floor' is 9; it must be from 0 to 8",
            "such as 1.5"),
        Wrong(
            "a floor in words", lines("quantize", "budget: 3 bits", "floor: low"), 3, "'floor' is 'low'; it must be from 0 to 8",
            "such as 1.5"
        ),
    ]

    static let sparsifying: [Wrong] = [
        Wrong("no method", sparsify("density: 0.2"), 1, "has no 'method'", "one of magnitude"),
        Wrong(
            "an unknown method", lines("sparsify", "density: 0.2", "method: magnitud"), 3, "unknown method 'magnitud'",
            "'magnitude'"),
        Wrong(
            "no density", lines("sparsify", "scope: model", "method: magnitude"), 3, "has no 'density'", "'density: 0.2'"),
        Wrong(
            "a density of 0", lines("sparsify", "method: dare", "density: 0"), 3,
            "'density' is 0; it must be above 0 and at most 1", "the share of entries"),
        Wrong(
            "a density of 1.5", lines("sparsify", "method: dare", "density: 1.5"), 3,
            "'density' is 1.5; it must be above 0 and at most 1", "the share of entries"),
        Wrong(
            "an unknown scope", lines("sparsify", "method: magnitude", "density: 0.2", "scope: row"), 4,
            "'scope' must be 'tensor' or 'model'",
            "what the density applies to"),
        Wrong(
            "a scope for dare", lines("sparsify", "method: dare", "density: 0.2", "scope: model"), 4,
            "unknown or unused key 'scope' in 'sparsify' by dare",
            "the known keys are", strict: true),
        Wrong(
            "no block", lines("sparsify", "method: cabs"), 2, "'n' and 'm' must say how many entries of each block are kept",
            "'n: 64' and 'm: 256'"),
        Wrong(
            "a block of 12", lines("sparsify", "method: cabs", "n: 4", "m: 12"), 4,
            "'n' and 'm' must say how many entries of each block are kept",
            "power of two up to 1024"),
        Wrong(
            "a block of 2048", lines("sparsify", "method: cabs", "n: 4", "m: 2048"), 4,
            "'n' and 'm' must say how many entries of each block are kept", "up to 1024"),
        Wrong(
            "more than there are", lines("sparsify", "method: 'n:m'", "n: 5", "m: 4"), 4,
            "'n' and 'm' must say how many entries of each block are kept",
            "n at most m"),
        Wrong(
            "none of them", lines("sparsify", "method: 'n:m'", "n: 0", "m: 4"), 4,
            "'n' and 'm' must say how many entries of each block are kept", "'n: 64'"),
        Wrong(
            "no m", lines("sparsify", "method: 'n:m'", "n: 1"), 3, "'n' and 'm' must say how many entries of each block are kept",
            "'m: 256'"),
        Wrong(
            "an unknown tail", lines("sparsify", "method: cabs", "n: 1", "m: 4", "tail: keep"), 5,
            "'tail' must be 'drop' or 'prorate'",
            "the last entries"),
        Wrong(
            "too few lambdas", lines("sparsify", "method: tall", "mask_lambda: [0.4]"), 3,
            "'mask_lambda' must be a number, or a list of 2, one per model",
            "'mask_lambda: 0.4'"),
        Wrong(
            "a negative lambda", lines("sparsify", "method: tall", "mask_lambda: -1"), 3,
            "'mask_lambda' must be a number, or a list of 2, one per model", "0.4"),
        Wrong(
            "a lambda in words", lines("sparsify", "method: tall", "mask_lambda: [0.4, low]"), 3,
            "'mask_lambda' must be a number, or a list of 2, one per model",
            "0.4"),
        Wrong(
            "an unknown factor", lines("sparsify", "method: emr", "rescale: none"), 3, "'rescale' must be 'means' or 'sums'",
            "'means'"),
        Wrong(
            "values of integers", lines("sparsify", "method: emr", "values: int4"), 3,
            "'values' is 'int4'; it must be a floating-point type",
            "one of bfloat16"),
        Wrong(
            "values of eight bits", lines("sparsify", "method: emr", "values: float8_e5m2"), 3,
            "'values' is 'float8_e5m2'; it must be a floating-point type",
            "one of bfloat16"),
        Wrong(
            "values without bits", lines("sparsify", "method: emr", "values: {group: 64}"), 3, "'values' has no 'bits'",
            "{bits: 4, group: 128}"),
        Wrong(
            "values of 9 bits", lines("sparsify", "method: emr", "values: {bits: 9}"), 3,
            "'bits' is 9; it must be an integer from 1 to 8",
            "'bits: 3'"),
        Wrong(
            "values in odd groups", lines("sparsify", "method: emr", "values: {bits: 4, group: 3}"), 3,
            "'group' must say which elements share a scale",
            "power of two"),
        Wrong(
            "values of a scheme", lines("sparsify", "method: emr", "values: {bits: 4, scheme: tvq}"), 3,
            "unknown or unused key 'scheme' in 'values'",
            "bits", strict: true),
    ]

    private func problems(_ wrong: Wrong) throws -> [TesseraError] {
        var request = PlanRequest(recipe: wrong.text, recipeName: "recipe.yml", workingDirectory: directory.path)
        request.strict = wrong.strict
        let told = #expect(throws: (any Error).self) { try Planner.plan(request) }
        return (told as? Problems)?.all ?? (told as? TesseraError).map { [$0] } ?? []
    }

    @Test func thereAreEnough() {
        let all = [Self.recipes, Self.tasks, Self.quantizing, Self.budgets, Self.sparsifying].joined()
        #expect(Set(all.map(\.testDescription)).count == all.count && all.count >= 70)
    }

    @Test(arguments: [recipes, tasks, quantizing, budgets, sparsifying].flatMap(\.self))
    func isToldOnce(_ wrong: Wrong) throws {
        let problems = try problems(wrong)
        #expect(problems.count == 1, "\(problems.map(\.description))")
        let problem = try #require(problems.first)
        #expect(problem.file == "recipe.yml" && problem.line == wrong.line, "\(problem)")
        #expect(problem.problem.contains(wrong.words), "\(problem)")
        #expect(problem.advice?.contains(wrong.advice) == true, "\(problem)")
    }

    /// A file of weights is named itself.
    @Test(arguments: [
        ("weights.yml", "a weight must be"), ("list.yml", "is not a map from tensor names"), ("none.yml", "no such file"),
    ])
    func filesOfWeights(file: String, words: String) throws {
        let problems = try problems(
            Wrong("", Self.lines("quantize", "budget: 3 bits", "sensitivity: \(file)"), nil, words, ""))
        #expect(problems.count == 1 && problems[0].problem.contains(words), "\(problems)")
        #expect(problems[0].file?.hasSuffix(file) == true, "\(problems)")
    }

    /// What may be written in more ways than one.
    @Test(arguments: [
        quantize("scheme: bitdelta"), quantize("scheme: axis_sign, include: mlp, rest: bfloat16"),
        quantize("bits: 8, group: 8192, include: mlp, rest: bfloat16, min_rank: 0"), quantize("scheme: tvq, bits: 1, group: row"),
        quantize("budget: 2.25"), quantize("budget: ' 2.25  bits '"), quantize("budget: '25 %'"),
        quantize("budget: 32 bits, floor: 0"),
        sparsify("method: n:m, n: 1, m: 2"), sparsify("method: tall, mask_lambda: [0.4, 0]"),
        sparsify("method: dare, density: 1, values: float16"), sparsify("method: emr, rescale: sums, values: {bits: 4}"),
        quantize("bits: 3") + "- {model: a, name: Other_1.x}\n",
    ])
    func isUnderstood(text: String) throws {
        var request = PlanRequest(recipe: text, recipeName: "recipe.yml", workingDirectory: directory.path)
        request.strict = true
        _ = try Planner.plan(request)
    }
}
