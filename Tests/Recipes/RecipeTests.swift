import Core
import Recipes
import Testing

@Suite struct RecipeTests {
    private func parse(_ text: String, strict: Bool = false) throws -> Recipe {
        try Recipe.parse(text: text, file: "recipe.yml", strict: strict)
    }

    private static let models = "models:\n- model: a\n- model: b\n"

    @Test func anAdapterIsFoldedIntoItsModelOrTheBase() throws {
        let head = "merge_method: lora_sum\nbase_model: base@main\nmodels:\n"
        let recipe = try parse(head + "- adapter: one\n- {adapter: two@v1}\n- {model: m, adapter: {path: a+b}}\n", strict: true)
        let adapters = recipe.models.map { $0.adapter?.path }, models = recipe.models.map(\.path)
        #expect(adapters == ["one", "two", "a+b"] && models == ["base", "base", "m"])
        #expect(recipe.models[0].model.revision == "main" && recipe.models[1].adapter?.revision == "v1")
        for (text, problem) in [
            ("merge_method: lora_sum\nmodels:\n- adapter: one\n", "no model that it could be folded into"),
            (head + "- {model: m+x, adapter: one}\n", "no model that it could be folded into"),
            (head + "- {model: 's#t', adapter: one}\n", "no model that it could be folded into"),
            (head + "- adapter: [one]\n", "'adapter' must be a path"), (head + "- parameters: {}\n", "has no path"),
        ] {
            let found = #expect(throws: Problems.self) { try parse(text) }?.all ?? []
            #expect(found.contains { $0.problem.contains(problem) }, "\(text): \(found)")
        }
    }

    @Test func readsEverythingOfARecipe() throws {
        let recipe = try parse(
            """
            merge_method: ties
            base_model: org/base@v1
            models:
            - model: "a path"
              parameters: {weight: 0.5, density: [0.1, 0.9]}
            - model: b+lora
            - model: {model: {path: "c+c", revision: main}, lora: {path: d@d}}
            parameters:
              normalize: off
              lambda:
              - filter: mlp
                value: [0, 1]
              - value: 2
            dtype: bfloat16
            out_dtype: torch.float32
            """)
        #expect(recipe.method == Located("ties", line: 1))
        #expect(recipe.baseModel?.value == ModelReference(model: .init(path: "org/base", revision: "v1")))
        let sources = recipe.modules.flatMap(\.body.sources)
        #expect(sources.map(\.model.value.description) == ["a path", "b+lora", "c+c@main+d@d"])
        #expect(sources.map(\.model.line) == [4, 6, 7])
        #expect(recipe.dtype == .bf16)
        #expect(recipe.outDtype == .f32)
        #expect(recipe.warnings == [])
        #expect(recipe.parameters.value("normalize", at: 0, tensor: "t")?.value.asBool == false)
        #expect(sources[0].parameters.value("density", at: 0.5, tensor: "t")?.value.asDouble == 0.5)
    }

    /// The map's own keys win over merged ones, and the first of several merged maps over the others.
    @Test func mergeKeysAreResolved() throws {
        let recipe = try parse(
            """
            merge_method: ties
            models:
            - model: a
              parameters: &first {weight: 1, density: 0.5}
            - model: b
              parameters: &second
                <<: *first
                weight: 2
            - model: c
              parameters: {<<: [*second, {weight: 3, lambda: 4}]}
            """)
        let values = recipe.modules.flatMap(\.body.sources).map { source in
            ["weight", "density", "lambda"].map { source.parameters.value($0, at: 0, tensor: "t")?.value.asDouble }
        }
        #expect(values == [[1, 0.5, nil], [2, 0.5, nil], [2, 0.5, 4]])
    }

    /// Aliases of aliases: a few lines that mean a thousand million.
    @Test func textsThatExplodeAreRefused() {
        let lines = (1...9).map { "l\($0): &l\($0) [\([String](repeating: "*l\($0 - 1)", count: 10).joined(separator: ", "))]" }
        let text = "l0: &l0 [x]\n" + lines.joined(separator: "\n") + "\nmerge_method: linear\n"
        let problem = #expect(throws: Problems.self) { try parse(text) }?.all.first
        #expect(problem?.problem.contains("with its aliases, this has more than 200000 nodes") == true && problem?.line == 6)
    }

    /// Each line is as deep as the parser allows, and stands inside of the next.
    @Test(arguments: [2, 13, 200])
    func chainsOfDeepAliasesAreRefused(count: Int) {
        let text = "x0: &x0 [x]\n" + Self.chain(count) + "\nmerge_method: linear\n"
        let problem = #expect(throws: Problems.self) { try parse(text) }?.all.first
        #expect(problem?.problem.hasSuffix("or 1000 levels") == true && problem?.line == 3, "\(String(describing: problem))")
        // With settings the text is written anew, with all that its aliases stand for.
        #expect(throws: TesseraError.self) {
            try RecipeOverride.apply([try RecipeOverride("dtype=float32")], to: text, file: "r.yml")
        }
        #expect(throws: TesseraError.self) {
            try RecipeOverride.apply([try RecipeOverride("x={\(text.replacing("\n", with: ", "))}")], to: "a: b", file: "r.yml")
        }
    }

    private static func chain(_ count: Int) -> String {
        (1...count).map { number in
            let open = String(repeating: "[", count: 900), close = String(repeating: "]", count: 900)
            return "x\(number): &x\(number) \(open)*x\(number - 1)\(close)"
        }.joined(separator: "\n")
    }

    @Test func aliasesThatAreNotDeepMayBeMany() throws {
        let text =
            "x: &x {weight: 1}\nmerge_method: linear\nmodels:\n"
            + String(repeating: "- {model: a, parameters: *x}\n", count: 2000)
        #expect(try parse(text).modules[0].body.sources.count == 2000)
    }

    /// The same, where the expansion is a key, which the parser would compare and hash.
    @Test(arguments: [
        "? *l9\n: y", "*l9 : y", "m: {*l9 : y}", "m: {*l9, x}", "m: {[*l9]: y}", "? - *l9\n: y", "- {? {a: *l9} : y}",
    ])
    func aliasesInKeysAreRefused(line: String) {
        let lines = (1...9).map { "l\($0): &l\($0) [\([String](repeating: "*l\($0 - 1)", count: 10).joined(separator: ", "))]" }
        let text = "l0: &l0 [x]\n" + lines.joined(separator: "\n") + "\n\(line)\nmerge_method: linear\n"
        let problem = #expect(throws: Problems.self) { try parse(text) }?.all.first
        let isMap = !line.hasPrefix("-")
        #expect(!isMap || problem?.problem == "a key of a map is an alias, or contains one", "\(String(describing: problem))")
        #expect(!isMap || problem?.line == 11)
    }

    @Test(arguments: ["[", "{a: ", "- "])
    func deepNestingIsRefused(opening: String) {
        let text = "merge_method: linear\nx: " + String(repeating: opening, count: 50_000)
        #expect(throws: Problems.self) { try parse(text) }
    }

    // MARK: Parameters

    /// mergekit's rule: the gradient's points are spread evenly over 0...1, and what lies between is interpolated.
    @Test(arguments: [
        ("[1, 3]", 0.0, 1.0), ("[1, 3]", 0.5, 2), ("[1, 3]", 1, 3), ("[0, 1, 0]", 0.25, 0.5), ("[0, 1, 0]", 0.5, 1),
        ("[0, 1, 0]", 0.75, 0.5),
        ("[7]", 0.3, 7), ("5", 0.9, 5), ("[1e-1, 0.3]", 0.5, 0.2),
    ])
    func gradients(written: String, position: Double, value: Double) throws {
        let recipe = try parse("merge_method: linear\n\(Self.models)parameters: {weight: \(written)}\n")
        let found = try #require(recipe.parameters.value("weight", at: position, tensor: "t")?.value.asDouble)
        #expect((found - value).magnitude < 1e-15)
    }

    @Test func theFirstFilterThatFitsDecides() throws {
        let recipe = try parse(
            """
            merge_method: linear
            \(Self.models)parameters:
              weight:
              - {filter: q_proj, value: 1}
              - {filter: "*", value: 2}
              - {filter: k_proj, value: 3}
              scale:
              - {filter: mlp, value: 4}
            """)
        func weight(_ tensor: String) -> Double? { recipe.parameters.value("weight", at: 0, tensor: tensor)?.value.asDouble }
        #expect(weight("layers.0.q_proj.weight") == 1)
        #expect(weight("layers.0.k_proj.weight") == 2)
        #expect(recipe.parameters.value("scale", at: 0, tensor: "layers.0.q_proj.weight") == nil)
        #expect(recipe.parameters.value("scale", at: 0, tensor: "layers.0.mlp.up")?.value.asDouble == 4)
    }

    // MARK: What is wrong, and where

    struct Bad: Sendable, CustomTestStringConvertible {
        let text: String
        /// The problems, as `line: words that the message has`.
        let problems: [(line: Int?, words: String)]
        var testDescription: String { problems.map(\.words).joined(separator: "; ") }

        init(_ text: String, _ problems: (Int?, String)...) {
            self.text = text
            self.problems = problems.map { (line: $0.0, words: $0.1) }
        }
    }

    @Test(arguments: [
        Bad("", (nil, "is empty")),
        Bad("# only a comment\n", (nil, "is empty")),
        Bad("just text", (1, "not a recipe")),
        Bad("- a\n- b\n", (1, "not a recipe")),
        Bad("merge_method: linear\nmodels: [\n", (3, "is not valid YAML")),
        Bad("merge_method: linear\n\tmodels: x\n", (2, "is not valid YAML")),
        Bad("merge_method: linear\n\(models)---\nmerge_method: ties\n", (6, "contains 2 YAML documents")),
        Bad(models, (1, "has no 'merge_method'")),
        Bad("merge_method: [linear]\n\(models)", (1, "must be the name of one method")),
        Bad("merge_method: linear\n", (1, "has no models")),
        Bad("merge_method: linear\nmodels: []\n", (2, "has no models")),
        Bad("merge_method: linear\nmodels:\n- a\n", (3, "'- model: a'")),
        Bad("merge_method: linear\nmodels:\n- parameters: {weight: 1}\n", (3, "has no path")),
        Bad("merge_method: linear\nmodels:\n- model: a\n  weight: 1\n", (4, "is not under 'parameters:'")),
        Bad("merge_method: linear\nmodels:\n- model: a+b+c\n", (3, "is not a model reference")),
        Bad("merge_method: linear\nmodels:\n- model: {revision: x}\n", (3, "has no 'path'")),
        Bad("merge_method: linear\n\(models)dtype: bfloat17\n", (5, "'dtype' is 'bfloat17'")),
        Bad("merge_method: linear\n\(models)parameters: 3\n", (5, "a map of names to values")),
        Bad("merge_method: linear\n\(models)parameters:\n  weight:\n", (6, "has no value")),
        Bad("merge_method: linear\n\(models)parameters:\n  weight:\n  - {filter: a}\n", (7, "has no 'value'")),
        Bad("merge_method: linear\n\(models)parameters:\n  weight:\n  - {filter: 3, value: 1}\n", (7, "part of a tensor's name")),
        Bad("merge_method: linear\n\(models)parameters:\n  weight:\n  - {filter: a, value: 1}\n  - 2\n", (8, "mixes filters")),
        Bad("merge_method: linear\nslices: []\n", (2, "has no models")),
        Bad(
            "merge_method: linear\n\(models)slices:\n- sources: [{model: a, layer_range: [0, 1]}]\n",
            (6, "has both 'models' and 'slices'")),
        Bad("merge_method: linear\nslices:\n- sources: []\n", (3, "has no sources")),
        Bad("merge_method: linear\nslices:\n- sources:\n  - {model: a}\n", (4, "has no 'layer_range'")),
        Bad(
            "merge_method: linear\nslices:\n- sources:\n  - {model: a, layer_range: [3, 2]}\n", (4, "not a valid range of layers")
        ),
        Bad(
            "merge_method: linear\nslices:\n- sources:\n  - {model: a, layer_range: [0, -1]}\n",
            (4, "END is exclusive")),
        Bad("merge_method: linear\nslices:\n- sources:\n  - {model: a, layer_range: 3}\n", (4, "must have two numbers")),
        Bad(
            "merge_method: linear\nslices:\n- sources:\n  - {model: a, layer_range: [0, 2]}\n"
                + "  - {model: b, layer_range: [0, 3]}\n",
            (5, "have 2 and 3 layers")),
        Bad("merge_method: linear\nmodules: [a]\n", (2, "must map module names")),
        Bad("merge_method: linear\nmodules:\n  a: {parameters: {weight: 1}}\n", (3, "the module 'a' has no models")),
        // Everything at once.
        Bad(
            "models:\n- model: a\n  scale: 2\n- model: ''\ndtype: x\n", (3, "is not under"), (4, "not a model reference"),
            (5, "is 'x'"), (1, "no 'merge_method'")),
    ])
    func saysWhatIsWrongAndWhere(_ bad: Bad) {
        let problems = #expect(throws: Problems.self) { try parse(bad.text) }
        #expect(problems?.all.count == bad.problems.count, "\(problems?.description ?? "none")")
        for expected in bad.problems {
            #expect(
                problems?.all.contains { $0.line == expected.line && $0.description.contains(expected.words) } == true,
                "\(problems?.description ?? "none")")
        }
        #expect(problems?.all.allSatisfy { $0.file == "recipe.yml" && $0.code == .badData } == true)
    }

    @Test func aSlipIsAWarningAndInStrictModeAProblem() throws {
        let text = "merge_method: linear\n\(Self.models)parmeters: {weight: 1}\n"
        let warnings = try parse(text).warnings
        #expect(warnings.map(\.line) == [5])
        #expect(warnings.first?.advice == "did you mean 'parameters'?")
        #expect(#expect(throws: Problems.self) { try parse(text, strict: true) }?.all == warnings)
    }

    @Test func dtypeSlipsAreExplained() {
        let problems = #expect(throws: Problems.self) { try parse("merge_method: linear\n\(Self.models)dtype: bfloat61\n") }
        #expect(problems?.all.first?.advice == "did you mean 'bfloat16'?")
        let short = #expect(throws: Problems.self) { try parse("merge_method: linear\n\(Self.models)dtype: float8_e4m3\n") }
        #expect(short?.all.first?.advice == "did you mean 'float8_e4m3fn'?")
    }

    @Test(arguments: [("float8_e4m3fn", DType.f8E4M3), ("torch.float8_e5m2", .f8E5M2), ("torch.float64", .f64)])
    func dtypesHaveTheNamesOfPyTorch(name: String, dtype: DType) throws {
        let recipe = try parse("merge_method: linear\n\(Self.models)dtype: \(name)\nout_dtype: \(name)\n")
        #expect(recipe.dtype == dtype && recipe.outDtype == dtype)
    }

    @Test(arguments: [
        ("a.layers.3.b", "a.layers", 3), ("h.11.attn.c_attn.weight", "h", 11), ("layers.0.experts.7.w", "layers", 0),
    ])
    func layersAreFoundInNames(name: String, prefix: String, index: Int) {
        #expect(TensorName(name).layer?.prefix.string == prefix)
        #expect(TensorName(name).layer?.index == index)
    }

    @Test(arguments: ["embed_tokens.weight", "0.weight", "layers.3", "layers.x3.w", "layers.99999999999999999999.w", ""])
    func otherNamesHaveNoLayer(name: String) { #expect(TensorName(name).layer == nil) }

    @Test(arguments: [("tise", "ties"), ("linaer", "linear"), ("task_arithmetics", "task_arithmetic"), ("xyzzy", nil)])
    func suggestions(slip: String, meant: String?) {
        #expect(Suggestion.closest(to: slip, in: ["linear", "ties", "task_arithmetic", "passthrough"]) == meant)
    }
}
