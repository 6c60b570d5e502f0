package import Core
import LinearAlgebra

/// Boosting of weak directions (arXiv 2506.16506), on task arithmetic.
///
/// Of `Σ τₜ`, singular values below `σ_k` are raised to it, where `k` is the first index with `σ₀ + … + σ_k ≥ beta·Σ σ`. Values
/// that are only rounding stay 0, because their vectors are undefined.
package struct SubspaceBoosting: MatrixMethod {
    package static let name = "subspace_boosting"
    package static let summary = "Adds the sum of the task vectors, with its small singular values raised."
    package static let parameters = MatrixRole.parameters(
        [.number("beta", .shared, default: 0.01, in: 0...1, "Share of the sum of singular values that is not raised.")],
        others: .sum, lambda: 0.3)

    let role: MatrixRole
    private let beta: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        beta = try values.number("beta")
    }

    static var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        MatrixNeed(elements: 2 * size.area + size.factors + size.work, operations: size.decomposition)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let found = try tasks.sum().singularValues(), total = found.values.reduce(0, +), least = found.negligible
        var sum = 0.0
        let first = found.values.firstIndex { value in
            sum += value
            return sum / total >= beta
        }
        let floor = first.map { found.values[$0] } ?? found.values.last ?? 0
        return try found.rebuilt(with: found.values.map { $0 > least ? max($0, floor) : 0 })
    }
}
