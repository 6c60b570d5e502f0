package import Core
package import TensorKernels

/// Matrices of one shape, each of which is stored transposed.
package final class TransposedMatrices: ElementSource {
    package var dtype: DType { matrices.dtype }
    package var count: Int { matrices.count }

    private let matrices: any ElementSource
    private let rows: Int
    private let columns: Int

    /// - Parameters:
    ///   - matrices: one after the other, each `[columns, rows]`.
    ///   - rows: of each matrix as it is read.
    /// - Throws: `badData` unless the elements make whole matrices.
    package init(_ matrices: any ElementSource, rows: Int, columns: Int) throws(TesseraError) {
        guard let area = Shape.elementCount([rows, columns]), area > 0, matrices.count % area == 0, matrices.dtype.isArithmetic
        else { throw TesseraError(.badData, "\(matrices.count) elements are no matrices of \(rows) x \(columns)") }
        self.matrices = matrices
        self.rows = rows
        self.columns = columns
    }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        // A stored row holds one column of the rows that are wanted.
        try forEachBand(of: range) { first, count, wanted in
            try withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { column in
                guard let values = column.baseAddress else { return }
                for index in wanted {
                    let stored = stored(first, column: index)
                    try matrices.load(stored..<stored + count, into: values, scratch: scratch, kernels: kernels)
                    for row in 0..<count { target[(first + row) * columns + index - range.lowerBound] = values[row] }
                }
            }
        }
    }

    /// Calls `body` with each set of neighbouring rows of one matrix that `range` has the same columns of: the first row,
    /// counted over all matrices, the number of rows, and the columns.
    private func forEachBand(of range: Range<Int>, _ body: (_ row: Int, _ count: Int, _ columns: Range<Int>) throws -> Void)
        rethrows
    {
        var next = range.lowerBound
        while next < range.upperBound {
            let row = next / columns, column = next % columns, whole = (range.upperBound - next) / columns
            if column > 0 || whole == 0 {
                let end = min(columns, column + range.upperBound - next)
                try body(row, 1, column..<end)
                next += end - column
            } else {
                let count = min(whole, rows - row % rows)
                try body(row, count, 0..<columns)
                next += count * columns
            }
        }
    }

    /// Where the element is stored.
    private func stored(_ row: Int, column: Int) -> Int { (row / rows * columns + column) * rows + row % rows }

    package func prefetch(_ range: Range<Int>) { if !range.isEmpty { matrices.prefetch(matrix(of: range)) } }

    /// Rows of one matrix are read from all of it, so that it is released behind its last row.
    package func release(_ range: Range<Int>) {
        let area = rows * columns, ended = range.lowerBound / area..<range.upperBound / area
        if !ended.isEmpty { matrices.release(ended.lowerBound * area..<ended.upperBound * area) }
    }

    /// The elements of all matrices that `range` touches.
    private func matrix(of range: Range<Int>) -> Range<Int> {
        let area = rows * columns
        return range.lowerBound / area * area..<(range.upperBound + area - 1) / area * area
    }

    /// The elements in the order in which they are read, in their own type.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        try copyRounded(byteRange, to: target)
    }
}
