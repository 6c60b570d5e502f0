import Core
import Foundation
import Planning
import TestSupport
import Testing

/// Whatever is wrong with a recipe is told in one go, however early reading it fails.
@Suite struct RecipeCheckTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for model in ["a", "b"] { try TestTensor.writeCheckpoint("\(directory.path)/\(model)", [("w", TestTensor([1, 2]))]) }
    }

    private func problems(_ recipe: String, strict: Bool = false, origins: LineOrigins? = nil) throws -> [TesseraError] {
        var request = PlanRequest(recipe: recipe, recipeName: "r.yml", workingDirectory: directory.path)
        request.strict = strict
        request.recipeOrigins = origins
        return #expect(throws: Problems.self) { try Planner.plan(request) }?.all ?? []
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let recipe: String
        /// Lines and words of all problems, in any order.
        let told: [(line: Int, words: String)]
    }

    private static let cases: [Case] = [
        Case(
            testDescription: "an unknown method, a missing model, an unknown key",
            recipe: "merge_method: tise\nbase_model: a\nmodels:\n- model: b\n- model: c\ndtyp: float16\n",
            told: [(1, "did you mean 'ties'?"), (5, "c: no such file"), (6, "did you mean 'dtype'?")]),
        Case(
            testDescription: "a misspelled key of a model, and its value",
            recipe: "merge_method: linear\nmodels:\n- mdoel: c\n- model: b\nparameters: {wieght: 1}\ndtype: float17\n",
            told: [
                (3, "unknown key 'mdoel' — did you mean 'model'?"), (3, "c: no such file"), (5, "did you mean 'weight'?"),
                (6, "'dtype' is 'float17'"),
            ]),
        Case(
            testDescription: "a misspelled method, and parameters of it",
            recipe: "merge_methd: ties\nbase_model: c\nmodels:\n- model: b\nparameters: {density: 1.5, lamda: 1}\n",
            told: [
                (1, "unknown key 'merge_methd' — did you mean 'merge_method'?"), (2, "c: no such file"),
                (5, "'density' is 1.5"),
                (5, "did you mean 'lambda'?"),
            ]),
        Case(
            testDescription: "no method at all",
            recipe: "base_model: c\nmodels:\n- model: b\n", told: [(1, "has no 'merge_method'"), (1, "c: no such file")]),
        Case(
            testDescription: "misspelled models",
            recipe: "merge_method: linear\nmodles:\n- model: a\n- model: c\n",
            told: [(2, "unknown key 'modles' — did you mean 'models'?"), (4, "c: no such file"), (1, "value for 'weight'")]),
        Case(
            testDescription: "a missing base, and a missing model",
            recipe: "merge_method: ties\nmodels:\n- model: b\n- model: c\n",
            told: [(1, "needs a base model"), (4, "c: no such file"), (1, "a value for 'weight' for every model")]),
        Case(
            testDescription: "a missing base, a wrong type, a misspelled parameter",
            recipe: "merge_method: ties\nmodels:\n- model: b\n  parameters: {weight: 1, desnity: 0.5}\ndtype: bfloat17\n",
            told: [(1, "needs a base model"), (4, "did you mean 'density'?"), (5, "'dtype' is 'bfloat17'")]),
        Case(
            testDescription: "a base and a model that cannot be read may still be enough",
            recipe: "merge_method: ties\nbase_model: [a]\nmodels:\n- {model: b, parameters: {weight: 1}}\n- model: [c]\n",
            told: [(2, "must be a path"), (5, "must be a path")]),
        Case(
            testDescription: "a slice of too few models, a wrong type",
            recipe: """
                merge_method: slerp
                base_model: a
                slices:
                - sources:
                  - {model: a, layer_range: [0, 1]}
                dtype: bfloat17
                parameters: {t: 0.5}
                """, told: [(4, "the recipe has "), (6, "'dtype' is 'bfloat17'")]),
        Case(
            testDescription: "a wrong sweep, a missing model, a wrong value",
            recipe:
                "merge_method: ties\nbase_model: a\nmodels:\n- model: c\nparameters:\n  lambda: {sweep: [1, 1]}\n  density: 2\n",
            told: [
                (6, "has the value 1 twice"), (4, "c: no such file"), (7, "'density' is 2"), (1, "a value for 'weight'"),
            ]),
        Case(
            testDescription: "a store",
            recipe: "quantize: {bits: 9, sheme: tvq}\nbase_modle: a\nmodels:\n- model: c\n- mdoel: d\n",
            told: [
                (1, "'bits' is 9"), (1, "did you mean 'scheme'?"), (2, "unknown key 'base_modle'"), (4, "c: no such file"),
                (5, "unknown key 'mdoel'"), (5, "d: no such file"),
            ]),
    ]

    @Test(arguments: cases) func everythingIsToldInOneGo(_ wrong: Case) throws {
        let problems = try problems(wrong.recipe)
        #expect(problems.count == wrong.told.count, "\(problems.map(\.description))")
        for (line, words) in wrong.told {
            #expect(
                problems.contains { $0.line == line && $0.description.contains(words) },
                "\(line) \(words): \(problems.map(\.description))")
        }
    }

    @Test func whatIsStrictIsToldWithTheRest() throws {
        let problems = try problems("merge_method: linear\nmodels:\n- model: a\n- model: c\nfoo: 1\n", strict: true)
        #expect(problems.map(\.line).compactMap(\.self).sorted() == [1, 4, 5], "\(problems.map(\.description))")
    }

    /// Lines are those of the user's file, whatever became of them.
    @Test func problemsAreAtTheirOrigins() throws {
        let recipe = "merge_method: tise\nbase_model: a\nmodels:\n- model: b\n- model: c\n"
        let origins = LineOrigins(lines: [7, -1, 9, 10, -2, 0], settings: ["--set base_model=a", "--set models.1.model=c"])
        let problems = try problems(recipe, origins: origins)
        #expect(problems.map(\.file) == ["r.yml", "--set models.1.model=c"] && problems.map(\.line) == [7, nil], "\(problems)")
    }
}
