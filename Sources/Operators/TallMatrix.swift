import Core
import LinearAlgebra
import TensorKernels

/// A matrix with many more rows than all its task vectors together have columns, such as a vocabulary's.
///
/// The task vectors side by side are `X = [τ₁ … τ_T]` (m × p, `p = T·n`). With `X = Q·R`, where the columns of `Q` are
/// orthonormal, an equivariant method finds `Q·m(R₁ … R_T)`: p rows take the place of m. `D` are the norms of the columns of `X`:
/// `D⁻¹·XᵀX·D⁻¹ = V·Λ·Vᵀ` gives `R = Λ^½·Vᵀ·D` and `Q = X·D⁻¹·V·Λ^-½`. The update is `X·K` with `K = D⁻¹·V·Λ^-½·m(R)`, computed
/// for some rows at a time. The square root makes the result accurate to about 10⁻⁶ of the largest singular value.
struct TallMatrix: Sendable {
    private let size: MatrixSize

    /// All task vectors' columns.
    private var width: Int { size.tasks * size.columns }
    /// Of `R`.
    var reduced: MatrixSize { MatrixSize([width, size.columns], tasks: size.tasks) }

    /// - Returns: `nil` for a matrix for which this takes more memory or time.
    init?(_ size: MatrixSize) {
        let (width, overflows) = size.tasks.multipliedReportingOverflow(by: size.columns)
        guard !overflows, width <= LinearAlgebra.limit, size.rows / max(4, size.tasks) >= width else { return nil }
        self.size = size
    }

    /// - Parameter method: for the reduced matrix.
    func need(_ method: MatrixNeed) -> MatrixNeed {
        let square = width * width, product = Double(size.rows) * Double(width)
        return MatrixNeed(
            elements: 2 * square
                + max(
                    LinearAlgebra.eigenvalueWork(width) - square + rowsAtOnce * width, method.elements + reduced.area),
            operations: product * Double(width + 2 * size.columns) + reduced.eigenvalues + method.operations, passes: 2,
            memory: MemoryNeed(perThread: TallRows.elements(size, width: width) * MemoryLayout<Double>.stride) + method.memory)
    }

    /// Rows of `X` that are multiplied at once. Whole tiles hold them.
    private var rowsAtOnce: Int {
        var (a, b) = (size.columns, FixedTree.tileElements)
        while b > 0 { (a, b) = (b, a % b) }
        let step = FixedTree.tileElements / a
        return (1023 / step + 1) * step
    }

    /// The task vectors of the reduced matrix, and the way back.
    struct Reduction {
        /// `R₁ … R_T`.
        let tasks: TaskMatrices
        fileprivate let size: MatrixSize
        /// `D⁻¹·V·Λ^-½`.
        fileprivate let basis: Matrix

        /// - Parameter method: makes the update of the reduced matrix.
        /// - Returns: the update of the elements of a tile.
        func update(_ method: (TaskMatrices) throws -> Matrix) throws -> @Sendable (Tile) throws -> UnsafePointer<Double> {
            let right = try basis.view().times(method(tasks).view())
            return { [size, models = tasks.models] tile in
                let rows = tile.workspace { TallRows() }
                return try rows.values(tile, models: models, size: size, right: right)
            }
        }
    }

    func reduction(_ tensor: TensorPasses, models: [Int]) throws -> Reduction {
        let (norms, found) = try spectrum(tensor, models: models), basis = found.vectors
        let scales = Self.inverses(norms)
        // A sum of products over all rows is as exact as 1024 roundings, or as the eigenvalues of a larger matrix are.
        let roundings = Double(max(1024, width))
        let least = roundings * Double.ulpOfOne * max(0, found.values.first ?? 0)
        let roots = found.values.map { $0 > least ? $0.squareRoot() : 0 }
        let factors = try (0..<size.tasks).map { (task) throws(TesseraError) in
            let factor = try tensor.matrix(rows: width, columns: size.columns)
            for row in 0..<width {
                for column in 0..<size.columns {
                    let place = task * size.columns + column
                    factor[row, column] = roots[row] * found.vectors[place, row] * norms[place]
                }
            }
            return factor
        }
        for row in 0..<width {
            for column in 0..<width { basis[row, column] *= roots[column] > 0 ? scales[row] / roots[column] : 0 }
        }
        return Reduction(
            tasks: TaskMatrices(tensor: tensor, models: models, size: reduced, factors: factors), size: size, basis: basis)
    }

    /// The norms of the columns of `X`, and the eigenvalues of `D⁻¹·XᵀX·D⁻¹`.
    private func spectrum(_ tensor: TensorPasses, models: [Int]) throws -> (norms: [Double], found: Eigenvalues) {
        let gram = try tensor.matrix(rows: width, columns: width)
        try addGram(tensor, models: models, to: gram)
        let norms = (0..<width).map { gram[$0, $0].squareRoot() }, scales = Self.inverses(norms)
        for row in 0..<width {
            for column in 0..<width { gram[row, column] *= scales[row] * scales[column] }
        }
        return (norms, try gram.eigenvalues())
    }

    /// 0 for 0.
    private static func inverses(_ numbers: [Double]) -> [Double] { numbers.map { $0 > 0 ? 1 / $0 : 0 } }

    /// Adds `XᵀX`, some rows at a time, in order.
    private func addGram(_ tensor: TensorPasses, models: [Int], to gram: Matrix) throws {
        var row = 0
        while row < size.rows {
            try tensor.checkCancellation()
            let rows = row..<min(size.rows, row + rowsAtOnce)
            let side = try tensor.matrix(rows: rows.count, columns: width)
            try tensor.tiles.with { try side.load($0, rows: rows, models: models, columns: size.columns) }
            try side.checkFinite(columnsOfModel: size.columns)
            try gram.addGram(of: side)
            row = rows.upperBound
        }
    }
}

/// The rows of an update that a thread works on.
private final class TallRows {
    private var rows = 0..<0
    private var values: Matrix?

    /// Float64 elements of the rows that hold the elements of a chunk, of all task vectors and of the update.
    static func elements(_ size: MatrixSize, width: Int) -> Int {
        min(size.rows, ChunkRate.chunk / size.columns + 2) * (width + size.columns)
    }

    /// The update of the elements of a tile. All tiles of a chunk share a product.
    func values(_ tile: Tile, models: [Int], size: MatrixSize, right: Matrix) throws -> UnsafePointer<Double> {
        let range = tile.range
        let own = range.lowerBound / size.columns..<(range.upperBound - 1) / size.columns + 1
        if values == nil || own.lowerBound < rows.lowerBound || own.upperBound > rows.upperBound {
            values = nil
            let chunk = range.lowerBound / ChunkRate.chunk * ChunkRate.chunk
            let last = min(size.area, chunk + ChunkRate.chunk) - 1
            rows = chunk / size.columns..<last / size.columns + 1
            let space = MatrixSpace(elements: Self.elements(size, width: right.rows))
            let side = try space.matrix(rows: rows.count, columns: right.rows)
            try side.load(tile, rows: rows, models: models, columns: size.columns)
            tile.take(range)
            values = try side.view().times(right.view())
        }
        guard let first = values?.elements.baseAddress else {
            throw TesseraError(.internal, "a tile without rows of the update")
        }
        return UnsafePointer(first + (range.lowerBound - rows.lowerBound * size.columns))
    }
}

extension Matrix {
    /// Loads rows of all task vectors, side by side. Moves the tile.
    fileprivate func load(_ tile: Tile, rows: Range<Int>, models: [Int], columns: Int) throws {
        let end = rows.upperBound * columns
        for start in stride(from: rows.lowerBound * columns, to: end, by: FixedTree.tileElements) {
            tile.take(start..<min(end, start + FixedTree.tileElements))
            for (task, model) in models.enumerated() {
                let vector = try tile.taskVector(model)
                for piece in RowPieces(tile.range, length: columns) {
                    let place = (piece.row - rows.lowerBound) * self.columns + task * columns + piece.column
                    for index in 0..<piece.count { elements[place + index] = Double(vector[piece.offset + index]) }
                }
            }
        }
    }

    /// - Throws: `badData` that names the model of the first column with a value that is not finite.
    fileprivate func checkFinite(columnsOfModel count: Int) throws(TesseraError) {
        do throws(TesseraError) {
            try checkFinite()
        } catch {
            let column = (0..<columns).first { column in (0..<rows).contains { !self[$0, column].isFinite } } ?? 0
            throw error.ofModel(column / count)
        }
    }
}

extension TesseraError {
    /// The error of a matrix, which names the model whose task vector the matrix is.
    func ofModel(_ index: Int) -> TesseraError { of("the task vector of model \(index + 1)") }

    /// The error of a matrix, with words for the matrix.
    func of(_ matrix: String) -> TesseraError {
        var error = self
        error.problem = "\(matrix) \(problem)"
        return error
    }
}
