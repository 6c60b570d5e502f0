import Core
import LinearAlgebra

/// Singular triplets of several matrices side by side: the left vectors are columns, the right vectors rows.
struct StackedTriplets {
    private(set) var values: [Double] = []
    /// m × k.
    private(set) var left: Matrix
    /// k × n.
    private(set) var right: Matrix

    init(_ count: Int, of tasks: TaskMatrices) throws(TesseraError) {
        left = try tasks.tensor.matrix(rows: tasks.size.rows, columns: count)
        right = try tasks.tensor.matrix(rows: count, columns: tasks.size.columns)
    }

    /// Appends the first triplets. A value that is only rounding has no vectors of its own, so zeros take their place.
    mutating func append(_ found: SingularValues, first count: Int) {
        let first = values.count, known = found.values.prefix(count).count { $0 > found.negligible }
        values += found.values[..<known] + Array(repeating: 0, count: count - known)
        right.copy(found.right, rows: known, columns: right.columns, toRow: first, column: 0)
        left.copy(found.left, rows: left.rows, columns: known, toRow: 0, column: first)
    }

    /// Replaces both sets of vectors by their nearest orthonormal ones.
    mutating func orthogonalize() throws(TesseraError) {
        left = try left.polar()
        right = try right.polar()
    }

    /// `P·diag(values)·Q` with the nearest orthonormal matrices `P` and `Q` of both sets of vectors, with the given values.
    ///
    /// Neither of the two is formed where their factors are exact enough: the small matrices between the vectors are multiplied
    /// first.
    consuming func orthogonalProduct(_ values: [Double]) throws(TesseraError) -> Matrix {
        guard let first = try left.polarFactor(ofColumns: true), let second = try right.polarFactor(ofColumns: false) else {
            try orthogonalize()
            left.scaleColumns(by: values)
            return try left.view().times(right.view())
        }
        first.scaleColumns(by: values)
        let core = try first.view().times(second.view())
        return left.rows < right.columns
            ? try left.view().times(core.view()).view().times(right.view())
            : try left.view().times(core.view().times(right.view()).view())
    }
}

extension MatrixSize {
    /// What one decomposition after another takes, with triplets stacked and orthogonalized.
    var stackingNeed: MatrixNeed {
        MatrixNeed(
            elements: 2 * area + 4 * factors + rank * rank + work, operations: Double(tasks + 2) * decomposition)
    }
}

extension Matrix {
    /// The matrix with all its singular values replaced by their mean. Those below 10⁻⁵ of the largest stay 0, because their
    /// vectors are undefined. The elements of the matrix are lost.
    func isotropic() throws(TesseraError) -> Matrix {
        try changingSingularValues { $0.isotropic }
    }
}

extension [Double] {
    /// Of singular values, which fall: what `Matrix.isotropic` makes of them.
    var isotropic: [Double] {
        let least = 1e-5 * (first ?? 0), mean = reduce(0, +) / Double(Swift.max(1, count))
        return map { $0 > least ? mean : 0 }
    }
}
