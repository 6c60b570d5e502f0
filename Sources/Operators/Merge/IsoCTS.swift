package import Core
import LinearAlgebra

/// Isotropic merging in the common and the tasks' own subspaces (Iso-CTS, arXiv 2502.04959).
///
/// With `r` the smaller side, `s = round((r − ⌊common·r⌋)/T)·T` directions are the tasks' own (half to even) and `c = r − s`
/// common: the first `c` of `Σ τₜ`, with left vectors `U_c`, and the first `s/T` of every `τₜ − U_c·U_cᵀ·τₜ`. All stand side by
/// side, are made orthonormal, and get the mean of their singular values.
package struct IsoCTS: MatrixMethod {
    package static let name = "iso_cts"
    package static let summary = "Adds common and task-specific singular vectors, all with the mean of their singular values."
    package static let parameters = MatrixRole.parameters([
        .number("common", .shared, default: 0.8, in: 0...1, "Share of the directions that are common to all tasks.")
    ])

    let role: MatrixRole
    private let common: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        common = try values.number("common")
    }

    func applies(to size: MatrixSize) -> Bool { size.rank >= size.tasks }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        var need = size.stackingNeed
        need.elements += 2 * size.factors
        need.operations += size.decomposition
        return need
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let rank = tasks.size.rank, ownTotal = Double(rank - Int(common * Double(rank)))
        let own = min(rank / tasks.count, Int((ownTotal / Double(tasks.count)).rounded(.toNearestOrEven)))
        let shared = rank - own * tasks.count
        var triplets = try StackedTriplets(rank, of: tasks)
        let sum = try tasks.sum().singularValues(first: shared), basis = sum.left.view(columns: 0..<shared)
        for index in 0..<tasks.count {
            let vector = try tasks.vector(index)
            let part = try basis.transposed.times(vector.view())
            part.add(part, scale: -2)
            try vector.assign(basis, times: part.view(), adding: true)
            triplets.append(try vector.singularValues(first: own), first: own)
        }
        triplets.append(sum, first: shared)
        let mean = triplets.values.reduce(0, +) / Double(rank)
        return try triplets.orthogonalProduct(Array(repeating: mean, count: rank))
    }
}
