package import Core
import LinearAlgebra

/// RegMean without data (ACTMat, arXiv 2604.01329): a task's update stands for what flows into its matrix.
///
/// With `Cₜ = τₜᵀτₜ`: `m = (Σ τₜCₜ)(Σ Cₜ)⁺`.
package struct ACTMat: MatrixMethod {
    package static let name = "actmat"
    package static let summary = "Averages the task vectors, each weighted by its own second moments."
    package static let parameters = MatrixRole.parameters()

    let role: MatrixRole

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
    }

    func applies(to size: MatrixSize) -> Bool { size.isWithinReleasedLimit }

    func order(_ size: MatrixSize) -> Int { size.gramOrder }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed { size.gramNeed }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        try GramSums(tasks) { _, vector in (vector, 1) }.solve { _, value, negligible in
            (value > negligible ? 1 / value : 0, 0)
        }
    }
}
