package import Core
import LinearAlgebra

/// Singular value calibration (SVC, arXiv 2602.05536) of the update `m` of another method, with its scale.
///
/// With `m = U·Σ·Wᵀ`, `a_r = u_rᵀ·m` and `a_r^t = u_rᵀ·τₜ`, task `t` answers direction `r` by `s_r^t = ⟨a_r, a_r^t⟩/‖a_r^t‖²`.
/// Each singular value is multiplied by `T/Σₜ max(alpha, s_r^t)`; a task without an answer counts as `alpha`.
package struct SVC: MatrixMethod {
    package static let name = "svc"
    package static let summary = "Scales each direction of another method's update to how the tasks use it."
    package static let parameters = MatrixRole.parameters(
        [
            .choice(
                "of", of: ["task_arithmetic", TSV.name, WUDI.name], default: "task_arithmetic",
                "The method whose update is calibrated."),
            .number(
                "alpha", .shared, default: nil, in: Double.leastNonzeroMagnitude...1000,
                "The least answer of a task: 0.1 for task_arithmetic, 1 for others."),
        ], others: nil, lambda: nil)

    /// The scale is part of what is calibrated.
    package static let scale: String? = nil

    let role: MatrixRole
    private let lambda: Double
    private let alpha: Double
    /// `nil` for task arithmetic.
    private let method: (any MatrixMethod)?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        let kinds: [any MatrixMethod.Type] = [TSV.self, WUDI.self], of = try values.text("of")
        let kind = kinds.first { $0.name == of }
        var complete = values
        for parameter in kind?.parameters ?? [] where complete.shared[parameter.name] == nil {
            complete.shared[parameter.name] = parameter.defaultValue
        }
        method = try kind?.init(complete, inputs: inputs)
        role =
            if kind == nil {
                try MatrixRole(values, inputs: inputs, others: .sum, lambda: 0.3)
            } else {
                try MatrixRole(values, inputs: inputs)
            }
        lambda = role.lambdas[0]
        alpha = values.optionalNumber("alpha") ?? (kind == nil ? 0.1 : 1)
    }

    func applies(to size: MatrixSize) -> Bool { method?.applies(to: size) ?? true }

    func order(_ size: MatrixSize) -> Int { method?.order(size) ?? size.rank }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let other = method?.need(size) ?? MatrixNeed(elements: 0, operations: 0)
        return MatrixNeed(
            elements: max(other.elements, 3 * size.area + 2 * size.factors + size.work),
            operations: other.operations + size.decomposition + 2 * Double(size.tasks * size.rank) * Double(size.area),
            passes: other.passes + 1)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let found = try (method?.update(tasks) ?? tasks.sum()).singularValues()
        var sums = [Double](repeating: 0, count: found.values.count)
        for index in 0..<tasks.count {
            let answers = try found.left.transposed.times(tasks.vector(index).view())
            for row in sums.indices {
                var product = 0.0, norm = 0.0
                for column in 0..<answers.columns {
                    product += found.right[row, column] * answers[row, column]
                    norm += answers[row, column] * answers[row, column]
                }
                // The scale drops out where no answer is below alpha.
                sums[row] += norm == 0 ? alpha : max(alpha, lambda * found.values[row] * product / norm)
            }
        }
        return try found.rebuilt(with: zip(found.values, sums).map { $0 * Double(tasks.count) / $1 })
    }
}
