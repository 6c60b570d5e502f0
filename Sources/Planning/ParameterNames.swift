import Checkpoints
import Operators
import Recipes

/// Finds parameters that a recipe sets in vain: names that the method does not have, and values at a place where nobody looks for them.
struct ParameterNames {
    let recipe: Recipe
    let method: any MergeMethod.Type

    func warnings() -> [TesseraError] {
        var warnings = unknown(in: recipe.parameters)
        for module in recipe.modules {
            warnings += unknown(in: module.parameters)
            if case .slices(let slices) = module.body { warnings += slices.flatMap { unknown(in: $0.parameters) } }
            warnings += module.body.sources.flatMap { unknown(in: $0.parameters) + misplaced(in: $0.parameters) }
        }
        return warnings.sorted { ($0.line ?? 0, $0.problem) < ($1.line ?? 0, $1.problem) }
    }

    private func unknown(in scope: ParameterScope) -> [TesseraError] {
        let known = method.parameters.map(\.name)
        return scope.settings.filter { !known.contains($0.key) }.map { name, setting in
            let advice =
                Suggestion.closest(to: name, in: known).map { "did you mean '\($0)'?" }
                ?? (known.isEmpty ? "it has none" : "it has \(known.joined(separator: ", "))")
            return warning("the method '\(method.name)' has no parameter '\(name)', so it is ignored", setting.line, advice)
        }
    }

    /// One value for a whole tensor cannot come from one of its models.
    private func misplaced(in scope: ParameterScope) -> [TesseraError] {
        method.parameters.filter { $0.scope == .shared }.compactMap { parameter in
            scope.settings[parameter.name].map {
                warning(
                    "'\(parameter.name)' is one value for all models, so it is ignored at one of them", $0.line,
                    "move it to the recipe's own 'parameters:'")
            }
        }
    }

    private func warning(_ problem: String, _ line: Int, _ advice: String) -> TesseraError {
        TesseraError(.badData, problem, file: recipe.file, line: line, advice: advice)
    }
}
