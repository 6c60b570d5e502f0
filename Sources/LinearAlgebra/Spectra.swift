package import Core

extension Matrix {
    /// The matrix with other singular values, none of them negative. The elements of this matrix are lost.
    ///
    /// With `A = U·Σ·Vᵀ` and more rows than columns, that is `A·(V·diag(changed/σ)·Vᵀ)`: one product with all rows where the
    /// decomposition and its inverse take two.
    ///
    /// - Parameter change: of the values, which fall. Those that become 0 may have no vectors of their own.
    /// - Throws: as `singularValues`.
    package func changingSingularValues(_ change: ([Double]) -> [Double]) throws(TesseraError) -> Matrix {
        let isTall = rows >= columns
        guard let (values, vectors) = try gramSpectrum(ofColumns: isTall, first: min(rows, columns)) else {
            let found = try singularValues(), changed = change(found.values)
            return try found.rebuilt(with: changed)
        }
        let factor = try vectors.symmetric(zip(change(values), values).map { $0 / $1 })
        return isTall ? try view().times(factor.view()) : try factor.view().times(view())
    }

    /// The nearest matrix whose columns, or rows if there are fewer of them, are orthonormal: `P·Qᵀ` of `P·Σ·Qᵀ`. Directions
    /// with less than 10⁻¹⁰ of the largest singular value are left out: between vectors that are equal but for rounding, they are
    /// arbitrary. The elements of the matrix are lost.
    ///
    /// - Throws: as `singularValues`.
    package func polar() throws(TesseraError) -> Matrix {
        try changingSingularValues { values in
            let least = 1e-10 * (values.first ?? 0)
            return values.map { $0 > least ? 1 : 0 }
        }
    }

    /// The square `K` by which the matrix becomes `polar`: `A·K`, or `K·A` for orthonormal rows.
    ///
    /// - Returns: `nil` where a singular value is too small for the way over the Gram matrix.
    /// - Throws: as `singularValues`.
    package func polarFactor(ofColumns: Bool) throws(TesseraError) -> Matrix? {
        let count = ofColumns ? columns : rows
        guard count > 0, count <= min(rows, columns),
            let (values, vectors) = try gramSpectrum(ofColumns: ofColumns, first: count)
        else { return nil }
        return try vectors.symmetric(values.map { 1 / $0 })
    }

    /// `Σ wᵢ·vᵢ·vᵢᵀ` with the rows `vᵢ`, the last of which has the first weight. No weight is negative. The elements of the
    /// matrix are lost.
    private func symmetric(_ weights: [Double]) throws(TesseraError) -> Matrix {
        scaleRows(by: weights.reversed().map { $0.squareRoot() })
        return try gram(ofColumns: true)
    }
}
