import Operators
import Recipes

extension Parameter {
    /// The value in the parameter's own type, or what is wrong with it.
    func convert(_ value: ScalarValue) -> Result<ParameterValue, Complaint> {
        switch kind {
        case .flag:
            guard let flag = value.asBool else {
                return .failure(Complaint("'\(name)' is \(value.shown); it must be true or false"))
            }
            return .success(.flag(flag))
        case .choice(let words):
            guard case .string(let word) = value, words.contains(word) else {
                return .failure(Complaint("'\(name)' is \(value.shown); it must be one of \(words.joined(separator: ", "))"))
            }
            return .success(.text(word))
        case .tensorNames:
            guard case .string(let part) = value, !part.isEmpty else {
                return .failure(Complaint("'\(name)' names \(value.shown); it must name parts of tensor names"))
            }
            return .success(.text(part))
        case .tensors, .coefficients:
            guard case .string(let path) = value, !path.isEmpty else {
                return .failure(Complaint("'\(name)' is \(value.shown); it must be the path of a file"))
            }
            return .success(.text(path))
        case .number, .integer:
            guard let number = value.asDouble, number.isFinite else {
                var complaint = Complaint("'\(name)' is \(value.shown); it must be a number")
                let pointed = "\(value)".replacing(",", with: ".")
                if Double("\(value)") == nil, Double(pointed) != nil {
                    complaint.advice = "write decimals with a point: '\(name): \(pointed)'"
                }
                return .failure(complaint)
            }
            guard kind == .number || number == number.rounded() else {
                return .failure(Complaint("'\(name)' is \(number); it must be an integer"))
            }
            guard range.contains(number) else { return .failure(Complaint(complaint(about: number))) }
            return .success(.number(number))
        }
    }

    /// What is wrong with a value, in words.
    struct Complaint: Error {
        let problem: String
        /// Better than the parameter's own.
        var advice: String?

        init(_ problem: String) { self.problem = problem }
    }
}
