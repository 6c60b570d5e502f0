import Core
import Operators
import Recipes

/// Everything that is wrong with a recipe and odd about it, as far as it can be known without the models' tensors, so that all of
/// it can be mended at once.
struct RecipeCheck {
    let request: PlanRequest

    /// What is wrong with a recipe that cannot be read as a whole.
    func problems(_ reading: RecipeReading) -> Problems {
        var problems = reading.problems
        guard let draft = reading.draft else {
            let models = [reading.base].compactMap(\.self) + reading.fineTunes
            return Problems(
                problems + InputSet.problems(models, base: reading.base, recipeFile: request.recipeName, request: request)
                    + reading.warnings)
        }
        // What is wrong on a line has been said.
        let lines = Set(problems.compactMap(\.line))
        let method = Self.method(of: draft), names = method.map { ParameterNames(recipe: draft, method: $0) }
        if let method, reading.hasAllModels { problems += MethodContract(recipe: draft, method: method).problems() }
        if names == nil, !draft.method.value.isEmpty { problems.append(Self.unknownMethod(draft)) }
        problems += (names?.problems() ?? []).filter { !lines.contains($0.line ?? 0) }
        problems += InputSet.problems(draft, request: request)
        let odd = (names?.warnings() ?? []).filter { !lines.contains($0.line ?? 0) }
        return Problems(problems + reading.warnings + Self.unsaid(odd, beside: problems))
    }

    /// Warnings that no problem says by itself, such as one about the slip that left a value missing.
    static func unsaid(_ warnings: [TesseraError], beside problems: [TesseraError]) -> [TesseraError] {
        warnings.filter { warning in !problems.contains { $0.line == warning.line && $0.advice == warning.advice } }
    }

    /// The method that a recipe names, if there is one of that name.
    static func method(of recipe: Recipe) -> (any MergeMethod.Type)? {
        MergeMethods.all.first { $0.name == recipe.method.value }
    }

    static func unknownMethod(_ recipe: Recipe) -> TesseraError {
        let name = recipe.method.value
        return TesseraError(
            .badData, "unknown merge method '\(name)'", file: recipe.file, line: recipe.method.line,
            advice: Suggestion.advice(for: name, in: MergeMethods.all.map { $0.name }, otherwise: "write one of"))
    }
}
