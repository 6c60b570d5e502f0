import Core
import Recipes
import Testing

@Suite struct SweepTests {
    private func parse(_ parameters: String, models: String = "models:\n- model: a\n- model: b\n") throws -> Sweep {
        guard
            case .sweep(let sweep) = try JobRecipe.parse(
                text: "merge_method: ties\n\(models)\(parameters)\n", file: "recipe.yml")
        else {
            throw TesseraError(.internal, "not a sweep")
        }
        return sweep
    }

    private func values(_ recipe: Recipe, _ names: String...) -> [Double?] {
        names.map { recipe.parameters.value($0, at: 0, tensor: "t")?.value.asDouble }
    }

    @Test func onePointForEachValue() throws {
        let sweep = try parse("parameters: {lambda: {sweep: [0.1, 0.20, 1]}, density: 0.3}")
        #expect(sweep.parameters == ["lambda"])
        #expect(sweep.points.map(\.name) == ["lambda=0.1", "lambda=0.20", "lambda=1"])
        #expect(sweep.points.map { values($0.recipe, "lambda", "density") } == [[0.1, 0.3], [0.2, 0.3], [1, 0.3]])
    }

    @Test func severalParametersMakeAGrid() throws {
        let sweep = try parse("parameters:\n  lambda:\n    sweep: [1, 2]\n  density: {sweep: [0.3, 0.5]}")
        #expect(
            sweep.points.map(\.name) == [
                "lambda=1,density=0.3", "lambda=1,density=0.5", "lambda=2,density=0.3", "lambda=2,density=0.5",
            ])
        #expect(sweep.points.map { values($0.recipe, "lambda", "density") } == [[1, 0.3], [1, 0.5], [2, 0.3], [2, 0.5]])
    }

    /// The weights of an interpolation.
    @Test func sweepsOfOneParameterMoveTogether() throws {
        let sweep = try parse(
            "",
            models: """
                models:
                - {model: a, parameters: {weight: {sweep: [1, 0.5, 0]}, density: {sweep: [0.5, 1]}}}
                - {model: b, parameters: {weight: {sweep: [0, 0.5, 1]}, density: {sweep: [0.5, 1]}}}
                """)
        // Equal values are named once.
        #expect(
            sweep.points.map(\.name).prefix(3) == ["weight=1_0,density=0.5", "weight=1_0,density=1", "weight=0.5,density=0.5"])
        let found = sweep.points.map { point in
            point.recipe.modules.flatMap(\.body.sources).map { $0.parameters.value("weight", at: 0, tensor: "")?.value.asDouble }
        }
        #expect(found == [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1], [0, 1]])
    }

    @Test func aSweepStandsWhereverAValueDoes() throws {
        let sweep = try parse(
            """
            parameters:
              lambda:
              - {filter: mlp, value: {sweep: [0.5, 0.7]}}
              - value: [0, {sweep: [1, 2]}]
              lines: {alpha: {sweep: [0.1, 0.2]}, beta: 0.5}
              normalize: {sweep: [true, false]}
            """)
        #expect(sweep.points.count == 8)
        let first = sweep.points[0].recipe.parameters, last = sweep.points[7].recipe.parameters
        #expect(sweep.points[0].name == "lambda=0.5_1,lines.alpha=0.1,normalize=true")
        #expect(first.value("lambda", at: 1, tensor: "mlp")?.value.asDouble == 0.5)
        #expect(first.value("lambda", at: 1, tensor: "t")?.value.asDouble == 1)
        #expect(last.value("lambda", at: 1, tensor: "t")?.value.asDouble == 2)
        #expect(last.value("lines.alpha", at: 1, tensor: "t")?.value.asDouble == 0.2)
        #expect(last.value("lines.beta", at: 1, tensor: "t")?.value.asDouble == 0.5)
        #expect(last.value("normalize", at: 1, tensor: "t")?.value.asBool == false)
    }

    /// The text of a point is a recipe that means the same, also where the sweep's recipe uses what YAML has for repetition.
    @Test func everyPointHasARecipeOfItsOwn() throws {
        let models = """
            base_model: "0123"
            models:
            - model: a
              parameters: &all {weight: {sweep: [0.1, 0.2]}, density: 1.0e-1}
            - model: {model: {path: "c+c with spaces, and so long that a writer of YAML could fold it into two lines"}}
              parameters:
                <<: *all

            """
        for point in try parse("parameters: {normalize: \"yes\", lambda: !!float 2}", models: models).points {
            let again = try Recipe.parse(text: point.recipe.text, file: "recipe.yml")
            #expect(again.baseModel?.value == point.recipe.baseModel?.value)
            #expect(again.models == point.recipe.models && again.models.count == 2)
            let settings = [point.recipe, again].map { recipe in
                (recipe.modules.flatMap(\.body.sources).map(\.parameters) + [recipe.parameters]).map {
                    $0.settings.mapValues(\.value)
                }
            }
            #expect(settings[0] == settings[1])
            #expect(settings[0][0]["weight"] == settings[0][1]["weight"])
        }
    }

    @Test(arguments: [
        ("parameters: {lambda: {sweep: []}}", "must be a list of values"),
        ("parameters: {lambda: {sweep: 0.1}}", "must be a list of values"),
        ("parameters: {lambda: {sweep: [1], value: 2}}", "must be a list of values"),
        ("parameters: {lambda: {sweep: [1, [2, 3]]}}", "has a list, which is no single value"),
        ("parameters: {lambda: {sweep: [1, null]}}", "which is no single value"),
        ("parameters: {lambda: {sweep: [1, 2, 1]}}", "has the value 1 twice"),
        ("parameters: {lambda: {sweep: [\"../x\"]}}", "'../x', which cannot be a part of a folder's name"),
        ("parameters: {\"../x\": {sweep: [1]}}", "'../x' cannot be a part of a folder's name"),
        (
            "parameters: {lambda: [{filter: a, value: {sweep: [1, 2]}}, {value: {sweep: [1, 2, 3]}}]}",
            "the sweeps of 'lambda' have 2 and 3 values"
        ),
        (
            "parameters: {lambda: {sweep: [\((0..<11).map { "\($0)" }.joined(separator: ","))]}, "
                + "density: {sweep: [\((1...10).map { "0.\($0 + 10)" }.joined(separator: ","))]}}",
            "make 110 checkpoints, and at most 100"
        ),
        ("parameters: {lambda: {sweep: [\(String(repeating: "9", count: 250)), 1]}}", "would have 257 bytes"),
    ])
    func otherSweepsAreRefused(parameters: String, complaint: String) {
        #expect {
            _ = try parse(parameters)
        } throws: { error in
            (error as? Problems)?.all.contains { $0.problem.contains(complaint) && $0.line ?? 0 >= 4 } ?? false
        }
    }

    /// Of what is wrong with the recipe beside the sweep every problem is told once.
    @Test func aProblemIsToldOnce() {
        #expect {
            _ = try parse("parameters: {lambda: {sweep: [1, 2]}, density: {filter: a}}\ndtype: int9")
        } throws: { error in (error as? Problems)?.all.map(\.line) == [5, 6] }
    }

    @Test func linesNeedKeys() {
        #expect {
            _ = try Recipe.parse(text: "merge_method: ties\nmodels: [{model: a}]\nparameters: {lines: 0.5}", file: "r")
        } throws: { ("\($0)").contains("'lines' must have the keys 'alpha' and 'beta'") }
    }
}
