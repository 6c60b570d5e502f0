package import Core

/// The thin singular value decomposition `left · diag(values) · right` of an m × n matrix with `r = min(m, n)` values, and the
/// vectors of the first `k` of them.
///
/// Values fall. Of each left vector the entry of largest magnitude, the first of equal ones, is positive, which fixes the signs.
/// The vectors of equal values are as the library finds them.
package struct SingularValues {
    /// m × k.
    package let left: Matrix
    package let values: [Double]
    /// k × n.
    package let right: Matrix

    /// The values at or below this are rounding: `max(m, n) · ε` times the largest.
    package var negligible: Double {
        Double(max(left.rows, right.columns)) * Double.ulpOfOne * (values.first ?? 0)
    }

    /// `left · diag(values) · right` with other values. Changes `left`.
    package consuming func rebuilt(with values: [Double]) throws(TesseraError) -> Matrix {
        left.scaleColumns(by: values)
        return try left.view(columns: 0..<values.count).times(right.view(rows: 0..<values.count))
    }

    /// With the vectors of the first so many values only.
    fileprivate consuming func first(_ count: Int) throws(TesseraError) -> SingularValues {
        guard count < values.count else { return self }
        return SingularValues(left: try left.firstColumns(count), values: values, right: try right.firstRows(count))
    }
}

/// Eigenvalues, which fall, and eigenvectors, the columns of `vectors`, of a symmetric matrix.
package struct Eigenvalues {
    package let values: [Double]
    /// n × n.
    package let vectors: Matrix
}

extension Matrix {
    /// The decomposition, with the vectors of the first so many values only. The elements of the matrix are lost.
    ///
    /// It comes from the eigenvectors of the smaller Gram matrix, which takes half of the time, and from LAPACK's gesdd where one
    /// of these values is below 10⁻⁵ of the largest: the square would lose too many digits of its vectors.
    ///
    /// - Throws: `badData` when an element is not finite or the iteration does not end, `internal` where the space is used up or
    ///   the size is beyond `LinearAlgebra.limit`, `inputMissing` without the library.
    package func singularValues(first count: Int = .max) throws(TesseraError) -> SingularValues {
        let rank = min(rows, columns), count = max(0, min(rank, count))
        guard rank > 0 else {
            return SingularValues(
                left: try space.matrix(rows: rows, columns: 0), values: [], right: try space.matrix(rows: 0, columns: columns))
        }
        let found = if let found = try gramTriplets(count) { found } else { try gesdd().first(count) }
        let signs = found.left.signs
        found.left.scaleColumns(by: signs)
        found.right.scaleRows(by: signs)
        return found
    }

    /// The triplets by way of the Gram matrix; `nil` where that is not exact enough.
    private func gramTriplets(_ count: Int) throws(TesseraError) -> SingularValues? {
        let isTall = rows >= columns
        guard let (values, vectors) = try gramSpectrum(ofColumns: isTall, first: count) else { return nil }
        let inverses = values[..<count].map { 1 / $0 }
        vectors.reverseRows()
        if isTall {
            let left = try view().times(vectors.transposed)
            left.scaleColumns(by: inverses)
            return SingularValues(left: left, values: values, right: vectors)
        }
        let right = try vectors.view().times(view()), left = try space.matrix(rows: rows, columns: count)
        right.scaleRows(by: inverses)
        left.assignTranspose(of: vectors)
        return SingularValues(left: left, values: values, right: right)
    }

    /// Singular values, which fall, and the first eigenvectors of a Gram matrix as rows, that of the largest value last.
    ///
    /// - Parameters:
    ///   - ofColumns: whether the Gram matrix is `AᵀA`, not `A·Aᵀ`.
    ///   - count: of the vectors, at most as many as there are singular values.
    /// - Returns: `nil` where they are not exact enough.
    func gramSpectrum(ofColumns: Bool, first count: Int) throws(TesseraError) -> (values: [Double], vectors: Matrix)? {
        let gram = try gram(ofColumns: ofColumns)
        // The elements of the matrix are finite if their squares are, and none of the Gram matrix exceeds the largest of its
        // diagonal.
        guard (0..<gram.rows).allSatisfy({ gram[$0, $0].isFinite }) else { return nil }
        let (rising, vectors) = try gram.risingEigenvalues(last: count)
        guard let largest = rising.last, largest.isNormal,
            rising[rising.count - max(1, count)] >= LinearAlgebra.leastEigenvalue * largest
        else { return nil }
        return (rising.reversed().prefix(min(rows, columns)).map { max(0, $0).squareRoot() }, vectors)
    }

    /// `AᵀA`, or `A·Aᵀ`; the smaller of the two if nothing is said.
    package func gram(ofColumns: Bool? = nil) throws(TesseraError) -> Matrix {
        let ofColumns = ofColumns ?? (rows >= columns), size = ofColumns ? columns : rows
        let gram = try space.matrix(rows: size, columns: size)
        try gram.addGram(of: self, isTransposed: !ofColumns)
        return gram
    }

    /// The decomposition by LAPACK's gesdd.
    private func gesdd() throws(TesseraError) -> SingularValues {
        let rank = min(rows, columns)
        try checkFinite()
        let left = try space.matrix(rows: rows, columns: rank), right = try space.matrix(rows: rank, columns: columns)
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
        return SingularValues(left: left, values: values, right: right)
    }

    /// Eigenvalues and eigenvectors of a symmetric matrix, whose elements are lost. Of each vector the entry of largest magnitude
    /// is positive.
    ///
    /// - Throws: as `singularValues`.
    package func eigenvalues() throws(TesseraError) -> Eigenvalues {
        try checkFinite()
        let (values, vectors) = try risingEigenvalues(last: rows)
        vectors.reverseRows()
        vectors.transposeInPlace()
        vectors.scaleColumns(by: vectors.signs)
        return Eigenvalues(values: values.reversed(), vectors: vectors)
    }

    /// The eigenvalues of a symmetric matrix, which fall. The elements of the matrix are lost.
    ///
    /// - Throws: as `singularValues`.
    package func eigenvaluesAlone() throws(TesseraError) -> [Double] {
        try checkFinite()
        let work = try space.matrix(rows: 1, columns: LinearAlgebra.eigenvalueWork(rows, vectors: false))
        var values = [Double](repeating: 0, count: rows), integers: [Int32] = [0]
        guard rows == columns, var n = Int32(exactly: rows), var workCount = Int32(exactly: work.columns),
            let a = elements.baseAddress, let scratch = work.elements.baseAddress
        else { throw TesseraError(.internal, "eigenvalues of \(rows) x \(columns) elements") }
        guard n > 0 else { return [] }
        var info: Int32 = 0, stride = n, integerCount: Int32 = 1
        try OpenBLAS.loaded.get().syevd(
            "N", "U", &n, a, &stride, &values, scratch, &workCount, &integers, &integerCount, &info, 1, 1)
        try Self.checkConvergence(info)
        return values.reversed()
    }

    /// All eigenvalues of a symmetric matrix of finite elements, which rise, and the eigenvectors of the last of them, as rows.
    /// The elements of the matrix are lost.
    ///
    /// These are the steps of LAPACK's syevd, of which the last one, which turns eigenvectors of a tridiagonal matrix into those
    /// of this matrix, is taken for the vectors that are asked for.
    private func risingEigenvalues(last count: Int) throws(TesseraError) -> (values: [Double], vectors: Matrix) {
        let all = try space.matrix(rows: rows, columns: rows)
        let work = try space.matrix(rows: 1, columns: LinearAlgebra.eigenvalueWork(rows) - rows * rows)
        guard rows == columns, count <= rows, var n = Int32(exactly: rows), var workCount = Int32(exactly: work.columns),
            var integerCount = Int32(exactly: 3 + 5 * rows), var wanted = Int32(exactly: count), let a = elements.baseAddress,
            let z = all.elements.baseAddress, let scratch = work.elements.baseAddress
        else { throw TesseraError(.internal, "eigenvalues of \(rows) x \(columns) elements") }
        guard n > 0 else { return ([], all) }
        let library = try OpenBLAS.loaded.get(), scale = scaleToMiddle()
        var values = [Double](repeating: 0, count: rows), besideDiagonal = values, factors = values
        var integers = [Int32](repeating: 0, count: 3 + 5 * rows), info: Int32 = 0, stride = n, vectorStride = n
        library.sytrd("U", &n, a, &stride, &values, &besideDiagonal, &factors, scratch, &workCount, &info, 1)
        try Self.checkConvergence(info)
        // LAPACK leaves the vectors in its columns, our rows.
        library.stedc(
            "I", &n, &values, &besideDiagonal, z, &vectorStride, scratch, &workCount, &integers, &integerCount, &info, 1)
        try Self.checkConvergence(info)
        let last = z + (rows - count) * rows
        library.ormtr(
            "L", "U", "N", &n, &wanted, a, &stride, &factors, last, &vectorStride, scratch, &workCount, &info, 1, 1, 1)
        try Self.checkConvergence(info)
        return (values.map { $0 / scale }, count == rows ? all : try all.lastRows(count))
    }

    /// Multiplies a matrix of very large or very small elements by a power of two, so that squares of its elements are normal.
    ///
    /// - Returns: the power.
    private func scaleToMiddle() -> Double {
        let largest = elements.reduce(0) { max($0, $1.magnitude) }
        guard largest > 0, !(1e-140...1e140).contains(largest) else { return 1 }
        let scale = Double(sign: .plus, exponent: -max(-1000, min(1000, largest.exponent)), significand: 1)
        for place in elements.indices { elements[place] *= scale }
        return scale
    }

    private static func checkConvergence(_ info: Int32) throws(TesseraError) {
        guard info == 0 else {
            throw TesseraError(info < 0 ? .internal : .badData, "the search for eigenvalues does not converge (\(info))")
        }
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

    /// - Throws: `badData` when an element is infinite or not a number: LAPACK may loop for ever over those.
    package func checkFinite() throws(TesseraError) {
        guard isFinite else {
            throw TesseraError(
                .badData, "has values that are infinite or not a number, which no matrix can be decomposed with",
                advice: "repair the model, or leave the tensor out")
        }
    }
}

extension LinearAlgebra {
    /// Float64 elements that `singularValues` works with besides the matrix and the result. The blocks of LAPACK are at most 64
    /// wide.
    package static func singularValueWork(_ rows: Int, _ columns: Int) -> Int {
        let rank = min(rows, columns)
        return 4 * rank * rank + 7 * rank + 64 * (rows + columns)
    }

    /// Float64 elements that `eigenvalues` works with besides the matrix, the vectors included, or `eigenvaluesAlone`.
    package static func eigenvalueWork(_ size: Int, vectors: Bool = true) -> Int {
        vectors ? 1 + 6 * size + 2 * size * size : 1 + 2 * size
    }

    /// The least eigenvalue of a Gram matrix, relative to the largest, of which singular vectors are taken.
    static let leastEigenvalue = 1e-10

    /// The largest number of rows or columns, whichever is smaller, whose work LAPACK can count in 32 bits.
    package static let limit = 23_000
}
