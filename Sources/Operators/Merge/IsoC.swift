package import Core
import LinearAlgebra

/// Isotropic merging in the common subspace (Iso-C, arXiv 2502.04959): `Σ τₜ` with all singular values replaced by their mean.
package struct IsoC: MatrixMethod {
    package static let name = "iso_c"
    package static let summary = "Adds the sum of the task vectors, with all its singular values replaced by their mean."
    package static let parameters = MatrixRole.parameters()

    let role: MatrixRole

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
    }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        MatrixNeed(elements: 2 * size.area + size.factors + size.work, operations: size.decomposition)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix { try tasks.sum().isotropic() }
}
