import Core
import LinearAlgebra

/// The method whose update another method on whole matrices begins with, with its scale: recipes name it under `of`.
struct InnerMethod: Sendable {
    /// `nil` for task arithmetic.
    private let method: (any MatrixMethod)?

    private static let taskArithmetic = "task_arithmetic"
    private static let kinds: [any MatrixMethod.Type] = [TSV.self, WUDI.self]

    static func parameter(_ summary: String) -> Parameter {
        .choice("of", of: [taskArithmetic] + kinds.map { $0.name }, default: taskArithmetic, summary)
    }

    /// - Throws: as the initializer of the method.
    init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        let name = try values.text("of"), kind = Self.kinds.first { $0.name == name }
        var complete = values
        for parameter in kind?.parameters ?? [] where complete.shared[parameter.name] == nil {
            complete.shared[parameter.name] = parameter.defaultValue
        }
        method = try kind?.init(complete, inputs: inputs)
    }

    var isTaskArithmetic: Bool { method == nil }

    /// The role in which the inner method takes part: task arithmetic adds sums at scale 0.3, the others means at scale 1.
    func role(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) -> MatrixRole {
        isTaskArithmetic
            ? try MatrixRole(values, inputs: inputs, others: .sum, lambda: 0.3) : try MatrixRole(values, inputs: inputs)
    }

    func applies(to size: MatrixSize) -> Bool { method?.applies(to: size) ?? true }
    func order(_ size: MatrixSize) -> Int { method?.order(size) ?? 0 }

    func need(_ size: MatrixSize) -> MatrixNeed {
        method?.need(size) ?? MatrixNeed(elements: 2 * size.area, operations: 0)
    }

    /// The update, without the scale.
    func update(_ tasks: TaskMatrices) throws -> Matrix { try method?.update(tasks) ?? tasks.sum() }
}
