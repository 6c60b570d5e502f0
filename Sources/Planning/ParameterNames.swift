import Core
import Operators
import Recipes

/// Finds parameters that a recipe sets in vain: names that the method does not have, values at a place where nobody looks for
/// them, values that make no sense wherever they apply, and filters that fit nothing.
struct ParameterNames {
    let recipe: Recipe
    let method: any MergeMethod.Type

    func warnings() -> [TesseraError] {
        sorted(scopes.flatMap { unknown(in: $0) } + sources.flatMap { misplaced(in: $0) })
    }

    /// Values that the method cannot take, one complaint for each setting, however many layers and tensors it is for, and values
    /// that it needs and that are written nowhere.
    func problems() -> [TesseraError] {
        sorted(
            MissingParameters(recipe: recipe, method: method).problems()
                + scopes.flatMap { scope in
                    method.recipeParameters.compactMap { parameter -> TesseraError? in
                        guard let setting = scope.settings[parameter.name] else { return nil }
                        for value in setting.value.scalars {
                            if case .failure(let complaint) = parameter.convert(value) {
                                return told(complaint.problem, setting.line, complaint.advice ?? parameter.advice)
                            }
                        }
                        return nil
                    }
                })
    }

    /// Filters that fit none of the tensors, by whichever of their names.
    ///
    /// - Throws: what `Effort.spend()` throws.
    func uselessFilters(_ specs: [OutputTensorSpec]) throws(TesseraError) -> [TesseraError] {
        // A recipe may repeat a filter thousands of times, and a model has tens of thousands of names.
        var known: [ExactText: Bool] = [:]
        var useless: [(filter: String, line: Int)] = []
        for condition in conditions {
            guard let filter = condition.filter else { continue }
            try Effort.spend()
            let isUseless =
                known[ExactText(filter)]
                ?? !specs.contains { spec in condition.fits(spec.name) || spec.sources.contains { condition.fits($0.name) } }
            known[ExactText(filter)] = isUseless
            if isUseless { useless.append((filter, condition.line)) }
        }
        guard !useless.isEmpty else { return [] }
        let names = specs.flatMap { spec in [spec.name] + spec.sources.map(\.name) }
        let words = Set(names.flatMap { $0.split(separator: ".").map(String.init) }).filter { Int($0) == nil }.sorted()
        var advice: [ExactText: String] = [:], warnings: [TesseraError] = []
        for (filter, line) in useless {
            try Effort.spend()
            let found = advice[ExactText(filter)] ?? self.advice(filter, words)
            advice[ExactText(filter)] = found
            warnings.append(told("no tensor name contains '\(filter)', so the filter has no effect", line, found))
        }
        return sorted(warnings)
    }

    private func advice(_ filter: String, _ words: [String]) -> String {
        Suggestion.closest(to: filter, in: words).map { "did you mean '\($0)'?" }
            ?? "write a part of a tensor name, such as \(words.prefix(8).map { "'\($0)'" }.joined(separator: ", "))"
    }

    /// Every filter of the method's parameters, wherever it is written.
    var conditions: [ParameterSetting.Condition] {
        scopes.flatMap { scope in method.recipeParameters.flatMap { scope.settings[$0.name]?.conditions(of: $0) ?? [] } }
    }

    /// The paths that the recipe writes for parameters that are files, in the order of their lines.
    var files: [(parameter: Parameter, path: Located<String>)] {
        let found = method.parameters.filter(\.isFile).flatMap { parameter in
            scopes.compactMap { $0.settings[parameter.name] }.flatMap { setting in
                setting.value.scalars.map { (parameter, Located("\($0)", line: setting.line)) }
            }
        }
        return found.sorted { ($0.1.line, $0.1.value) < ($1.1.line, $1.1.value) }
    }

    private var sources: [ParameterScope] { recipe.modules.flatMap(\.body.sources).map(\.parameters) }

    private var scopes: [ParameterScope] {
        let slices = recipe.modules.flatMap { module in
            if case .slices(let slices) = module.body { slices.map(\.parameters) } else { [ParameterScope]() }
        }
        return [recipe.parameters] + recipe.modules.map(\.parameters) + slices + sources
    }

    private func sorted(_ found: [TesseraError]) -> [TesseraError] {
        found.sorted { ($0.line ?? 0, $0.problem) < ($1.line ?? 0, $1.problem) }
    }

    private func unknown(in scope: ParameterScope) -> [TesseraError] {
        let known = method.recipeParameters.map(\.name)
        return scope.settings.filter { !known.contains($0.key) }.map { name, setting in
            let advice =
                Suggestion.closest(to: name, in: known).map { "did you mean '\($0)'?" }
                ?? (known.isEmpty ? "it has none" : "it has \(known.joined(separator: ", "))")
            return told("the method '\(method.name)' has no parameter '\(name)'", setting.line, advice)
        }
    }

    /// One value for a whole tensor cannot come from one of its models.
    private func misplaced(in scope: ParameterScope) -> [TesseraError] {
        method.recipeParameters.filter { $0.scope == .shared }.compactMap { parameter in
            scope.settings[parameter.name].map {
                told(
                    "'\(parameter.name)' is shared by all models; setting it for one model has no effect", $0.line,
                    "move it to the top-level 'parameters:'")
            }
        }
    }

    private func told(_ problem: String, _ line: Int, _ advice: String) -> TesseraError {
        TesseraError(.badData, problem, file: recipe.file, line: line, advice: advice)
    }
}

extension Located<ParameterSetting> {
    /// The filters of a setting; for a parameter that lists parts of tensor names, those.
    func conditions(of parameter: Parameter) -> [ParameterSetting.Condition] {
        guard parameter.kind == .tensorNames else { return value.conditions }
        return value.scalars.map { ParameterSetting.Condition(filter: "\($0)", values: .scalar($0), line: line) }
    }
}
