import Core
import Foundation
import Planning
import TestSupport
import Testing

/// Mistakes that people make in recipes. Each is told once, with its line and what to write instead, from the headers of the
/// models alone.
@Suite struct WrongRecipeTests {
    private let directory: TemporaryDirectory

    /// `base`, `a` and `b` are alike; `other` has another tokenizer; `vl` has two modules; `shallow` has fewer layers.
    init() throws {
        directory = try TemporaryDirectory()
        for model in ["base", "a", "b"] { try write(model, layers: 4) }
        try write("shallow", layers: 2)
        try write("vl", layers: 2, extra: [("visual.blocks.0.attn.weight", TestTensor([1]))])
        for (model, text) in [("first", SmallTokenizers.first), ("second", SmallTokenizers.second)] {
            try write(model, layers: 1, rows: 8)
            try directory.write(text, to: "\(model)/tokenizer.json")
            try directory.write(#"{"vocab_size": 8}"#, to: "\(model)/config.json")
        }
        try FileManager.default.createDirectory(atPath: "\(directory.path)/empty", withIntermediateDirectories: true)
    }

    private func write(_ model: String, layers: Int, rows: Int = 2, extra: [(String, TestTensor)] = []) throws {
        let tensors = (0..<layers).flatMap { layer in
            ["self_attn.q_proj", "mlp.up_proj"].map { ("model.layers.\(layer).\($0).weight", TestTensor([1, 2, 3])) }
        }
        let embedding = TestTensor([Float](repeating: 1, count: rows), shape: [rows, 1])
        try TestTensor.writeCheckpoint(
            "\(directory.path)/\(model)",
            tensors + extra + [("model.embed_tokens.weight", embedding), ("model.norm.weight", TestTensor([1]))])
    }

    struct Wrong: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let text: String
        let line: Int?
        let words: String
        let advice: String
        var strict = false

        init(_ name: String, _ text: String, _ line: Int?, _ words: String, _ advice: String, strict: Bool = false) {
            (testDescription, self.text, self.line, self.words, self.advice) = (name, text, line, words, advice)
            self.strict = strict
        }
    }

    private static let two = "merge_method: linear\nmodels:\n- model: a\n- model: b\n"
    private static let linear = two + "parameters: {weight: 0.5}\n"
    private static let ties = "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n- model: b\n"
    private static let slerp = "merge_method: slerp\nbase_model: a\nmodels:\n- model: a\n- model: b\n"
    private static let pass = "merge_method: passthrough\n"
    private static let tokens = "merge_method: linear\nmodels:\n- model: first\n- model: second\nparameters: {weight: 1}\n"

    static let yaml: [Wrong] = [
        Wrong("nothing", "", nil, "is empty", "merge_method: linear"),
        Wrong("text", "merge these models please\n", 1, "is plain text, not a recipe", "'key: value' lines"),
        Wrong("a list", "- model: a\n- model: b\n", 1, "is a list, not a recipe", "'key: value' lines"),
        Wrong(
            "a tab", "merge_method: linear\nmodels:\n\t- model: a\n", 3,
            "is not valid YAML: found character that cannot start any token", "spaces, not tabs"),
        Wrong(
            "an open bracket", "merge_method: linear\nmodels: [{model: a}\ndtype: float32\n", 3,
            "is not valid YAML: did not find expected ',' or ']'", "unclosed bracket"),
        Wrong(
            "two documents", linear + "---\n" + linear, 7,
            "contains 2 YAML documents, and recipes of several steps are not supported yet", "its own file"),
        Wrong(
            "a mixture of experts", "base_model: a\ngate_mode: hidden\nexperts:\n- source_model: b\n", 4,
            "'experts' asks for a mixture of experts made of dense models (mergekit-moe), which is not supported yet",
            "'merge_method'"),
        Wrong("a search", "genome:\n  models: [a, b]\n", 2, "'genome' asks for a search for a recipe", "'merge_method'"),
    ]

    static let keys: [Wrong] = [
        Wrong("no method", "models:\n- model: a\n", 1, "no 'merge_method'", "'merge_method: linear'"),
        Wrong("an unknown method", "merge_method: tise\nmodels:\n- model: a\n", 1, "unknown merge method 'tise'", "'ties'"),
        Wrong("no such method", "merge_method: average\nmodels:\n- model: a\n", 1, "unknown merge method", "one of linear"),
        Wrong(
            "a list of methods", "merge_method: [linear]\nmodels:\n- model: a\n", 1,
            "'merge_method' must be the name of one method", "linear'"),
        Wrong("models and slices", linear + "slices:\n- sources: [{model: a, layer_range: [0, 1]}]\n", 7, "both", "keep one"),
        Wrong("no models", "merge_method: linear\ndtype: float32\n", 1, "has no models", "'- model: PATH'"),
        Wrong("no models in the list", "merge_method: linear\nmodels: []\n", 2, "has no models", "'- model: PATH'"),
        Wrong("models as a map", "merge_method: linear\nmodels:\n  a: 1\n", 3, "'models' must be a list", "'- model: PATH'"),
        Wrong("a model as text", pass + "models:\n- a\n", 3, "a model must be a map", "'- model: a'"),
        Wrong("a model without path", pass + "models:\n- parameters: {scale: 1}\n", 3, "no path", "'- model: PATH'"),
        Wrong(
            "a reference with two adapters", pass + "models:\n- model: a+b+c\n", 3, "'a+b+c' is not a model reference",
            "PATH+ADAPTER"),
        Wrong(
            "an unknown dtype", linear + "dtype: bfloat61\n", 6, "'dtype' is 'bfloat61'; it must be a floating-point type",
            "'bfloat16'"),
        Wrong(
            "a dtype of integers", linear + "out_dtype: int64\n", 6, "'out_dtype' is 'int64'; it must be a floating-point type",
            "one of bfloat16"),
        Wrong(
            "an unknown key", linear + "out_dtpye: float16\n", 6, "unknown or unused key 'out_dtpye' in a recipe", "'out_dtype'",
            strict: true),
        Wrong(
            "a parameter at the top", linear + "density: 0.5\n", 6, "unknown or unused key 'density' in a recipe",
            "'parameters:'", strict: true),
        Wrong("a base without path", linear + "base_model: {revision: main}\n", 6, "no 'path'", "{path: PATH"),
        Wrong(
            "weight beside the model", pass + "models:\n- model: a\n  scale: 1\n", 4, "'scale' is not under 'parameters:'",
            "under 'parameters:'"),
    ]

    static let models: [Wrong] = [
        Wrong(
            "a model that is not there", "merge_method: linear\nmodels:\n- model: a\n- model: c\nparameters: {weight: 1}\n", 4,
            "c: no such file", "correct the path"),
        Wrong(
            "a directory without a model", pass + "models:\n- model: empty\n", 3, "contains no safetensors checkpoint",
            "name a directory with model.safetensors"),
        Wrong(
            "a revision of a directory", pass + "models:\n- model: a@main\n", 3,
            "a: 'a@main' names a revision, but a local directory has no revisions", "remove '@main'"),
        Wrong("an adapter that is none", pass + "models:\n- model: a+empty\n", 3, "adapter_config.json", "an adapter"),
        Wrong(
            "a base that is not there", ties.replacing("base\n", with: "bsae\n") + "parameters: {weight: 1}\n", 2,
            "bsae: no such file", "correct the path"),
        Wrong(
            "no base", "merge_method: ties\nmodels:\n- model: a\nparameters: {weight: 1}\n", 1, "needs a base",
            "'base_model: PATH'"),
        Wrong(
            "a base for passthrough", pass + "base_model: base\nmodels:\n- model: a\n", 1, "takes 1 model",
            "remove 'base_model'"),
        Wrong(
            "a model twice", "merge_method: linear\nmodels:\n- model: a\n- model: a\nparameters: {weight: 1}\n", 4,
            "listed twice",
            "list it once"),
        Wrong(
            "three for slerp", slerp + "- model: base\nparameters: {t: 0.5}\n", 1, "takes 1 model besides the base", "remove 1"
        ),
        Wrong(
            "one for model_stock", "merge_method: model_stock\nbase_model: base\nmodels:\n- model: a\n", 1, "at least 2",
            "add 1"),
        Wrong("models of two depths", linear.replacing("model: b", with: "model: shallow"), 4, "has 2 layers", "'slices'"),
        Wrong(
            "models of two vocabularies", tokens, 1, "the vocabulary of 'second' has different tokens from 'first' at 5 ids (0",
            "'tokenizer_source: union'"),
    ]

    static let slices: [Wrong] = [
        Wrong(
            "a range past the end", pass + "slices:\n- sources: [{model: a, layer_range: [2, 5]}]\n", 3, "has 4 layers",
            "at most 4"),
        Wrong(
            "a range backwards", pass + "slices:\n- sources: [{model: a, layer_range: [3, 1]}]\n", 3,
            "'layer_range' is not a valid range of layers", "[FIRST, END]"),
        Wrong(
            "a range of one number", pass + "slices:\n- sources: [{model: a, layer_range: 3}]\n", 3, "two numbers", "[FIRST, END]"
        ),
        Wrong("no range", pass + "slices:\n- sources:\n  - model: a\n", 4, "no 'layer_range'", "[FIRST, END]"),
        Wrong(
            "sources of two lengths",
            slerpSlices("- {model: a, layer_range: [0, 2]}", "- {model: b, layer_range: [0, 3]}"), 6, "2 and 3 layers",
            "same number"),
        Wrong(
            "the base is not in the slice",
            slerpSlices("- {model: b, layer_range: [0, 2]}", "- {model: base, layer_range: [0, 2]}"), 4, "needs a base",
            "every slice"),
        Wrong("no sources", pass + "slices:\n- sources: []\n", 3, "no sources", "'sources:'"),
        Wrong("a slice as text", pass + "slices:\n- a\n", 3, "a slice must be a map", "'- sources: [...]'"),
        Wrong(
            "an unknown module", pass + "modules:\n  text_decodr:\n    models: [{model: vl}]\n", 3, "no module 'text_decodr'",
            "'text_decoder'"),
        Wrong(
            "a module that is not listed", pass + "modules:\n  text_decoder:\n    models: [{model: vl}]\n", 3,
            "'vision_tower' is not listed", "list all modules"),
        Wrong(
            "modules as a list", pass + "modules:\n- a\n", 3, "'modules' must map module names to their models or slices",
            "'NAME:'"),
        Wrong(
            "slices of two stacks", pass + "slices:\n- sources: [{model: vl, layer_range: [0, 1]}]\n", 3, "several stacks",
            "'modules:'"),
    ]

    private static func slerpSlices(_ first: String, _ second: String) -> String {
        "merge_method: slerp\nbase_model: a\nslices:\n- sources:\n  \(first)\n  \(second)\nparameters: {t: 0.5}\n"
    }

    static let parameters: [Wrong] = [
        Wrong("no weight at all", two, 1, "the method 'linear' needs a value for 'weight' for every model", "'weight: VALUE'"),
        Wrong("no weight at one", two + "  parameters: {weight: 1}\n", 3, "for the model 'a'", "'weight: VALUE'"),
        Wrong(
            "no weight for the base", "merge_method: linear\nbase_model: base\nmodels:\n- {model: a, parameters: {weight: 1}}\n",
            2,
            "for the model 'base'", "'weight: VALUE'"),
        Wrong("weight without value", two + "parameters:\n  weight:\n", 6, "has no value", "write a number"),
        Wrong("a slip in a name", two + "parameters: {weigth: 1}\n", 5, "no parameter 'weigth'", "'weight'"),
        Wrong("a slip, strictly", two + "parameters: {weigth: 1}\n", 5, "no parameter 'weigth'", "'weight'", strict: true),
        Wrong(
            "a parameter of another method", linear.replacing("0.5}", with: "0.5, lambda: 2}"), 5, "no parameter 'lambda'",
            "it has weight, normalize", strict: true),
        Wrong("no t", slerp, 1, "the method 'slerp' needs a value for 't'", "'t: VALUE'"),
        Wrong(
            "t at a model", slerp + "  parameters: {t: 0.5}\n", 6,
            "the method 'slerp' needs a value for 't' that applies to all models, not", "move it"),
        Wrong(
            "t at a model, strictly", slerp + "  parameters: {t: 0.5}\nparameters: {t: 0.5}\n", 6,
            "'t' is shared by all models; setting it for one model has no effect",
            "move it", strict: true),
        Wrong(
            "density 1.5", ties + "parameters: {weight: 1, density: 1.5}\n", 6, "'density' is 1.5; it must be from 0 to 1",
            "from 0 to 1"),
        Wrong(
            "a gradient past 1", ties + "parameters:\n  weight: 1\n  density: [0.5, 1.5]\n", 8,
            "'density' is 1.5; it must be from 0 to 1",
            "from 0 to 1"),
        Wrong(
            "a gradient of words", two + "parameters: {weight: [low, high]}\n", 5, "'weight' is 'low'; it must be a number",
            "list of numbers"),
        Wrong(
            "a number in words", two + "parameters: {weight: half}\n", 5, "'weight' is 'half'; it must be a number",
            "write a number"),
        Wrong(
            "a list in a list", two + "parameters: {weight: [[0, 1], [1, 0]]}\n", 5, "one list of numbers",
            "without inner brackets"),
        Wrong(
            "filters and values", two + "parameters:\n  weight:\n  - {filter: mlp, value: 1}\n  - 0.5\n  - 0.7\n", 8,
            "mixes filters",
            "'- value: ...'"),
        Wrong(
            "a filter without value", two + "parameters:\n  weight:\n  - {filter: mlp}\n", 7, "has no 'value'", "value: NUMBER"),
        Wrong(
            "a filter that is a number", two + "parameters:\n  weight:\n  - {filter: 3, value: 1}\n", 7,
            "part of a tensor's name",
            "quotes"),
        Wrong(
            "filters that leave tensors out", two + "parameters:\n  weight:\n  - {filter: mlp, value: 1}\n", 6,
            "no filter of 'weight' matches every tensor",
            "'- value: VALUE'"),
        Wrong(
            "a slip in a filter", two + "parameters:\n  weight:\n  - {filter: self_atn, value: 1}\n  - value: 0.5\n", 7,
            "'self_atn'",
            "'self_attn'", strict: true),
        Wrong(
            "a filter of another family", two + "parameters:\n  weight:\n  - {filter: c_fc, value: 1}\n  - value: 0.5\n", 7,
            "'c_fc'",
            "'mlp'", strict: true),
        Wrong(
            "a flag that is none", two + "parameters: {weight: 1, normalize: maybe}\n", 5, "true or false", "'normalize: true'"),
        Wrong(
            "half a step", "merge_method: karcher\nmodels:\n- model: a\n- model: b\nparameters: {max_iter: 2.5}\n", 5,
            "'max_iter' is 2.5; it must be an integer",
            "an integer"),
        Wrong(
            "a negative epsilon", "merge_method: ram\nbase_model: base\nmodels:\n- model: a\nparameters: {epsilon: -1}\n", 5,
            "at least 0", "0 or a greater number"),
        Wrong(
            "an epsilon of 0", "merge_method: multislerp\nmodels:\n- model: a\n- model: b\nparameters: {weight: 1, eps: 0}\n", 5,
            "greater than 0", "greater than 0"),
        Wrong(
            "density and epsilon", ties.replacing("ties", with: "della") + "parameters:\n  weight: 1\n  density: 0.9\n", 8,
            "density 0.9 with epsilon 0.15", "set 'epsilon' below"),
        Wrong(
            "density and epsilon in a gradient",
            ties.replacing("ties", with: "della") + "parameters: {weight: 1, density: [0.9, 0.95]}\n",
            6, "must lie strictly between", "set 'epsilon' below"),
        Wrong(
            "weights that cancel",
            "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n"
                + "- {model: b, parameters: {weight: -1}}\n", 4, "add up to zero", "'normalize: false'"),
        Wrong(
            "parameters as a number", two + "parameters: 0.5\n", 5, "'parameters' must be a map of names to values",
            "{weight: 0.5}"),
    ]

    static let vocabularies: [Wrong] = [
        Wrong(
            "a source and a tokenizer", tokens + "tokenizer_source: union\ntokenizer: {source: base}\n", 7,
            "both 'tokenizer_source'",
            "'source:' under 'tokenizer:'"),
        Wrong(
            "a tokenizer as text", tokens + "tokenizer: union\n", 6,
            "'tokenizer' must be a map with 'source', 'tokens' and 'pad_to_multiple_of'", "{source: union}"),
        Wrong(
            "a source that is not there", tokens + "tokenizer_source: unoin\n", 6, "unoin: no such file", "correct the path"),
        Wrong(
            "a token without source", tokens + "tokenizer:\n  source: union\n  tokens:\n    <new>: first\n", 9, "has no 'source'",
            "{source: MODEL}"),
        Wrong(
            "a token of a model that lacks it",
            tokens + "tokenizer:\n  tokens:\n    <x>: {source: {kind: model_token, model: first, token: nope}}\n", 8,
            "no row for it",
            "{kind: zero}"),
        Wrong(
            "a token of a model that is not merged", tokens + "tokenizer:\n  tokens:\n    <x>: {source: a}\n", 8,
            "the token '<x>' takes its row from 'a', which is not one of the merged", "one of first, second"),
        Wrong(
            "an unknown kind", tokens + "tokenizer:\n  tokens:\n    <x>: {source: {kind: zeros}}\n", 8,
            "'kind' is 'zeros'; it must be 'zero' or 'model_token'", "'zero'"),
        Wrong(
            "a padding of nothing", tokens + "tokenizer: {pad_to_multiple_of: 0}\n", 6,
            "'pad_to_multiple_of' must be a positive integer", "'pad_to_multiple_of: 64'"),
        Wrong(
            "a chat template that is none", linear + "chat_template: chatlm\n", 6,
            "'chat_template' is 'chatlm'; it must be a known name or a whole template", "'chatml'"),
    ]

    @Test func thereAreEnough() {
        let all = [Self.yaml, Self.keys, Self.models, Self.slices, Self.parameters, Self.vocabularies].joined()
        #expect(Set(all.map(\.testDescription)).count == all.count && all.count >= 80)
    }

    @Test(arguments: [yaml, keys, models, slices, parameters, vocabularies].flatMap(\.self))
    func isToldOnce(_ wrong: Wrong) throws {
        var request = PlanRequest(recipe: wrong.text, recipeName: "recipe.yml", workingDirectory: directory.path)
        request.strict = wrong.strict
        let told = #expect(throws: (any Error).self) { try Planner.plan(request) }
        let problems = (told as? Problems)?.all ?? (told as? TesseraError).map { [$0] } ?? []
        #expect(problems.count == 1, "\(problems.map(\.description))")
        let problem = try #require(problems.first)
        #expect(problem.file == "recipe.yml" && problem.line == wrong.line, "\(problem)")
        #expect(problem.problem.contains(wrong.words), "\(problem)")
        #expect(problem.advice?.contains(wrong.advice) == true, "\(problem)")
    }

    /// A slip that does no harm is a remark of the plan.
    @Test func aFilterThatFitsNothingIsRemarkedOn() throws {
        let recipe = Self.two + "parameters:\n  weight:\n  - {filter: self_atn, value: 1}\n  - value: 0.5\n"
        let plan = try Planner.plan(PlanRequest(recipe: recipe, recipeName: "recipe.yml", workingDirectory: directory.path))
        #expect(
            plan.warnings.contains {
                $0.description.hasPrefix("recipe.yml:7: no tensor name contains 'self_atn'")
                    && $0.description.hasSuffix("'self_attn'?")
            })
    }
}
