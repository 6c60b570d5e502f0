import Core
import LinearAlgebra

/// `C = Σ Gₜ`, `D = Σ τₜGₜ` and `S = Σ τₜ`, where `Gₜ = wₜ·MₜᵀMₜ` stands for the second moments of what flows into the matrix of
/// task `t`.
///
/// The rows `√wₜ·Mₜ` of all tasks, one below the other, are `X`: `C = XᵀX`, and `D = B·X` with the blocks `√wₜ·τₜ·Mₜᵀ` side by
/// side in `B`. Where `X` has fewer rows than columns (a wide matrix), everything follows from `X·Xᵀ`, which is smaller than `C`.
struct GramSums {
    private enum Moments {
        /// `C` and `D`.
        case square(gram: Matrix, target: Matrix)
        /// `X` and `B`.
        case stacked(rows: Matrix, left: Matrix)
    }

    private let moments: Moments
    private let sum: Matrix

    /// - Parameter moments: of a task vector: `Mₜ`, of its size, and `wₜ`, which is not negative.
    init(_ tasks: TaskMatrices, _ moments: (Int, Matrix) throws -> (matrix: Matrix, weight: Double)) throws {
        let size = tasks.size, space = tasks.tensor
        sum = try tasks.zeros()
        if size.isStacked {
            let rows = try space.matrix(rows: size.tasks * size.rows, columns: size.columns)
            let left = try space.matrix(rows: size.rows, columns: rows.rows)
            for index in 0..<tasks.count {
                let vector = try tasks.vector(index), (matrix, weight) = try moments(index, vector), root = weight.squareRoot()
                let block = try vector.view().times(matrix.transposed), first = index * size.rows
                left.copy(block, rows: size.rows, columns: size.rows, toRow: 0, column: first, scale: root)
                rows.copy(matrix, rows: size.rows, columns: size.columns, toRow: first, column: 0, scale: root)
                sum.add(vector)
            }
            self.moments = .stacked(rows: rows, left: left)
            return
        }
        let gram = try space.matrix(rows: size.columns, columns: size.columns), target = try tasks.zeros()
        for index in 0..<tasks.count {
            let vector = try tasks.vector(index), (matrix, weight) = try moments(index, vector)
            let own = try space.matrix(rows: size.columns, columns: size.columns)
            try own.addGram(of: matrix)
            for element in own.elements.indices { own.elements[element] *= weight }
            gram.add(own)
            try target.assign(vector.view(), times: own.view(), adding: true)
            sum.add(vector)
        }
        self.moments = .square(gram: gram, target: target)
    }

    /// The factors `a` and `b` for an eigenvalue and its index; values at or below `negligible` are rounding.
    typealias Factors = (_ index: Int, _ value: Double, _ negligible: Double) -> (a: Double, b: Double)

    /// With the eigenvectors `q` of `C`: `Σ (a·D·q + b·S·q)·qᵀ`.
    ///
    /// - Parameters:
    ///   - other: `S`; `Σ τₜ` if there is none.
    ///   - factors: the same `b` for all eigenvalues of 0.
    consuming func solve(beside other: Matrix? = nil, _ factors: Factors) throws(TesseraError) -> Matrix {
        let other = other ?? sum
        return switch moments {
        case .square(let gram, let target): try Self.solve(gram, target, other, factors)
        case .stacked(let rows, let left): try Self.solve(stacked: rows, left, other, factors)
        }
    }

    /// A share of the largest eigenvalue of `C`.
    private static func negligible(_ values: [Double], size: Int) -> Double {
        Double(size) * Double.ulpOfOne * max(0, values.first ?? 0)
    }

    private static func solve(
        _ gram: Matrix, _ target: Matrix, _ other: Matrix, _ factors: Factors
    ) throws(TesseraError) -> Matrix {
        let found = try gram.eigenvalues(), negligible = negligible(found.values, size: gram.rows)
        let solved = try target.view().times(found.vectors.view())
        let rest = try other.view().times(found.vectors.view())
        let pairs = found.values.enumerated().map { factors($0, $1, negligible) }
        for row in 0..<solved.rows {
            for (index, (a, b)) in pairs.enumerated() { solved[row, index] = a * solved[row, index] + b * rest[row, index] }
        }
        return try solved.view().times(found.vectors.transposed)
    }

    /// With the eigenvectors `w` of `X·Xᵀ`, whose eigenvalues `e` are those of `C`, `q = Xᵀ·w/√e`. Of all other directions
    /// `D` holds nothing, so the result is `b₀·S + Σ (a·B·w + (b − b₀)/e·(S·Xᵀ)·w)·wᵀ·X` with the `b₀` of an eigenvalue of 0.
    private static func solve(
        stacked rows: Matrix, _ left: Matrix, _ other: Matrix, _ factors: Factors
    ) throws(TesseraError) -> Matrix {
        let found = try rows.gram(ofColumns: false).eigenvalues(), vectors = found.vectors
        let negligible = negligible(found.values, size: rows.columns), rest = factors(rows.rows, 0, negligible).b
        let solved = try left.view().times(vectors.view())
        let projected = try other.view().times(rows.transposed).view().times(vectors.view())
        let pairs = found.values.enumerated().map { index, value in
            guard value > negligible else { return (a: 0.0, b: 0.0) }
            let (a, b) = factors(index, value, negligible)
            return (a, (b - rest) / value)
        }
        for row in 0..<solved.rows {
            for (index, (a, b)) in pairs.enumerated() {
                solved[row, index] = a * solved[row, index] + b * projected[row, index]
            }
        }
        let result = try solved.view().times(vectors.transposed).view().times(rows.view())
        result.add(other, scale: rest)
        return result
    }
}

extension MatrixSize {
    /// Whether the larger side is below 20,000. The release of ACTMat and TACT leaves larger matrices, those of vocabularies, to
    /// the mean.
    var isWithinReleasedLimit: Bool { max(rows, columns) < 20_000 }

    /// Whether all task vectors together have fewer rows than columns.
    var isStacked: Bool { rows < columns / tasks }

    /// The rows of the matrix of which `GramSums` find the eigenvalues.
    var gramOrder: Int { isStacked ? tasks * rows : columns }

    /// What `GramSums` take.
    var gramNeed: MatrixNeed {
        let order = gramOrder, work = LinearAlgebra.eigenvalueWork(order)
        if isStacked {
            let sides = Double(area) * Double(tasks * rows + 2 * rows), side = Double(order)
            return MatrixNeed(
                elements: (tasks + 6) * area + 6 * rows * order + rows * rows + 2 * order * order + work,
                operations: 2 * Double(tasks) * sides + 9 * side * side * side)
        }
        return MatrixNeed(
            elements: 7 * area + 2 * columns * columns + work, operations: 2 * Double(tasks + 2) * gram + eigenvalues)
    }
}
