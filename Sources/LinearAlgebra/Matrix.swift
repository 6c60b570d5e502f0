package import Core
import Glibc
import Synchronization

/// A matrix of float64 in memory, row after row.
package final class Matrix: @unchecked Sendable {
    // Unchecked: no two threads write the same element.
    package let rows: Int
    package let columns: Int
    package let elements: UnsafeMutableBufferPointer<Double>
    let space: MatrixSpace

    fileprivate init(rows: Int, columns: Int, in space: MatrixSpace) {
        self.rows = rows
        self.columns = columns
        self.space = space
        let count = max(1, rows * columns)
        // Memory for a large matrix comes from the system, which has set it to 0 already. As everywhere in Swift, a process that
        // gets none ends.
        guard let memory = calloc(count, MemoryLayout<Double>.stride) else { abort() }
        elements = UnsafeMutableBufferPointer(start: memory.bindMemory(to: Double.self, capacity: count), count: count)
    }

    deinit {
        free(elements.baseAddress)
        space.release(rows * columns)
    }

    package subscript(row: Int, column: Int) -> Double {
        get { elements[row * columns + column] }
        set { elements[row * columns + column] = newValue }
    }

    /// `Σ xᵢⱼ²`, in the order of the elements.
    package var squaredNorm: Double { elements.reduce(0) { $0 + $1 * $1 } }

    /// A copy in the same space.
    package func copy() throws(TesseraError) -> Matrix {
        let copy = try space.matrix(rows: rows, columns: columns)
        _ = copy.elements.update(fromContentsOf: elements)
        return copy
    }

    /// A copy of the first rows, in the same space.
    package func firstRows(_ count: Int) throws(TesseraError) -> Matrix {
        let part = try space.matrix(rows: count, columns: columns)
        for place in 0..<count * columns { part.elements[place] = elements[place] }
        return part
    }

    /// A copy of the last rows, in the same space.
    func lastRows(_ count: Int) throws(TesseraError) -> Matrix {
        let part = try space.matrix(rows: count, columns: columns), first = (rows - count) * columns
        for place in 0..<count * columns { part.elements[place] = elements[first + place] }
        return part
    }

    /// A copy of the first columns, in the same space.
    package func firstColumns(_ count: Int) throws(TesseraError) -> Matrix {
        let part = try space.matrix(rows: rows, columns: count)
        for row in 0..<rows {
            for column in 0..<count { part.elements[row * count + column] = elements[row * columns + column] }
        }
        return part
    }

    /// Becomes `scale · other` in a rectangle of so many rows and columns. It begins at the given place here and with the first
    /// element there, and must be within both matrices.
    package func copy(_ other: Matrix, rows: Int, columns: Int, toRow first: Int, column: Int, scale: Double = 1) {
        for row in 0..<rows {
            let from = row * other.columns, to = (first + row) * self.columns + column
            for place in 0..<columns { elements[to + place] = scale * other.elements[from + place] }
        }
    }

    /// Adds `scale · other`.
    package func add(_ other: Matrix, scale: Double = 1) {
        for index in 0..<rows * columns { elements[index] += scale * other.elements[index] }
    }

    package func scaleColumn(_ column: Int, by factor: Double) {
        for row in 0..<rows { elements[row * columns + column] *= factor }
    }

    /// Multiplies the first columns by a factor each.
    package func scaleColumns(by factors: [Double]) {
        for row in 0..<rows {
            let first = row * columns
            for column in 0..<min(columns, factors.count) { elements[first + column] *= factors[column] }
        }
    }

    /// Multiplies the first rows by a factor each.
    package func scaleRows(by factors: [Double]) {
        for row in 0..<min(rows, factors.count) {
            let factor = factors[row]
            for place in row * columns..<(row + 1) * columns { elements[place] *= factor }
        }
    }

    /// Of each column −1 if its entry of largest magnitude, the first of equal ones, is negative, else 1.
    var signs: [Double] {
        var largest = [Double](repeating: 0, count: columns)
        for row in 0..<rows {
            let first = row * columns
            for column in 0..<columns where elements[first + column].magnitude > largest[column].magnitude {
                largest[column] = elements[first + column]
            }
        }
        return largest.map { $0 < 0 ? -1 : 1 }
    }

    /// Puts the last row first.
    func reverseRows() {
        for row in 0..<rows / 2 {
            let one = row * columns, other = (rows - 1 - row) * columns
            for column in 0..<columns { elements.swapAt(one + column, other + column) }
        }
    }

    /// Whether no element is infinite or not a number.
    var isFinite: Bool {
        // Without a branch for each element. All bits of the exponent are set in those that are not finite.
        let exponent: UInt64 = 0x7ff0_0000_0000_0000, pieces = 4096, count = rows * columns
        for start in stride(from: 0, to: count, by: pieces) {
            var found = 0
            for index in start..<min(count, start + pieces) {
                found &+= elements[index].bitPattern & exponent == exponent ? 1 : 0
            }
            guard found == 0 else { return false }
        }
        return true
    }

    /// The side of the squares that are transposed one after the other: two of them stay in the core's own cache.
    private static let transposedAtOnce = 32

    /// Calls `body` with rows and columns of one square after the other.
    private static func squares(_ rows: Int, _ columns: Int, _ body: (Range<Int>, Range<Int>) -> Void) {
        for row in stride(from: 0, to: rows, by: transposedAtOnce) {
            for column in stride(from: 0, to: columns, by: transposedAtOnce) {
                body(row..<min(rows, row + transposedAtOnce), column..<min(columns, column + transposedAtOnce))
            }
        }
    }

    /// Becomes the transpose of a matrix with as many columns as this one has rows, and the other way round.
    func assignTranspose(of other: Matrix) {
        Self.squares(rows, columns) { rows, columns in
            for row in rows {
                for column in columns { elements[row * self.columns + column] = other.elements[column * other.columns + row] }
            }
        }
    }

    /// Transposes a square matrix.
    func transposeInPlace() {
        Self.squares(rows, columns) { rows, columns in
            for row in rows {
                for column in columns where column < row {
                    elements.swapAt(row * self.columns + column, column * self.columns + row)
                }
            }
        }
    }

    /// Copies what is above the diagonal of a square matrix to below it.
    func mirrorUpperTriangle() {
        Self.squares(rows, columns) { rows, columns in
            for row in rows {
                for column in columns where column < row {
                    elements[row * self.columns + column] = elements[column * self.columns + row]
                }
            }
        }
    }
}

/// The number of float64 elements that an operation may hold in matrices at the same time.
package final class MatrixSpace: Sendable {
    private let left: Atomic<Int>

    package init(elements: Int) { left = Atomic(elements) }

    /// A matrix of zeros.
    ///
    /// - Throws: `internal` when the matrices would hold more elements than the space has.
    package func matrix(rows: Int, columns: Int) throws(TesseraError) -> Matrix {
        guard let count = Shape.elementCount([rows, columns]) else {
            throw TesseraError(.internal, "a matrix of \(rows) times \(columns) elements")
        }
        guard left.wrappingSubtract(count, ordering: .relaxed).newValue >= 0 else {
            release(count)
            throw TesseraError(.internal, "the operation holds more elements in matrices than its cost says")
        }
        return Matrix(rows: rows, columns: columns, in: self)
    }

    fileprivate func release(_ count: Int) { left.wrappingAdd(count, ordering: .relaxed) }
}

/// A rectangle of a matrix, or of its transpose, that a product reads.
package struct Submatrix {
    let matrix: Matrix
    package let rows: Int
    package let columns: Int
    /// Of the first element.
    let offset: Int
    let isTransposed: Bool

    package var transposed: Submatrix {
        Submatrix(matrix: matrix, rows: columns, columns: rows, offset: offset, isTransposed: !isTransposed)
    }
}

extension Matrix {
    /// All of it, or some of its rows and columns, which must be within the matrix.
    package func view(rows: Range<Int>? = nil, columns: Range<Int>? = nil) -> Submatrix {
        let rows = rows ?? 0..<self.rows, columns = columns ?? 0..<self.columns
        return Submatrix(
            matrix: self, rows: rows.count, columns: columns.count, offset: rows.lowerBound * self.columns + columns.lowerBound,
            isTransposed: false)
    }

    package var transposed: Submatrix { view().transposed }
}
