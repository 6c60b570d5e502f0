import Core
import Operators
import Recipes

/// What a method needs and a recipe does not say.
struct MissingParameters {
    let recipe: Recipe
    let method: any MergeMethod.Type
    /// As `InputSet` numbers them.
    private let models: [ModelReference]

    init(recipe: Recipe, method: any MergeMethod.Type) {
        self.recipe = recipe
        self.method = method
        var seen: Set<ModelReference> = []
        models = InputSet.models(of: recipe).map(\.value).filter { seen.insert($0).inserted }
    }

    /// What is written nowhere, known without the models' tensors. What filters leave out is found tensor by tensor.
    func problems() -> [TesseraError] {
        var problems: [TesseraError] = [], seen: Set<TesseraError> = []
        for parameter in method.recipeParameters where parameter.isRequired {
            for spec in slices {
                // One mistake, however many models or slices it is about.
                for problem in self.problems(parameter, spec) where seen.insert(problem).inserted { problems.append(problem) }
            }
        }
        return problems
    }

    private func problems(_ parameter: Parameter, _ spec: OutputTensorSpec) -> [TesseraError] {
        func isSet(_ scope: ParameterScope) -> Bool {
            scope.settings[parameter.name] != nil || scope.unread.contains(parameter.name)
        }
        guard !spec.scopes.contains(where: isSet) else { return [] }
        switch parameter.scope {
        case .shared: return [problem(parameter, spec, nil)]
        case .perModel, .perInput:
            return spec.sources.enumerated()
                .filter { (parameter.scope == .perInput || $0.offset != spec.base) && !isSet($0.element.parameters) }
                .map { problem(parameter, spec, $0.element) }
        }
    }

    /// The slices of the recipe, or its whole models, as if each had one tensor without a name.
    private var slices: [OutputTensorSpec] {
        let numbers = Dictionary(uniqueKeysWithValues: models.enumerated().map { ($1, $0) })
        func spec(
            _ sources: [(model: Located<ModelReference>, parameters: ParameterScope, line: Int)], base: ModelReference?,
            _ scopes: [ParameterScope]
        ) -> OutputTensorSpec {
            OutputTensorSpec(
                slice: 0, name: "",
                sources: sources.map {
                    OutputTensorSpec.Source(
                        model: numbers[$0.model.value] ?? 0, name: "", parameters: $0.parameters, line: $0.line)
                }, base: sources.firstIndex { $0.model.value == base }, scopes: scopes, position: 0)
        }
        return recipe.modules.flatMap { module -> [OutputTensorSpec] in
            let scopes = (module.name == nil ? [] : [module.parameters]) + [recipe.parameters]
            switch module.body {
            case .models(let models):
                var sources = models.map { ($0.model, $0.parameters, $0.model.line) }
                if let base = recipe.baseModel, !models.contains(where: { $0.model.value == base.value }) {
                    sources.append((base, ParameterScope(), base.line))
                }
                return [spec(sources, base: recipe.baseModel?.value, scopes)]
            case .slices(let slices):
                return slices.map { slice in
                    spec(
                        slice.sources.map { ($0.model, $0.parameters, $0.layers?.line ?? $0.model.line) },
                        base: (slice.baseModel ?? recipe.baseModel)?.value, [slice.parameters] + scopes)
                }
            }
        }
    }

    /// Why there is no value: a slip in the name, filters that leave tensors out, or nothing was written.
    func problem(_ parameter: Parameter, _ spec: OutputTensorSpec, _ source: OutputTensorSpec.Source?) -> TesseraError {
        let name = parameter.name, scopes = (source.map { [$0.parameters] } ?? []) + spec.scopes
        let model = source.flatMap { models.indices.contains($0.model) ? "'\(models[$0.model])'" : nil }
        func problem(_ text: String, line: Int, _ advice: String) -> TesseraError {
            TesseraError(.badData, text, file: recipe.file, line: line, advice: advice)
        }
        let needs = "the method '\(method.name)' needs a value for '\(name)'"
        let known = method.recipeParameters.map(\.name)
        let slips = scopes.flatMap(\.settings).filter { word, _ in
            !known.contains(word) && Suggestion.closest(to: word, in: known) == name
        }
        if let (word, setting) = slips.min(by: { ($0.value.line, $0.key) < ($1.value.line, $1.key) }) {
            return problem("\(needs); it has no parameter '\(word)'", line: setting.line, "did you mean '\(name)'?")
        }
        if let setting = scopes.compactMap({ $0.settings[name] }).first(where: { !$0.value.conditions.isEmpty }) {
            return problem(
                "no filter of '\(name)' matches every tensor", line: setting.line,
                "add '- value: VALUE' as the last entry, for all other tensors")
        }
        if let source {
            // Left out of every model is one mistake, not one for each.
            let isForAll = spec.sources.allSatisfy { $0.parameters.settings[name] == nil }
            return problem(
                "\(needs) for \(isForAll ? "every model" : "the model \(model ?? "")")",
                line: isForAll ? recipe.method.line : source.line,
                "add '\(name): VALUE' under \(isForAll ? "the" : "its") 'parameters:'"
                    + (isForAll ? " of each" : ", or under the top-level 'parameters:'")
            )
        }
        if let misplaced = spec.sources.compactMap({ $0.parameters.settings[name] }).first {
            return problem(
                "\(needs) that applies to all models, not to one of them", line: misplaced.line,
                "move it to the top-level 'parameters:'")
        }
        return problem(needs, line: recipe.method.line, "add '\(name): VALUE' under the top-level 'parameters:'")
    }
}
