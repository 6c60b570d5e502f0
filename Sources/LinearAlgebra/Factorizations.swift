package import Core

/// The thin singular value decomposition `left · diag(values) · right` of an m × n matrix, with `r = min(m, n)` triplets.
///
/// Values fall. Of each left vector the entry of largest magnitude, the first of equal ones, is positive, which fixes the signs.
/// The vectors of equal values are as the library finds them.
package struct SingularValues {
    /// m × r.
    package let left: Matrix
    package let values: [Double]
    /// r × n.
    package let right: Matrix

    /// The values at or below this are rounding: `max(m, n) · ε` times the largest.
    package var negligible: Double {
        Double(max(left.rows, right.columns)) * Double.ulpOfOne * (values.first ?? 0)
    }

    /// `left · diag(values) · right` with other values. Changes `left`.
    package consuming func rebuilt(with values: [Double]) throws(TesseraError) -> Matrix {
        for (column, value) in values.enumerated() { left.scaleColumn(column, by: value) }
        return try left.view(columns: 0..<values.count).times(right.view(rows: 0..<values.count))
    }
}

/// Eigenvalues, which fall, and eigenvectors, the columns of `vectors`, of a symmetric matrix.
package struct Eigenvalues {
    package let values: [Double]
    /// n × n.
    package let vectors: Matrix
}

extension Matrix {
    /// The decomposition. The elements of the matrix are lost.
    ///
    /// It comes from the eigenvectors of the smaller Gram matrix, which takes half of the time, and from LAPACK's gesdd where the
    /// smallest singular value is below 10⁻⁵ of the largest: the square would lose too many digits of its vectors.
    ///
    /// - Throws: `badData` when an element is not finite or the iteration does not end, `internal` where the space is used up or
    ///   the size is beyond `LinearAlgebra.limit`, `inputMissing` without the library.
    package func singularValues() throws(TesseraError) -> SingularValues {
        try checkFinite()
        let rank = min(rows, columns), left = try space.matrix(rows: rows, columns: rank)
        let right = try space.matrix(rows: rank, columns: columns)
        guard rank > 0 else { return SingularValues(left: left, values: [], right: right) }
        let values = if let values = try gramValues(left, right) { values } else { try gesdd(left, right) }
        for index in 0..<rank where left.isNegative(column: index) {
            left.scaleColumn(index, by: -1)
            for column in 0..<columns { right[index, column] = -right[index, column] }
        }
        return SingularValues(left: left, values: values, right: right)
    }

    /// Fills the vectors by way of the Gram matrix.
    ///
    /// - Returns: the singular values; `nil` where that is not exact enough.
    private func gramValues(_ left: Matrix, _ right: Matrix) throws(TesseraError) -> [Double]? {
        let isTall = rows >= columns, gram = try space.matrix(rows: min(rows, columns), columns: min(rows, columns))
        try gram.addGram(of: self, isTransposed: !isTall)
        // No element is larger than the largest of the diagonal.
        guard (0..<gram.rows).allSatisfy({ gram[$0, $0].isFinite }) else { return nil }
        let found = try gram.eigenvalues()
        guard let largest = found.values.first, let smallest = found.values.last, largest.isNormal,
            smallest >= LinearAlgebra.leastEigenvalue * largest
        else { return nil }
        let values = found.values.map { $0.squareRoot() }, vectors = found.vectors
        if isTall {
            try left.assign(view(), times: vectors.view())
            for (index, value) in values.enumerated() {
                left.scaleColumn(index, by: 1 / value)
                for column in 0..<columns { right[index, column] = vectors[column, index] }
            }
        } else {
            try right.assign(vectors.transposed, times: view())
            for (index, value) in values.enumerated() {
                for column in 0..<columns { right[index, column] /= value }
                for row in 0..<rows { left[row, index] = vectors[row, index] }
            }
        }
        return values
    }

    /// Fills the vectors by LAPACK's gesdd.
    private func gesdd(_ left: Matrix, _ right: Matrix) throws(TesseraError) -> [Double] {
        let rank = min(rows, columns)
        var values = [Double](repeating: 0, count: rank)
        let work = try space.matrix(rows: 1, columns: LinearAlgebra.singularValueWork(rows, columns))
        guard var m = Int32(exactly: columns), var n = Int32(exactly: rows), var r = Int32(exactly: rank),
            var workCount = Int32(exactly: work.columns), let a = elements.baseAddress, let u = left.elements.baseAddress,
            let v = right.elements.baseAddress, let scratch = work.elements.baseAddress
        else { throw TesseraError(.internal, "a decomposition of \(rows) x \(columns) elements") }
        let library = try OpenBLAS.loaded.get()
        var integers = [Int32](repeating: 0, count: 8 * rank), info: Int32 = 0
        // LAPACK goes column by column, so it sees the transpose: its left vectors are our right ones.
        var stride = m, leftStride = m, rightStride = r
        library.gesdd(
            "S", &m, &n, a, &stride, &values, v, &leftStride, u, &rightStride, scratch, &workCount, &integers, &info, 1)
        r = info
        guard r == 0 else {
            throw TesseraError(r < 0 ? .internal : .badData, "the singular value decomposition does not converge (\(r))")
        }
        return values
    }

    /// Eigenvalues and eigenvectors of a symmetric matrix (LAPACK's syevd), which becomes the eigenvectors. Of each the entry of
    /// largest magnitude is positive.
    ///
    /// - Throws: as `singularValues`.
    package func eigenvalues() throws(TesseraError) -> Eigenvalues {
        try checkFinite()
        let work = try space.matrix(rows: 1, columns: LinearAlgebra.eigenvalueWork(rows))
        var values = [Double](repeating: 0, count: rows)
        guard rows == columns, var n = Int32(exactly: rows), var workCount = Int32(exactly: work.columns),
            var integerCount = Int32(exactly: 3 + 5 * rows), let a = elements.baseAddress,
            let scratch = work.elements.baseAddress
        else { throw TesseraError(.internal, "eigenvalues of \(rows) x \(columns) elements") }
        guard n > 0 else { return Eigenvalues(values: [], vectors: self) }
        let library = try OpenBLAS.loaded.get()
        var integers = [Int32](repeating: 0, count: 3 + 5 * rows), info: Int32 = 0, stride = n
        library.syevd(
            "V", "U", &n, a, &stride, &values, scratch, &workCount, &integers, &integerCount, &info, 1, 1)
        guard info == 0 else {
            throw TesseraError(info < 0 ? .internal : .badData, "the search for eigenvalues does not converge (\(info))")
        }
        // LAPACK leaves the vectors in its columns, our rows, and the values rising.
        for row in 0..<rows / 2 { swapRows(row, rows - 1 - row) }
        for row in 0..<rows {
            for column in 0..<row { swap(row * columns + column, column * columns + row) }
        }
        for column in 0..<columns where isNegative(column: column) { scaleColumn(column, by: -1) }
        return Eigenvalues(values: values.reversed(), vectors: self)
    }

    /// The `X` with `X · self = right`, which becomes `X`. The elements of this matrix are lost (LAPACK's gesv).
    ///
    /// - Returns: `false` for a matrix that is exactly singular, which leaves `right` as it was.
    /// - Throws: as `singularValues`.
    package func solve(into right: Matrix) throws(TesseraError) -> Bool {
        try checkFinite()
        guard rows == columns, right.columns == rows, var n = Int32(exactly: rows), var count = Int32(exactly: right.rows),
            let a = elements.baseAddress, let b = right.elements.baseAddress
        else { throw TesseraError(.internal, "a system of \(rows) x \(columns) elements") }
        guard n > 0, count > 0 else { return true }
        // Column by column, LAPACK sees both transposed: selfᵀ · Xᵀ = rightᵀ.
        var pivots = [Int32](repeating: 0, count: rows), info: Int32 = 0, stride = n, rightStride = n
        try OpenBLAS.loaded.get().gesv(&n, &count, a, &stride, &pivots, b, &rightStride, &info)
        guard info >= 0 else { throw TesseraError(.internal, "the solver refuses argument \(-info)") }
        return info == 0
    }

    /// The `X` with `X · self = right`, which becomes `X`, for a symmetric positive definite matrix: by its Cholesky factor
    /// (LAPACK's posv). The elements of this matrix are lost.
    ///
    /// - Throws: as `singularValues`; `badData` for a matrix that is not positive definite.
    package func solvePositiveDefinite(into right: Matrix) throws(TesseraError) {
        try checkFinite()
        guard rows == columns, right.columns == rows, var n = Int32(exactly: rows), var count = Int32(exactly: right.rows),
            let a = elements.baseAddress, let b = right.elements.baseAddress
        else { throw TesseraError(.internal, "a system of \(rows) x \(columns) elements") }
        guard n > 0, count > 0 else { return }
        // Column by column, LAPACK sees both transposed. The matrix is its own transpose.
        var info: Int32 = 0, stride = n, rightStride = n
        try OpenBLAS.loaded.get().posv("L", &n, &count, a, &stride, b, &rightStride, &info, 1)
        guard info >= 0 else { throw TesseraError(.internal, "the solver refuses argument \(-info)") }
        guard info == 0 else {
            throw TesseraError(
                .badData, "is not positive definite: the determinant of its first \(info) of \(n) rows and columns is not above 0"
            )
        }
    }

    /// The nearest matrix whose columns, or rows if there are fewer of them, are orthonormal: `P·Qᵀ` of `P·Σ·Qᵀ`. Directions
    /// with less than 10⁻¹⁰ of the largest singular value are left out: between vectors that are equal but for rounding, they are
    /// arbitrary. The elements of the matrix are lost.
    package func polar() throws(TesseraError) -> Matrix {
        let found = try singularValues(), least = 1e-10 * (found.values.first ?? 0)
        return try found.rebuilt(with: found.values.map { $0 > least ? 1 : 0 })
    }

    /// - Throws: `badData` when an element is infinite or not a number: LAPACK may loop for ever over those.
    package func checkFinite() throws(TesseraError) {
        guard elements.prefix(rows * columns).allSatisfy(\.isFinite) else {
            throw TesseraError(
                .badData, "has values that are infinite or not a number, which no matrix can be decomposed with",
                advice: "repair the model, or leave the tensor out")
        }
    }

    /// Whether the entry of largest magnitude, the first of equal ones, is negative.
    private func isNegative(column: Int) -> Bool {
        var largest = 0.0
        for row in 0..<rows where self[row, column].magnitude > largest.magnitude { largest = self[row, column] }
        return largest < 0
    }

    private func swapRows(_ one: Int, _ other: Int) {
        for column in 0..<columns { swap(one * columns + column, other * columns + column) }
    }

    private func swap(_ one: Int, _ other: Int) { elements.swapAt(one, other) }
}

extension LinearAlgebra {
    /// Float64 elements that `singularValues` works with besides the matrix and the result. The blocks of LAPACK are at most 64
    /// wide.
    package static func singularValueWork(_ rows: Int, _ columns: Int) -> Int {
        let rank = min(rows, columns)
        return 4 * rank * rank + 7 * rank + 64 * (rows + columns)
    }

    /// Float64 elements that `eigenvalues` works with besides the matrix.
    package static func eigenvalueWork(_ size: Int) -> Int { 1 + 6 * size + 2 * size * size }

    /// The least eigenvalue of a Gram matrix, relative to the largest, of which singular vectors are taken.
    static let leastEigenvalue = 1e-10

    /// The largest number of rows or columns, whichever is smaller, whose work LAPACK can count in 32 bits.
    package static let limit = 23_000
}
