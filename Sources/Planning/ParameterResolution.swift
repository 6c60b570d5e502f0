import Checkpoints
import Operators
import Recipes

/// Turns a recipe's parameters into the values of one method for one tensor, checked against what the method declares.
struct ParameterResolution {
    let recipe: Recipe
    let method: any MergeMethod.Type
    let inputs: InputSet

    /// The values for the demand's sources, all of which the models have.
    ///
    /// Of a source's parameters the nearest wins: model, slice, module, recipe; then the method's default.
    func values(for demand: TensorDemand) throws(Problems) -> ParameterValues {
        var values = ParameterValues(perInput: Array(repeating: [:], count: demand.sources.count))
        var problems: [TesseraError] = []
        for parameter in method.parameters {
            switch parameter.scope {
            case .shared:
                values.shared[parameter.name] = check(demand.value(parameter.name), parameter, source: nil, &problems)
            case .perModel, .perInput:
                for (index, source) in demand.sources.enumerated() where parameter.scope == .perInput || index != demand.base {
                    let found = demand.value(parameter.name, of: source)
                    values.perInput[index][parameter.name] = check(found, parameter, source: source, &problems)
                }
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return values
    }

    /// The value in the parameter's own type, or a complaint.
    private func check(
        _ found: Located<ScalarValue>?, _ parameter: Parameter, source: TensorDemand.Source?, _ problems: inout [TesseraError]
    ) -> ParameterValue? {
        guard let found else {
            if parameter.isRequired {
                let place = source.map { " for the model '\(inputs.inputs[$0.model].reference)'" } ?? ""
                problems.append(
                    TesseraError(
                        .badData, "the method '\(method.name)' needs a value of '\(parameter.name)'\(place)", file: recipe.file,
                        line: source?.line ?? recipe.method.line,
                        advice: "add '\(parameter.name): VALUE' under its 'parameters:', or under the recipe's own"))
            }
            return parameter.defaultValue
        }
        func complain(_ problem: String) -> ParameterValue? {
            problems.append(TesseraError(.badData, problem, file: recipe.file, line: found.line))
            return nil
        }
        switch parameter.kind {
        case .flag:
            guard let flag = found.value.asBool else {
                return complain("'\(parameter.name)' is true or false, not '\(found.value)'")
            }
            return .flag(flag)
        case .number, .integer:
            guard let number = found.value.asDouble, number.isFinite else {
                return complain("'\(parameter.name)' is a number, not '\(found.value)'")
            }
            guard parameter.kind == .number || number == number.rounded() else {
                return complain("'\(parameter.name)' is a whole number, not \(number)")
            }
            guard parameter.range.contains(number) else {
                return complain(parameter.complaint(about: number))
            }
            return .number(number)
        }
    }
}
