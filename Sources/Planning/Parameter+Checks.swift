import Operators
import Recipes

extension Parameter {
    /// The value in the parameter's own type, or what is wrong with it.
    func convert(_ value: ScalarValue) -> Result<ParameterValue, Complaint> {
        switch kind {
        case .flag:
            guard let flag = value.asBool else { return .failure(Complaint("'\(name)' is true or false, not '\(value)'")) }
            return .success(.flag(flag))
        case .number, .integer:
            guard let number = value.asDouble, number.isFinite else {
                return .failure(Complaint("'\(name)' is a number, not '\(value)'"))
            }
            guard kind == .number || number == number.rounded() else {
                return .failure(Complaint("'\(name)' is a whole number, not \(number)"))
            }
            guard range.contains(number) else { return .failure(Complaint(complaint(about: number))) }
            return .success(.number(number))
        }
    }

    /// What is wrong with a value, in words.
    struct Complaint: Error {
        let problem: String

        init(_ problem: String) { self.problem = problem }
    }
}
