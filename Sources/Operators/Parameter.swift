package import Core

/// The value of a parameter in a plan.
package enum ParameterValue: Sendable, Hashable {
    case number(Double)
    /// A number for each of several outputs, which differ in nothing else (`MergeMethod.scale`).
    case numbers([Double])
    case flag(Bool)
    case text(String)
}

extension ParameterValue: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let flag = try? container.decode(Bool.self) {
            self = .flag(flag)
        } else if let text = try? container.decode(String.self) {
            self = .text(text)
        } else if let number = try? container.decode(Double.self) {
            self = .number(number)
        } else {
            self = .numbers(try container.decode([Double].self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .number(let value): try container.encode(value)
        case .numbers(let values): try container.encode(values)
        case .flag(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        }
    }
}

/// A method's declaration of a parameter, by which recipes are checked and documentation is written.
package struct Parameter: Sendable {
    package enum Scope: Sendable, Hashable {
        /// One value per output tensor.
        case shared
        /// One value per input except the base.
        case perModel
        /// One value per input, including the base.
        case perInput
    }

    package enum Kind: Sendable, Hashable {
        case number
        /// A whole number.
        case integer
        case flag
        /// One of some words.
        case choice([String])
        /// Parts of tensor names, in which `*` stands for anything. The value for a tensor is a flag: whether its name contains
        /// one of them.
        case tensorNames
        /// The path of a checkpoint whose tensors the method is given beside the models (`GivenTensor`).
        case tensors(GivenTensors)
        /// The path of a JSON file with coefficients of each model for each tensor, which are the values of the inputs.
        case coefficients
    }

    /// What a file must hold, by the models' names of the tensors.
    package enum GivenTensors: Sendable, Hashable {
        /// For every tensor one of floating-point numbers and of the same shape.
        case everyTensor
        /// For every matrix, or for some of them, a square of floating-point numbers with its number of columns.
        case columnSquares
        /// For the tensors that need it one of integers and of the same shape: under its name, or for all tensors of a shape
        /// under the shape, such as `64x32`.
        case partitions
    }

    package let name: String
    package let scope: Scope
    package let kind: Kind
    /// `nil` for a required parameter, and for an optional one without a default (see `isRequired`).
    package let defaultValue: ParameterValue?
    package let isRequired: Bool
    /// The values that a number may have.
    package let range: ClosedRange<Double>
    package let summary: String

    private init(
        _ name: String, _ scope: Scope, _ kind: Kind, _ defaultValue: ParameterValue?, isRequired: Bool,
        range: ClosedRange<Double>, _ summary: String
    ) {
        self.name = name
        self.scope = scope
        self.kind = kind
        self.defaultValue = defaultValue
        self.isRequired = isRequired
        self.range = range
        self.summary = summary
    }

    package static let anyNumber = -Double.greatestFiniteMagnitude...Double.greatestFiniteMagnitude

    package static func required(
        _ name: String, _ scope: Scope, in range: ClosedRange<Double> = anyNumber, _ summary: String
    ) -> Parameter {
        Parameter(name, scope, .number, nil, isRequired: true, range: range, summary)
    }

    package static func number(
        _ name: String, _ scope: Scope, default value: Double?, in range: ClosedRange<Double> = anyNumber, _ summary: String
    ) -> Parameter {
        Parameter(name, scope, .number, value.map(ParameterValue.number), isRequired: false, range: range, summary)
    }

    /// Required if there is no default.
    package static func integer(
        _ name: String, _ scope: Scope, default value: Int?, in range: ClosedRange<Int>, _ summary: String
    ) -> Parameter {
        Parameter(
            name, scope, .integer, value.map { .number(Double($0)) }, isRequired: value == nil,
            range: Double(range.lowerBound)...Double(range.upperBound), summary)
    }

    /// A number greater than zero.
    package static func positive(_ name: String, _ scope: Scope, default value: Double, _ summary: String) -> Parameter {
        number(name, scope, default: value, in: Double.leastNonzeroMagnitude...Double.greatestFiniteMagnitude, summary)
    }

    /// Whether values are paths of files.
    package var isFile: Bool {
        switch kind {
        case .tensors, .coefficients: true
        case .number, .integer, .flag, .choice, .tensorNames: false
        }
    }

    /// The message for a number outside the range.
    package func complaint(about number: Double) -> String {
        let low = Self.text(range.lowerBound)
        let wanted =
            range.upperBound < Double.greatestFiniteMagnitude
            ? "from \(low) to \(Self.text(range.upperBound))"
            : range.lowerBound == Double.leastNonzeroMagnitude ? "greater than 0" : "at least \(low)"
        return "'\(name)' is \(Self.text(number)); it must be \(wanted)"
    }

    /// A number as a user would write it: `1`, not `1.0`.
    private static func text(_ number: Double) -> String { Int(exactly: number).map { "\($0)" } ?? "\(number)" }

    /// What to write instead of an invalid value.
    package var advice: String {
        let isBounded = range.lowerBound > -Double.greatestFiniteMagnitude && range.upperBound < Double.greatestFiniteMagnitude
        switch kind {
        case .choice(let words): return "write one of \(words.joined(separator: ", "))"
        case .tensorNames: return "write a list of parts of tensor names, such as '\(name): [embed_tokens, lm_head]'"
        case .tensors: return "write the path of a safetensors file, or of a directory with its parts"
        case .coefficients: return "write the path of a JSON file"
        case .flag: return "write '\(name): true' or '\(name): false'"
        case .integer: return "write an integer, such as '\(name): \(Self.text(max(1, range.lowerBound)))'"
        case .number where isBounded:
            return "write a number from \(Self.text(range.lowerBound)) to \(Self.text(range.upperBound))"
        case .number where range.lowerBound == Double.leastNonzeroMagnitude: return "write a number greater than 0"
        case .number where range.lowerBound == 0: return "write 0 or a greater number"
        case .number: return "write a number, such as '\(name): 0.5', or a list of numbers"
        }
    }

    package static func choice(_ name: String, of words: [String], default value: String?, _ summary: String) -> Parameter {
        Parameter(
            name, .shared, .choice(words), value.map(ParameterValue.text), isRequired: false, range: anyNumber, summary)
    }

    /// - Parameter value: for every tensor, where the recipe lists no names.
    package static func tensorNames(_ name: String, default value: Bool = false, _ summary: String) -> Parameter {
        Parameter(name, .shared, .tensorNames, .flag(value), isRequired: false, range: anyNumber, summary)
    }

    /// A file of tensors. Files of `partitions` are optional.
    package static func tensors(_ name: String, _ scope: Scope, of kind: GivenTensors, _ summary: String) -> Parameter {
        Parameter(name, scope, .tensors(kind), nil, isRequired: kind != .partitions, range: anyNumber, summary)
    }

    package static func coefficients(_ name: String, _ summary: String) -> Parameter {
        Parameter(name, .shared, .coefficients, nil, isRequired: true, range: anyNumber, summary)
    }

    package static func flag(_ name: String, default value: Bool, _ summary: String) -> Parameter {
        Parameter(name, .shared, .flag, .flag(value), isRequired: false, range: anyNumber, summary)
    }
}

/// The values of a method's parameters for one output tensor. The planner has checked them against the declarations.
package struct ParameterValues: Sendable, Hashable, Codable {
    package var shared: [String: ParameterValue]
    /// One entry per input, in order. The entry of a base is empty if the method has no parameters for a base.
    package var perInput: [[String: ParameterValue]]

    package init(shared: [String: ParameterValue] = [:], perInput: [[String: ParameterValue]] = []) {
        self.shared = shared
        self.perInput = perInput
    }

    /// The number of outputs that the values are for.
    package var outputCount: Int {
        shared.values.reduce(1) { if case .numbers(let numbers) = $1 { max($0, numbers.count) } else { $0 } }
    }

    /// The values of a method's scale, one for each output.
    ///
    /// - Throws: `badData` if the plan has no such number.
    package func numbers(_ name: String) throws(TesseraError) -> [Double] {
        guard let numbers = optionalNumbers(name) else { throw Self.lacking(name) }
        return numbers
    }

    /// - Returns: as `optionalNumber`.
    func optionalNumbers(_ name: String) -> [Double]? {
        switch shared[name] {
        case .number(let number): [number]
        case .numbers(let numbers) where !numbers.isEmpty: numbers
        default: nil
        }
    }

    /// - Throws: `badData` if the plan has no such number.
    package func number(_ name: String) throws(TesseraError) -> Double {
        guard case .number(let value)? = shared[name] else { throw Self.lacking(name) }
        return value
    }

    /// - Returns: `nil` if the recipe does not set the parameter and it has no default.
    func optionalNumber(_ name: String) -> Double? {
        guard case .number(let value)? = shared[name] else { return nil }
        return value
    }

    /// - Returns: as `optionalNumber`.
    func optionalText(_ name: String) -> String? {
        guard case .text(let value)? = shared[name] else { return nil }
        return value
    }

    func text(_ name: String) throws(TesseraError) -> String {
        guard let value = optionalText(name) else { throw Self.lacking(name) }
        return value
    }

    package func integer(_ name: String) throws(TesseraError) -> Int {
        guard let value = Int(exactly: try number(name)) else { throw Self.lacking(name) }
        return value
    }

    package func flag(_ name: String) throws(TesseraError) -> Bool {
        guard case .flag(let value)? = shared[name] else { throw Self.lacking(name) }
        return value
    }

    package func number(_ name: String, ofInput index: Int) throws(TesseraError) -> Double {
        guard let value = try optionalNumber(name, ofInput: index) else { throw Self.lacking(name) }
        return value
    }

    /// - Returns: `nil` if the recipe does not set the parameter and it has no default.
    package func optionalNumber(_ name: String, ofInput index: Int) throws(TesseraError) -> Double? {
        guard perInput.indices.contains(index) else { throw Self.lacking(name) }
        guard case .number(let value)? = perInput[index][name] else { return nil }
        return value
    }

    /// - Returns: `nil` if the recipe does not set the parameter.
    func optionalNumbers(_ name: String, ofInput index: Int) throws(TesseraError) -> [Double]? {
        guard perInput.indices.contains(index) else { throw Self.lacking(name) }
        guard case .numbers(let values)? = perInput[index][name] else { return nil }
        return values
    }

    private static func lacking(_ name: String) -> TesseraError {
        TesseraError(.badData, "the plan has no value for the parameter '\(name)'")
    }
}
