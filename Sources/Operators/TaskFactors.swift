import Core
import LinearAlgebra
import TensorKernels

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
        let found = try Self.sideBySide(parts.map(\.left), rows: tasks.size.rows, in: tasks.tensor).singularValues()
        basis = try found.left.firstColumns(found.values.count { $0 > found.negligible })
    }

    /// The rows of a matrix whose rows span what all `Rₜ` span, q × n and orthonormal.
    func rightBasis(_ tasks: TaskMatrices) throws -> Matrix {
        let found = try Self.stacked(parts.map(\.right), columns: tasks.size.columns, in: tasks.tensor).singularValues()
        return try found.right.firstRows(found.values.count { $0 > found.negligible })
    }

    /// Matrices of so many rows, side by side.
    static func sideBySide(_ matrices: [Matrix], rows: Int, in tensor: TensorPasses) throws(TesseraError) -> Matrix {
        let all = try tensor.matrix(rows: rows, columns: matrices.reduce(0) { $0 + $1.columns })
        var first = 0
        for matrix in matrices {
            all.copy(matrix, rows: rows, columns: matrix.columns, toRow: 0, column: first)
            first += matrix.columns
        }
        return all
    }

    /// Matrices of so many columns, one below the other.
    static func stacked(_ matrices: [Matrix], columns: Int, in tensor: TensorPasses) throws(TesseraError) -> Matrix {
        let all = try tensor.matrix(rows: matrices.reduce(0) { $0 + $1.rows }, columns: columns)
        var first = 0
        for matrix in matrices {
            all.copy(matrix, rows: matrix.rows, columns: columns, toRow: first, column: 0)
            first += matrix.rows
        }
        return all
    }
}

extension TaskMatrices {
    /// The factors of an adapter on the base, or none for the base itself; `nil` for any other model.
    ///
    /// - Throws: `badData` for a value that is not finite.
    func adapterFactors(_ index: Int) throws -> (left: Matrix, right: Matrix)? {
        if tensor.inputs.ranks[models[index]] == 0 {
            return (try tensor.matrix(rows: size.rows, columns: 0), try tensor.matrix(rows: 0, columns: size.columns))
        }
        guard let factors = try (tensor.sources[models[index]] as? LowRankUpdate)?.factorsOnBase(tensor.kernels) else {
            return nil
        }
        let left = try tensor.matrix(rows: size.rows, columns: factors.rank)
        let right = try tensor.matrix(rows: factors.rank, columns: size.columns)
        for (place, value) in factors.left.enumerated() { left.elements[place] = Double(value) * factors.scale }
        for (place, value) in factors.right.enumerated() { right.elements[place] = Double(value) }
        for factor in [left, right] { try checkFinite(factor, of: index) }
        return (left, right)
    }

    /// - Throws: `badData` for a value that is not finite.
    fileprivate func factors(_ index: Int, limit: Int) throws -> (left: Matrix, right: Matrix) {
        if areWhole, let found = try adapterFactors(index) { return found }
        let found = try vector(index).singularValues(first: limit)
        let count = min(limit, found.values.count { $0 > found.negligible })
        let left = try found.left.firstColumns(count)
        left.scaleColumns(by: Array(found.values[..<count]))
        return (left, try found.right.firstRows(count))
    }
}

extension TaskMatrices {
    /// `Σ wₜτₜ` as one product: the factors of all adapters together.
    ///
    /// - Throws: `badData` for a task vector that is no adapter's.
    func weightedFactors(_ weights: [Double]) throws -> (left: Matrix, right: Matrix) {
        let parts = try weights.enumerated().map { index, weight in
            guard let part = try adapterFactors(index) else {
                throw TesseraError(.badData, "is no low-rank update of the base").ofModel(index)
            }
            part.left.scaleColumns(by: Array(repeating: weight, count: part.left.columns))
            return part
        }
        return (
            try TaskFactors.sideBySide(parts.map(\.left), rows: size.rows, in: tensor),
            try TaskFactors.stacked(parts.map(\.right), columns: size.columns, in: tensor)
        )
    }
}

extension MatrixRole {
    /// Whether no task vector has factors of its own.
    var hasNoFactors: Bool { ranks.allSatisfy { $0 == nil || $0 == 0 } }

    /// The update of a tensor that is not merged as a matrix, as a product.
    func otherFactors(_ tasks: TaskMatrices) throws -> (left: Matrix, right: Matrix) {
        try tasks.weightedFactors(tasks.models.map { _ in shareOfSum })
    }

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

/// Entries of matrices that are dropped at random (DARE, arXiv 2311.03099).
struct EntryDrop {
    /// Of each entry, from 0 to below 1.
    let probability: Double
    /// `TensorInputs.randomKey`.
    let key: UInt64

    /// Drops entries of a model's matrix, and scales the others to make up for them.
    func apply(to matrix: Matrix, of model: Int, _ kernels: Kernels) {
        let random = CounterRandom(key: key, stream: UInt32(truncatingIfNeeded: model)), kept = 1 - probability
        var flags = [UInt8](repeating: 0, count: matrix.elements.count)
        random.flag(probability: kept, first: 0, &flags, count: flags.count, kernels: kernels)
        for place in flags.indices { matrix.elements[place] = flags[place] == 0 ? 0 : matrix.elements[place] / kept }
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
