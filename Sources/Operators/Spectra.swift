import Core
import LinearAlgebra

/// Singular triplets of several matrices side by side: the left vectors are columns, the right vectors rows.
struct StackedTriplets {
    private(set) var values: [Double] = []
    /// m × k.
    private(set) var left: Matrix
    /// k × n.
    private(set) var right: Matrix

    init(_ count: Int, of tasks: TaskMatrices) throws(TesseraError) {
        left = try tasks.tensor.matrix(rows: tasks.size.rows, columns: count)
        right = try tasks.tensor.matrix(rows: count, columns: tasks.size.columns)
    }

    /// Appends the first triplets. A value that is only rounding has no vectors of its own, so zeros take their place.
    mutating func append(_ found: SingularValues, first count: Int) {
        var places: [(index: Int, place: Int)] = []
        for index in 0..<count {
            let place = values.count, hasVectors = found.values[index] > found.negligible
            values.append(hasVectors ? found.values[index] : 0)
            guard hasVectors else { continue }
            places.append((index, place))
            for column in 0..<right.columns { right[place, column] = found.right[index, column] }
        }
        for row in 0..<left.rows {
            for (index, place) in places { left[row, place] = found.left[row, index] }
        }
    }

    /// Replaces both sets of vectors by their nearest orthonormal ones.
    mutating func orthogonalize() throws(TesseraError) {
        left = try left.polar()
        right = try right.polar()
    }

    /// `P·diag(values)·Q` with the nearest orthonormal matrices `P` and `Q` of both sets of vectors, with the given values.
    ///
    /// Neither of the two is formed where their factors are exact enough: the small matrices between the vectors are multiplied
    /// first.
    consuming func orthogonalProduct(_ values: [Double]) throws(TesseraError) -> Matrix {
        guard let first = try left.polarFactor(ofColumns: true), let second = try right.polarFactor(ofColumns: false) else {
            try orthogonalize()
            left.scaleColumns(by: values)
            return try left.view().times(right.view())
        }
        first.scaleColumns(by: values)
        let core = try first.view().times(second.view())
        return left.rows < right.columns
            ? try left.view().times(core.view()).view().times(right.view())
            : try left.view().times(core.view().times(right.view()).view())
    }
}

extension MatrixSize {
    /// What one decomposition after another takes, with triplets stacked and orthogonalized.
    var stackingNeed: MatrixNeed {
        MatrixNeed(
            elements: 2 * area + 4 * factors + rank * rank + work, operations: Double(tasks + 2) * decomposition)
    }
}

extension Matrix {
    /// The matrix with all its singular values replaced by their mean. Those below 10⁻⁵ of the largest stay 0, because their
    /// vectors are undefined. The elements of the matrix are lost.
    func isotropic() throws(TesseraError) -> Matrix {
        try changingSingularValues { values in
            let least = 1e-5 * (values.first ?? 0), mean = values.reduce(0, +) / Double(max(1, values.count))
            return values.map { $0 > least ? mean : 0 }
        }
    }
}

/// `C = Σ Gₜ` and `D = Σ τₜGₜ`, where `Gₜ` stands for the second moments of what flows into the matrix of task `t`, and `Σ τₜ`.
struct GramSums {
    private let gram: Matrix
    private let target: Matrix
    private let sum: Matrix

    /// - Parameter moments: of a task vector: a matrix whose Gram matrix is taken, and the weight of that.
    init(_ tasks: TaskMatrices, _ moments: (Int, Matrix) throws -> (matrix: Matrix, weight: Double)) throws {
        let size = tasks.size
        gram = try tasks.tensor.matrix(rows: size.columns, columns: size.columns)
        target = try tasks.zeros()
        sum = try tasks.zeros()
        for index in 0..<tasks.count {
            let vector = try tasks.vector(index), (matrix, weight) = try moments(index, vector)
            let own = try tasks.tensor.matrix(rows: size.columns, columns: size.columns)
            try own.addGram(of: matrix)
            for element in own.elements.indices { own.elements[element] *= weight }
            gram.add(own)
            try target.assign(vector.view(), times: own.view(), adding: true)
            sum.add(vector)
        }
    }

    /// With the eigenvectors `q` of `C`: `Σ (a·D·q + b·S·q)·qᵀ`.
    ///
    /// - Parameters:
    ///   - other: `S`; `Σ τₜ` if there is none.
    ///   - factors: `a` and `b` for an eigenvalue and its index; values at or below `negligible` are rounding.
    consuming func solve(
        beside other: Matrix? = nil, _ factors: (_ index: Int, _ value: Double, _ negligible: Double) -> (a: Double, b: Double)
    ) throws(TesseraError) -> Matrix {
        let found = try gram.eigenvalues(), negligible = Double(gram.rows) * Double.ulpOfOne * max(0, found.values.first ?? 0)
        let solved = try target.view().times(found.vectors.view())
        let rest = try (other ?? sum).view().times(found.vectors.view())
        for (index, value) in found.values.enumerated() {
            let (a, b) = factors(index, value, negligible)
            for row in 0..<solved.rows { solved[row, index] = a * solved[row, index] + b * rest[row, index] }
        }
        return try solved.view().times(found.vectors.transposed)
    }
}

extension MatrixSize {
    /// Whether the larger side is below 20,000. The release of ACTMat and TACT leaves larger matrices, those of vocabularies, to
    /// the mean.
    var isWithinReleasedLimit: Bool { max(rows, columns) < 20_000 }

    /// What `GramSums` take.
    var gramNeed: MatrixNeed {
        MatrixNeed(
            elements: 7 * area + 2 * columns * columns + LinearAlgebra.eigenvalueWork(columns),
            operations: 2 * Double(tasks + 2) * gram + eigenvalues)
    }
}
