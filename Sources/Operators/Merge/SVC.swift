package import Core
import LinearAlgebra

/// Singular value calibration (SVC, arXiv 2602.05536) of the update `m` of another method, with its scale.
///
/// With `m = U·Σ·Wᵀ`, `a_r = u_rᵀ·m` and `a_r^t = u_rᵀ·τₜ`, task `t` answers direction `r` by `s_r^t = ⟨a_r, a_r^t⟩/‖a_r^t‖²`.
/// Each singular value is multiplied by `T/Σₜ max(alpha, s_r^t)`; a task without an answer counts as `alpha`. The equal singular
/// values of `iso_c` leave the directions undefined: `U` and `W` are those of the sum of the task vectors.
package struct SVC: OuterMethod {
    package static let name = "svc"
    package static let summary = "Scales each direction of another method's update to how the tasks use it."
    package static let parameters = MatrixRole.parameters(
        [
            InnerMethod.parameter(
                "The method whose update is calibrated.",
                of: [InnerMethod.taskArithmetic, Ties.name, DareLinear.name, TSV.name, WUDI.name, IsoC.name]),
            .number(
                "alpha", .shared, default: nil, in: Double.leastNonzeroMagnitude...1000,
                "The least answer of a task: 1 for tsv and wudi, 0.1 for others."),
        ], others: nil, lambda: nil)

    /// The scale is part of what is calibrated.
    package static let scale: String? = nil

    /// With `dare_linear`.
    package static let isRandom = true

    let inner: InnerMethod
    private let alpha: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        inner = try InnerMethod(values, inputs: inputs)
        alpha = values.optionalNumber("alpha") ?? (inner.addsUp || inner.isIsotropic ? 0.1 : 1)
    }

    func order(_ size: MatrixSize) -> Int { max(size.rank, inner.order(size)) }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let other = inner.need(size)
        return MatrixNeed(
            elements: max(other.elements, 3 * size.area + 2 * size.factors + size.work),
            operations: other.operations + size.decomposition + 2 * Double(size.tasks * size.rank) * Double(size.area),
            passes: other.passes + 1, memory: other.memory)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let found = try (inner.isIsotropic ? tasks.sum() : inner.update(tasks)).singularValues(), lambda = role.lambdas[0]
        let values = inner.isIsotropic ? found.values.isotropic : found.values
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
                sums[row] += norm == 0 ? alpha : max(alpha, lambda * values[row] * product / norm)
            }
        }
        return try found.rebuilt(with: zip(values, sums).map { $0 * Double(tasks.count) / $1 })
    }
}
