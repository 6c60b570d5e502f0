package import Core
import LinearAlgebra

/// Boosting of weak directions (arXiv 2506.16506) of the update of another method that adds up.
///
/// Of the update, singular values below `σ_k` are raised to it, where `k` is the first index with `σ₀ + … + σ_k ≥ beta·Σ σ`.
/// Values that are only rounding stay 0, because their vectors are undefined.
package struct SubspaceBoosting: OuterMethod {
    package static let name = "subspace_boosting"
    package static let summary = "Raises the small singular values of another method's update."
    package static let parameters = MatrixRole.parameters(
        [
            InnerMethod.parameter(
                "The method whose update is boosted.", of: [InnerMethod.taskArithmetic, Ties.name, Consensus.name]),
            .number("beta", .shared, default: 0.01, in: 0...1, "Share of the sum of singular values that is not raised."),
        ], others: nil, lambda: 0.3)

    let inner: InnerMethod
    private let beta: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        inner = try InnerMethod(values, inputs: inputs)
        beta = try values.number("beta")
    }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let other = inner.need(size)
        return MatrixNeed(
            elements: max(other.elements, 2 * size.area + size.factors + size.work),
            operations: other.operations + size.decomposition, passes: other.passes, memory: other.memory)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let found = try inner.update(tasks).singularValues(), total = found.values.reduce(0, +), least = found.negligible
        var sum = 0.0
        let first = found.values.firstIndex { value in
            sum += value
            return sum / total >= beta
        }
        let floor = first.map { found.values[$0] } ?? found.values.last ?? 0
        return try found.rebuilt(with: found.values.map { $0 > least ? max($0, floor) : 0 })
    }
}
