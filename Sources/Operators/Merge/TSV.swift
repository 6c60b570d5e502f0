package import Core
import LinearAlgebra

/// Task singular vectors (TSV-Merge, arXiv 2412.00081).
///
/// With `r` the smaller side and `d = ⌊r/T⌋`, the first `d` singular triplets of every task vector stand side by side in `U`, `S`
/// and `V`. `U` and `V` are replaced by their nearest orthonormal matrices; `m = U·diag(S)·V`. With `isotropic`, all singular
/// values of `m` become their mean. A matrix with fewer rows or columns than tasks is none.
package struct TSV: MatrixMethod {
    package static let name = "tsv"
    package static let summary = "Adds the leading singular vectors of all task vectors, made orthogonal to each other."
    package static let parameters = MatrixRole.parameters([
        .flag("isotropic", default: false, "Replace the singular values of the update by their mean.")
    ])

    let role: MatrixRole
    private let isIsotropic: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        isIsotropic = try values.flag("isotropic")
    }

    func applies(to size: MatrixSize) -> Bool { size.rank >= size.tasks }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed { size.stackingNeed }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let share = tasks.size.rank / tasks.count
        var triplets = try StackedTriplets(share * tasks.count, of: tasks)
        for index in 0..<tasks.count { triplets.append(try tasks.vector(index).singularValues(first: share), first: share) }
        let sum = try triplets.orthogonalProduct(triplets.values)
        return isIsotropic ? try sum.isotropic() : sum
    }
}
