import Checkpoints
import Operators
import Recipes

/// Turns a recipe's parameters into the values of one method for one tensor, checked against what the method declares.
struct ParameterResolution {
    let recipe: Recipe
    let method: any MergeMethod.Type
    let inputs: InputSet

    func values(for tensor: String, at position: Double) throws(Problems) -> ParameterValues {
        var values = ParameterValues(perInput: Array(repeating: [:], count: inputs.inputs.count))
        var problems: [TesseraError] = []
        for parameter in method.parameters {
            switch parameter.scope {
            case .shared:
                let found = recipe.parameters.value(parameter.name, at: position, tensor: tensor)
                values.shared[parameter.name] = check(found, parameter, model: nil, &problems)
            case .perModel, .perInput:
                for (index, input) in inputs.inputs.enumerated() where parameter.scope == .perInput || index != inputs.base {
                    let found =
                        input.parameters.value(parameter.name, at: position, tensor: tensor)
                        ?? recipe.parameters.value(parameter.name, at: position, tensor: tensor)
                    values.perInput[index][parameter.name] = check(found, parameter, model: input, &problems)
                }
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return values
    }

    /// The value in the parameter's own type, or a complaint.
    private func check(
        _ found: Located<ScalarValue>?, _ parameter: Parameter, model: InputSet.Input?, _ problems: inout [TesseraError]
    ) -> ParameterValue? {
        guard let found else {
            if parameter.isRequired {
                let place = model.map { " for the model '\($0.reference)'" } ?? ""
                problems.append(
                    TesseraError(
                        .badData, "the method '\(method.name)' needs a value of '\(parameter.name)'\(place)", file: recipe.file,
                        line: model?.line ?? recipe.method.line,
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
