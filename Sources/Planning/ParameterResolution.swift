import Core
import Operators
import Recipes

/// Turns a recipe's parameters into the values of one method for its tensors, checked against what the method declares.
struct ParameterResolution {
    private let recipe: Recipe
    private let method: any MergeMethod.Type
    private let inputs: InputSet
    private let filters: [ParameterSetting.Condition]
    /// Many tensors have the same values.
    private var known: [Key: ParameterValues] = [:]

    /// Everything that the values of a tensor depend on.
    private struct Key: Hashable {
        let slice: Int
        let models: [Int]
        let position: Double
        /// Whether each filter fits the output's name, and the name that the tensor has in each model.
        let fits: [Bool]
    }

    init(recipe: Recipe, method: any MergeMethod.Type, inputs: InputSet) {
        self.recipe = recipe
        self.method = method
        self.inputs = inputs
        filters = ParameterNames(recipe: recipe, method: method).conditions
    }

    /// The values for the spec's sources, all of which the models have, with which the method has been bound to see whether they
    /// go together.
    mutating func boundValues(for spec: OutputTensorSpec) throws(Problems) -> ParameterValues {
        let key = Key(
            slice: spec.slice, models: spec.sources.map(\.model), position: spec.position,
            fits: filters.flatMap { filter in [filter.fits(spec.name)] + spec.sources.map { filter.fits($0.name) } })
        if let values = known[key] { return values }
        let values = try values(for: spec)
        do throws(TesseraError) {
            let base = method.inputs.givesBaseARole ? spec.base : nil
            _ = try method.init(values, inputs: TensorInputs(count: spec.sources.count, base: base))
        } catch {
            // Values that contradict each other do so in every tensor: the last of them is where to look.
            throw Problems([
                TesseraError(
                    .badData, error.problem, file: recipe.file,
                    line: spec.lastLine(of: method.recipeParameters) ?? recipe.method.line, advice: error.advice)
            ])
        }
        known[key] = values
        return values
    }

    /// Of a source's parameters the nearest wins: model, slice, module, recipe; then the method's default.
    private func values(for spec: OutputTensorSpec) throws(Problems) -> ParameterValues {
        var values = ParameterValues(perInput: Array(repeating: [:], count: spec.sources.count))
        var problems: [TesseraError] = []
        for parameter in method.recipeParameters {
            switch parameter.scope {
            case .shared where parameter.kind == .tensorNames:
                let setting = spec.scopes.lazy.compactMap { $0.settings[parameter.name] }.first
                values.shared[parameter.name] =
                    setting.map { ParameterValue.flag($0.conditions(of: parameter).contains { $0.fits(spec.name) }) }
                    ?? parameter.defaultValue
            case .shared:
                values.shared[parameter.name] = check(spec.value(parameter.name), parameter, spec, nil, &problems)
            case .perModel, .perInput:
                for (index, source) in spec.sources.enumerated() where parameter.scope == .perInput || index != spec.base {
                    let found = spec.value(parameter.name, of: source)
                    values.perInput[index][parameter.name] = check(found, parameter, spec, source, &problems)
                }
            }
        }
        if problems.isEmpty, let found = LayerScaling.apply(to: &values, of: method, at: spec.position) {
            let line = spec.value(LayerScale.alpha)?.line ?? spec.value(LayerScale.beta)?.line
            problems.append(TesseraError(.badData, found.problem, file: recipe.file, line: line, advice: found.advice))
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return values
    }

    /// The value in the parameter's own type, or a complaint.
    private func check(
        _ found: Located<ScalarValue>?, _ parameter: Parameter, _ spec: OutputTensorSpec, _ source: OutputTensorSpec.Source?,
        _ problems: inout [TesseraError]
    ) -> ParameterValue? {
        guard let found else {
            if parameter.isRequired { problems.append(missing(parameter, spec, source)) }
            return parameter.defaultValue
        }
        switch parameter.convert(found.value) {
        case .success(let value): return value
        case .failure(let complaint):
            problems.append(
                TesseraError(.badData, complaint.problem, file: recipe.file, line: found.line, advice: parameter.advice))
            return nil
        }
    }

    /// Why there is no value: a slip in the name, filters that leave tensors out, or nothing was written.
    private func missing(_ parameter: Parameter, _ spec: OutputTensorSpec, _ source: OutputTensorSpec.Source?) -> TesseraError {
        let name = parameter.name, scopes = (source.map { [$0.parameters] } ?? []) + spec.scopes
        let model = source.map { "'\(inputs.inputs[$0.model].reference)'" }
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
