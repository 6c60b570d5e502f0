package import Core
import LinearAlgebra

/// Ridge regression of every matrix towards the update `A` of another method, with its scale. It follows BMM (arXiv 2605.12843),
/// where activations and validation data choose what is fixed here.
///
/// With `Cₜ = τₜᵀτₜ/‖τₜ‖²` and `l = ridge·tr(Σ Cₜ)/n` for `n` columns: `m = (Σ τₜCₜ + l·A)(Σ Cₜ + l·I)⁻¹`. A ridge of 0 leaves
/// `wudi`, a large one `A`.
package struct AnchoredRegression: OuterMethod {
    package static let name = "anchored_regression"
    package static let summary = "Moves another method's update towards the one that agrees best with every task vector."
    package static let parameters = MatrixRole.parameters(
        [
            InnerMethod.parameter(
                "The method whose update is the anchor.", of: [InnerMethod.taskArithmetic, TSV.name, WUDI.name]),
            .number(
                "ridge", .shared, default: 0.3, in: Double.leastNonzeroMagnitude...1e6,
                "How strongly the anchor pulls, relative to the mean of the eigenvalues."),
        ], others: nil, lambda: nil)

    /// The scale is the anchor's.
    package static let scale: String? = nil

    let inner: InnerMethod
    private let ridge: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        inner = try InnerMethod(values, inputs: inputs)
        ridge = try values.number("ridge")
    }

    var scales: [Double] { [1] }

    func order(_ size: MatrixSize) -> Int { size.gramOrder }

    func need(_ size: MatrixSize) -> MatrixNeed {
        var need = size.gramNeed
        let other = inner.need(size)
        need.elements = max(need.elements + size.area, other.elements)
        need.operations += other.operations
        need.passes += other.passes
        need.memory = need.memory + other.memory
        return need
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let anchor = try inner.update(tasks), lambda = role.lambdas[0]
        for element in anchor.elements.indices { anchor.elements[element] *= lambda }
        var moved = 0.0
        let sums = try GramSums(tasks) { _, vector in
            let norm = vector.squaredNorm
            // The trace of each task's Gram matrix is 1, or 0 for a task that did not move.
            if norm > 0 { moved += 1 }
            return (vector, norm == 0 ? 0 : 1 / norm)
        }
        let pull = ridge * moved / Double(tasks.size.columns)
        return try sums.solve(beside: anchor) { _, value, _ in
            let sum = max(0, value) + pull
            return sum == 0 ? (0, 0) : (1 / sum, pull / sum)
        }
    }
}
