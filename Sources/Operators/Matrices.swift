package import Core
import Synchronization
import TensorKernels

/// A whole matrix in memory as float32, row after row, for methods that cannot work tile by tile.
package final class Matrix: @unchecked Sendable {
    // Unchecked: no two threads write the same element.
    package let rows: Int
    package let columns: Int
    package let elements: UnsafeMutableBufferPointer<Float>
    private let allowance: MatrixAllowance

    fileprivate init(rows: Int, columns: Int, from allowance: MatrixAllowance) {
        self.rows = rows
        self.columns = columns
        self.allowance = allowance
        elements = .allocate(capacity: rows * columns)
        elements.initialize(repeating: 0)
    }

    deinit {
        elements.deallocate()
        allowance.release(rows * columns)
    }

    package subscript(row: Int, column: Int) -> Float {
        get { elements[row * columns + column] }
        set { elements[row * columns + column] = newValue }
    }
}

/// The number of elements that an operation may still put into matrices (`OperatorCost.matrixElements`).
final class MatrixAllowance: Sendable {
    private let left: Atomic<Int>

    init(elements: Int) { left = Atomic(elements) }

    func take(_ count: Int) throws(TesseraError) {
        guard left.wrappingSubtract(count, ordering: .relaxed).newValue >= 0 else {
            release(count)
            throw TesseraError(.internal, "the operation holds more elements in matrices than its cost says")
        }
    }

    func release(_ count: Int) { left.wrappingAdd(count, ordering: .relaxed) }
}

extension TensorPasses {
    /// A matrix of zeros.
    ///
    /// - Throws: `internal` when the operation would hold more than its cost says (`OperatorCost.matrixElements`), for which
    ///   memory was reserved.
    package func matrix(rows: Int, columns: Int) throws(TesseraError) -> Matrix {
        guard let count = Shape.elementCount([rows, columns]) else {
            throw TesseraError(.internal, "a matrix of \(rows) times \(columns) elements")
        }
        try matrices.take(count)
        return Matrix(rows: rows, columns: columns, from: matrices)
    }

    /// A source as a matrix, whose columns are the last axis.
    ///
    /// - Throws: as `matrix(rows:columns:)`, and errors of reading the source.
    package func matrix(_ source: Int) throws -> Matrix {
        let columns = max(1, shape.last ?? 1), matrix = try matrix(rows: count / columns, columns: columns)
        guard let first = matrix.elements.baseAddress else { return matrix }
        try runner.forEach(spanCount) { [elements = Pointer(first)] span in
            try tiles.with { tile in
                for index in tiles(ofSpan: span) {
                    tile.take(tileRange(index))
                    try tile.load(source, into: elements.pointer + tile.range.lowerBound)
                }
            }
        }
        return matrix
    }

    /// Each thread writes the elements of its own tiles.
    private struct Pointer: @unchecked Sendable {
        let pointer: UnsafeMutablePointer<Float>

        init(_ pointer: UnsafeMutablePointer<Float>) { self.pointer = pointer }
    }

    /// A method that computes for long outside of passes calls this now and then.
    ///
    /// - Throws: `CancellationError` if the work was cancelled.
    package func checkCancellation() throws { try runner.checkCancellation() }
}
