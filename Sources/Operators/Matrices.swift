package import Core
package import LinearAlgebra
import TensorKernels

extension TensorPasses {
    /// A matrix of zeros.
    ///
    /// - Throws: `internal` when the operation would hold more than its cost says (`OperatorCost.matrixElements`), for which
    ///   memory was reserved.
    package func matrix(rows: Int, columns: Int) throws(TesseraError) -> Matrix {
        try matrices.matrix(rows: rows, columns: columns)
    }

    /// A source as a matrix, whose columns are the last axis.
    ///
    /// - Throws: as `matrix(rows:columns:)`, and errors of reading the source.
    package func matrix(_ source: Int) throws -> Matrix {
        try matrix(columns: max(1, shape.last ?? 1)) { try $0.source(source) }
    }

    /// A source minus the base, as a matrix of so many columns.
    ///
    /// - Throws: as `matrix(rows:columns:)`, and errors of reading the sources.
    func taskMatrix(_ source: Int, columns: Int) throws -> Matrix { try matrix(columns: columns) { try $0.taskVector(source) } }

    /// A matrix of so many columns.
    ///
    /// - Parameter values: of a tile.
    /// - Throws: as `matrix(rows:columns:)`, and errors of `values`.
    func matrix(
        columns: Int, _ values: @escaping @Sendable (Tile) throws -> UnsafeMutablePointer<Float>
    ) throws -> Matrix {
        let matrix = try matrix(rows: count / columns, columns: columns)
        guard let first = matrix.elements.baseAddress else { return matrix }
        try runner.forEach(spanCount) { [elements = Pointer(first)] span in
            try tiles.with { tile in
                for index in tiles(ofSpan: span) {
                    tile.take(tileRange(index))
                    tile.kernels.narrow(
                        try values(tile), to: .f64, elements.pointer + tile.range.lowerBound, count: tile.count)
                }
            }
        }
        return matrix
    }

    /// Each thread writes the elements of its own tiles.
    private struct Pointer: @unchecked Sendable {
        let pointer: UnsafeMutablePointer<Double>

        init(_ pointer: UnsafeMutablePointer<Double>) { self.pointer = pointer }
    }

    /// A method that computes for long outside of passes calls this now and then.
    ///
    /// - Throws: `CancellationError` if the work was cancelled.
    package func checkCancellation() throws { try runner.checkCancellation() }
}
