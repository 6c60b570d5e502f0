package import Core
import LinearAlgebra

/// Centred task vectors of low rank (CART, arXiv 2412.12153).
///
/// With `τ̄` the mean of the task vectors: `m = τ̄ + inner·Σ [τₜ − τ̄]ₖ`, where `[·]ₖ` keeps the first `k = ⌈rank_share·r⌉`
/// singular triplets and `r` is the smaller side.
package struct CART: MatrixMethod {
    package static let name = "cart"
    package static let summary = "Adds the mean of the task vectors and the leading singular vectors of what differs from it."
    package static let parameters = MatrixRole.parameters([
        .number("rank_share", .shared, default: 0.04, in: 0...1, "Share of the singular triplets that is kept."),
        .number("inner", .shared, default: 0.1, "Scales what differs from the mean."),
    ])

    let role: MatrixRole
    private let share: Double
    private let inner: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        share = try values.number("rank_share")
        inner = try values.number("inner")
    }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        MatrixNeed(
            elements: 3 * size.area + size.factors + size.work, operations: Double(size.tasks) * size.decomposition, passes: 2)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let mean = try tasks.sum()
        for element in mean.elements.indices { mean.elements[element] /= Double(tasks.count) }
        let update = try mean.copy(), kept = Int((share * Double(tasks.size.rank)).rounded(.up))
        for index in 0..<tasks.count where kept > 0 {
            let vector = try tasks.vector(index)
            vector.add(mean, scale: -1)
            let found = try vector.singularValues(first: kept)
            found.left.scaleColumns(by: found.values[..<kept].map { inner * $0 })
            try update.assign(found.left.view(columns: 0..<kept), times: found.right.view(rows: 0..<kept), adding: true)
        }
        return update
    }
}
