import Core
import Recipes
import Testing

/// `--set` puts values in the place of a recipe's own.
@Suite struct RecipeOverrideTests {
    private static let recipe = """
        merge_method: ties  # trims
        base_model: base
        models:
        - {model: a, parameters: {weight: 1.0}}
        - {model: b}
        """

    private static func set(_ overrides: String...) throws -> String {
        try RecipeOverride.apply(overrides.map { try RecipeOverride($0) }, to: recipe, file: "r.yml").text
    }

    /// - Parameter model: `nil` for what all models share.
    private static func value(_ name: String, of model: Int? = nil, in text: String) throws -> Double? {
        let recipe = try Recipe.parse(text: text, file: "r.yml", strict: true)
        let scope = model.map { recipe.modules[0].body.sources[$0].parameters } ?? recipe.parameters
        return scope.value(name, at: 0, tensor: "t")?.value.asDouble
    }

    @Test func withoutOverridesTheTextStays() throws { #expect(try Self.set() == Self.recipe) }

    @Test func valuesAreReplaced() throws {
        let text = try Self.set("models.0.parameters.weight=0.5")
        #expect(try Self.value("weight", of: 0, in: Self.recipe) == 1)
        #expect(try Self.value("weight", of: 0, in: text) == 0.5)
    }

    @Test func missingMapsAreMade() throws {
        let text = try Self.set("parameters.lambda=0.3", "models.1.parameters.density=0.25", "models.1.parameters.weight=2")
        #expect(try Self.value("lambda", in: text) == 0.3)
        #expect(try Self.value("density", of: 1, in: text) == 0.25 && Self.value("density", of: 0, in: text) == nil)
        #expect(try Self.value("weight", of: 1, in: text) == 2)
    }

    @Test func pathsAreNotDeep() {
        let path = Array(repeating: "a", count: 3000).joined(separator: ".")
        let error = #expect(throws: TesseraError.self) { try RecipeOverride("\(path)=1") }
        #expect(error?.code == .usage && error?.problem.hasSuffix("sets a key that is 3000 levels deep") == true)
        #expect((error?.problem.count ?? 0) < 300)
    }

    @Test func valuesAreYAML() throws {
        let text = try Self.set("models.1.parameters.weight=[{filter: mlp, value: 0.25}, {value: 0.75}]")
        #expect(text.contains("filter: mlp"))
        _ = try Recipe.parse(text: text, file: "r.yml", strict: true)
    }

    /// The lines of the new text come from lines of the file, or from settings.
    @Test func linesKnowWhereTheyComeFrom() throws {
        let recipe = """
            # A comment goes, and what follows moves up.
            merge_method: ties

            base_model: base
            models:
              - model: a
                parameters: {weight: 1.0, density: 0.5}
              - {model: b, parameters: {weight: 1.0}}
            dtype: &type bfloat16
            out_dtype: *type
            """
        let overrides = try ["models.1.parameters.weight=0.5", "parameters.lamda=1", "models.0.model=c"].map {
            try RecipeOverride($0)
        }
        let (text, found) = try RecipeOverride.apply(overrides, to: recipe, file: "r.yml")
        let origins = try #require(found), lines = text.split(separator: "\n").map { $0.trimmingPrefix { " -".contains($0) } }
        func origin(_ line: String) throws -> TesseraError {
            let index = try #require(lines.firstIndex { $0 == line }, "\(text)")
            return origins.located(TesseraError(.badData, "", file: "r.yml", line: index + 1), in: "r.yml")
        }
        for (line, number) in [("merge_method: ties", 2), ("base_model: base", 4), ("model: b", 8)] {
            #expect(try origin(line).line == number, "\(line) \(text)")
        }
        let alias = try #require(lines.firstIndex { $0.hasPrefix("out_dtype") })
        #expect(origins.lines[alias] == 10)
        #expect(try origin("weight: 0.5").file == "--set models.1.parameters.weight=0.5")
        #expect(try origin("lamda: 1").file == "--set parameters.lamda=1" && origin("lamda: 1").line == nil)
        #expect(try origin("model: c").file == "--set models.0.model=c")
        // What is not about the recipe stays.
        let other = TesseraError(.badData, "", file: "other.yml", line: 1)
        #expect(origins.located(other, in: "r.yml") == other)
        let beyond = TesseraError(.badData, "", file: "r.yml", line: 1000)
        #expect(origins.located(beyond, in: "r.yml") == beyond)
    }

    @Test(arguments: [
        ("lambda", "write a path and a value"), ("=1", "write a path and a value"), ("a..b=1", "write a path and a value"),
        ("models.2.model=c", "no element of a list of 2"), ("models.x.model=c", "no element of a list of 2"),
        ("base_model.name=c", "a single value above 'name'"), ("dtype=[", "not YAML"), ("dtype=", "not YAML"),
    ])
    func othersAreRefused(text: String, words: String) {
        #expect {
            try Self.set(text)
        } throws: { error in
            (error as? TesseraError)?.code == .usage && "\(error)".contains(words)
        }
    }
}
