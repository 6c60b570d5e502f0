package import Core

extension Submatrix {
    /// `self · other`.
    ///
    /// - Throws: as `Matrix.assign`, and `internal` where the space is used up.
    package func times(_ other: Submatrix) throws(TesseraError) -> Matrix {
        let result = try matrix.space.matrix(rows: rows, columns: other.columns)
        try result.assign(self, times: other)
        return result
    }
}

extension Matrix {
    /// Becomes `a · b`, or adds that to what it is.
    ///
    /// - Throws: `internal` for sizes that do not go together, `inputMissing` without the library.
    package func assign(_ a: Submatrix, times b: Submatrix, adding: Bool = false) throws(TesseraError) {
        guard a.columns == b.rows, a.rows == rows, b.columns == columns, let m = Int32(exactly: rows),
            let n = Int32(exactly: columns), let k = Int32(exactly: a.columns), let strideA = Int32(exactly: a.matrix.columns),
            let strideB = Int32(exactly: b.matrix.columns)
        else {
            throw TesseraError(.internal, "a product of \(a.rows) x \(a.columns) and \(b.rows) x \(b.columns) elements")
        }
        guard m > 0, n > 0, k > 0, let first = elements.baseAddress, let left = a.matrix.elements.baseAddress,
            let right = b.matrix.elements.baseAddress
        else { return }
        let library = try OpenBLAS.loaded.get()
        // 101: row after row; 111 and 112: as it is, transposed.
        library.gemm(
            101, a.isTransposed ? 112 : 111, b.isTransposed ? 112 : 111, m, n, k, 1, left + a.offset, strideA, right + b.offset,
            strideB, adding ? 1 : 0, first, n)
    }

    /// Adds `aᵀ · a`, or `a · aᵀ` if transposed, each product of two columns computed once. The matrix must be symmetric.
    ///
    /// - Throws: as `assign`.
    package func addGram(of a: Matrix, isTransposed: Bool = false) throws(TesseraError) {
        guard rows == columns, rows == (isTransposed ? a.rows : a.columns), let n = Int32(exactly: rows),
            let k = Int32(exactly: isTransposed ? a.columns : a.rows), let stride = Int32(exactly: a.columns)
        else { throw TesseraError(.internal, "the Gram matrix of \(a.rows) x \(a.columns) elements") }
        guard n > 0, k > 0, let first = elements.baseAddress, let values = a.elements.baseAddress else { return }
        // 101: row after row; 121: the upper triangle; 111 and 112: a · aᵀ, aᵀ · a.
        try OpenBLAS.loaded.get().syrk(101, 121, isTransposed ? 111 : 112, n, k, 1, values, stride, 1, first, n)
        mirrorUpperTriangle()
    }
}
