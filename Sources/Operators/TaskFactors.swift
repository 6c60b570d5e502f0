import Core
import LinearAlgebra

/// Task vectors as products `Lₜ·Rₜ`, and a basis `U` of what all `Lₜ` span.
struct TaskFactors {
    /// `Lₜ`, m × kₜ, and `Rₜ`, kₜ × n.
    let parts: [(left: Matrix, right: Matrix)]
    /// m × p, with orthonormal columns.
    let basis: Matrix

    /// The factors of an adapter on the base, whose product is never formed; of any other model, the first singular triplets of
    /// its task vector.
    ///
    /// - Parameter limit: the number of these triplets.
    init(_ tasks: TaskMatrices, limit: Int) throws {
        var parts: [(left: Matrix, right: Matrix)] = []
        for index in 0..<tasks.count { parts.append(try tasks.factors(index, limit: limit)) }
        self.parts = parts
        let stack = try tasks.tensor.matrix(rows: tasks.size.rows, columns: parts.reduce(0) { $0 + $1.left.columns })
        var first = 0
        for (left, _) in parts {
            for row in 0..<left.rows {
                for column in 0..<left.columns { stack[row, first + column] = left[row, column] }
            }
            first += left.columns
        }
        let found = try stack.singularValues()
        basis = try found.left.firstColumns(found.values.count { $0 > found.negligible })
    }

    /// The rows of a matrix whose rows span what all `Rₜ` span, q × n and orthonormal.
    func rightBasis(_ tasks: TaskMatrices) throws -> Matrix {
        let stack = try tasks.tensor.matrix(rows: parts.reduce(0) { $0 + $1.right.rows }, columns: tasks.size.columns)
        var first = 0
        for (_, right) in parts {
            for place in 0..<right.rows * right.columns { stack.elements[first + place] = right.elements[place] }
            first += right.rows * right.columns
        }
        let found = try stack.singularValues()
        return try found.right.firstRows(found.values.count { $0 > found.negligible })
    }
}

extension TaskMatrices {
    /// - Throws: `badData` for a value that is not finite.
    fileprivate func factors(_ index: Int, limit: Int) throws -> (left: Matrix, right: Matrix) {
        if areWhole, let adapter = tensor.sources[models[index]] as? LowRankUpdate,
            let factors = try adapter.factorsOnBase(tensor.kernels)
        {
            let left = try tensor.matrix(rows: size.rows, columns: factors.rank)
            let right = try tensor.matrix(rows: factors.rank, columns: size.columns)
            for (place, value) in factors.left.enumerated() { left.elements[place] = Double(value) * factors.scale }
            for (place, value) in factors.right.enumerated() { right.elements[place] = Double(value) }
            for factor in [left, right] { try checkFinite(factor, of: index) }
            return (left, right)
        }
        let found = try vector(index).singularValues(first: limit)
        let count = min(limit, found.values.count { $0 > found.negligible })
        let left = try found.left.firstColumns(count)
        left.scaleColumns(by: Array(found.values[..<count]))
        return (left, try found.right.firstRows(count))
    }
}

extension MatrixRole {
    /// Whether no task vector has factors of its own.
    var hasNoFactors: Bool { ranks.allSatisfy { $0 == nil } }

    /// The number of columns that all `Lₜ` have together, at most.
    ///
    /// - Parameter limit: of a task vector that is no adapter's.
    func factorCount(limit: Int) -> Int { ranks.reduce(0) { $0 + ($1 ?? limit) } }

    /// Elements and operations of `TaskFactors`, and of a product of two of their matrices and the result.
    func factorNeed(_ size: MatrixSize, limit: Int) -> MatrixNeed {
        let count = factorCount(limit: limit), whole = ranks.count { $0 == nil }, sides = size.rows + size.columns
        var elements = size.area + 5 * count * sides + 3 * count * count
        elements += LinearAlgebra.singularValueWork(size.rows, count) + LinearAlgebra.singularValueWork(count, size.columns)
        if whole > 0 { elements += size.factors + size.work }
        let squares = Double(count) * Double(count)
        var operations = 16 * Double(sides) * squares + 2 * Double(size.area) * Double(count)
        operations += Double(whole) * size.decomposition
        return MatrixNeed(elements: elements, operations: operations)
    }
}

/// Merging of trimmed matrices of one size entry by entry, by elected signs (TIES, arXiv 2306.01708).
enum ElectedMean {
    /// How many entries elect plus, and how many minus.
    static func votes(_ matrices: [Matrix]) -> (plus: Int, minus: Int) {
        var votes = (plus: 0, minus: 0)
        for place in matrices.first.map({ 0..<$0.rows * $0.columns }) ?? 0..<0 {
            let sum = matrices.reduce(0) { $0 + $1.elements[place] }
            votes.plus += sum > 0 ? 1 : 0
            votes.minus += sum < 0 ? 1 : 0
        }
        return votes
    }

    /// The mean of the entries that have the sign of their sum, or the given one where that is zero. Changes the first matrix.
    static func merge(_ matrices: [Matrix], zeroIsMinus: Bool) {
        guard let first = matrices.first else { return }
        for place in 0..<first.rows * first.columns {
            let total = matrices.reduce(0) { $0 + $1.elements[place] }
            let isMinus = total < 0 || (total == 0 && zeroIsMinus)
            var sum = 0.0, count = 0.0
            for matrix in matrices where isMinus ? matrix.elements[place] < 0 : matrix.elements[place] > 0 {
                sum += matrix.elements[place]
                count += 1
            }
            first.elements[place] = count > 0 ? sum / count : 0
        }
    }
}
