import Core
import Operators
import Recipes

/// Turns a recipe's parameters into the values of one method for its tensors, checked against what the method declares.
struct ParameterResolution {
    private let recipe: Recipe
    private let method: any MergeMethod.Type
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

    init(recipe: Recipe, method: any MergeMethod.Type) {
        self.recipe = recipe
        self.method = method
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
            if parameter.isRequired {
                problems.append(MissingParameters(recipe: recipe, method: method).problem(parameter, spec, source))
            }
            return parameter.defaultValue
        }
        switch parameter.convert(found.value) {
        case .success(let value): return value
        case .failure(let complaint):
            problems.append(
                TesseraError(
                    .badData, complaint.problem, file: recipe.file, line: found.line,
                    advice: complaint.advice ?? parameter.advice))
            return nil
        }
    }
}
