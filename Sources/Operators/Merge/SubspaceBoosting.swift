package import Core
import LinearAlgebra

/// Boosting of weak directions (arXiv 2506.16506) of the update of another method that adds up.
///
/// Of the update, singular values below `σ_k` are raised to it, where `k` is the first index with `σ₀ + … + σ_k ≥ beta·Σ σ`.
/// Values that are only rounding stay 0, because their vectors are undefined. A matrix that holds three side by side, such as the
/// queries, keys and values of an attention, is boosted in three equal parts.
package struct SubspaceBoosting: OuterMethod {
    package static let name = "subspace_boosting"
    package static let summary = "Raises the small singular values of another method's update."
    package static let parameters = MatrixRole.parameters(
        [
            InnerMethod.parameter(
                "The method whose update is boosted.", of: [InnerMethod.taskArithmetic, Ties.name, Consensus.name]),
            .number("beta", .shared, default: 0.01, in: 0...1, "Share of the sum of singular values that is not raised."),
            .tensorNames("packed_rows", "Parts of the names of matrices whose rows are three equal groups, boosted each."),
            .tensorNames("packed_columns", "The same of columns."),
        ], others: nil, lambda: 0.3)

    let inner: InnerMethod
    private let beta: Double
    private let hasPackedRows: Bool
    private let hasPackedColumns: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        inner = try InnerMethod(values, inputs: inputs)
        beta = try values.number("beta")
        hasPackedRows = try values.flag("packed_rows")
        hasPackedColumns = try values.flag("packed_columns")
    }

    /// The parts are groups of its rows, which a reduction would mix.
    var isEquivariant: Bool { inner.isEquivariant && !hasPackedRows }

    package func check(_ shape: [Int]) throws(TesseraError) {
        try checkOrder(shape)
        guard let size = matrixSize(shape) else { return }
        for (isPacked, name, count) in [(hasPackedRows, "rows", size.rows), (hasPackedColumns, "columns", size.columns)]
        where isPacked && count % Self.parts != 0 {
            throw TesseraError(
                .badData, "'packed_\(name)' names a tensor of the shape \(shape), whose \(name) are not three equal groups",
                advice: "name tensors that hold queries, keys and values of one size one after the other")
        }
    }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let other = inner.need(size)
        return MatrixNeed(
            elements: max(other.elements, 2 * size.area + size.factors + size.work),
            operations: other.operations + size.decomposition, passes: other.passes, memory: other.memory)
    }

    private static let parts = 3

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let update = try inner.update(tasks)
        guard hasPackedRows || hasPackedColumns else { return try boosted(update) }
        let rows = hasPackedRows ? update.rows / Self.parts : update.rows
        let columns = hasPackedColumns ? update.columns / Self.parts : update.columns
        for first in stride(from: 0, to: update.rows, by: rows) {
            for column in stride(from: 0, to: update.columns, by: columns) {
                let part = try tasks.tensor.matrix(rows: rows, columns: columns)
                for row in 0..<rows {
                    for place in 0..<columns { part[row, place] = update[first + row, column + place] }
                }
                update.copy(try boosted(part), rows: rows, columns: columns, toRow: first, column: column)
            }
        }
        return update
    }

    /// The elements of the matrix are lost.
    private func boosted(_ update: Matrix) throws -> Matrix {
        let found = try update.singularValues(), total = found.values.reduce(0, +), least = found.negligible
        var sum = 0.0
        let first = found.values.firstIndex { value in
            sum += value
            return sum / total >= beta
        }
        let floor = first.map { found.values[$0] } ?? found.values.last ?? 0
        return try found.rebuilt(with: found.values.map { $0 > least ? max($0, floor) : 0 })
    }
}
