package import Core
package import LinearAlgebra
import TensorKernels

/// How the factors of the update of a matrix are stored, as PEFT stores those of an adapter.
///
/// The update of a matrix of shape `[m, n]` is `B·A`, with `A` of shape `[rank, n]` and `B` of `[m, rank]`. Of a matrix that the
/// model stores transposed, it is `(B·A)ᵀ`, with `[rank, m]` and `[n, rank]`.
package struct FactorShape: Sendable, Hashable, Codable {
    package let rank: Int
    package let isTransposed: Bool

    package init(rank: Int, isTransposed: Bool) {
        self.rank = rank
        self.isTransposed = isTransposed
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        rank = try container.decodeInteger(in: 1...Int(Int32.max), forKey: .rank)
        isTransposed = try container.decode(Bool.self, forKey: .isTransposed)
    }

    /// `A`, then `B`.
    ///
    /// - Parameter suffixes: of their names.
    /// - Throws: `badData` for a shape that is no matrix's, or factors too large to be counted.
    package func outputs(
        of shape: [Int], dtype: DType, suffixes: (a: String, b: String) = ("", "")
    ) throws(TesseraError) -> [EncodedTensor] {
        guard shape.count == 2, shape.allSatisfy({ Shape.elementCount([rank, $0]) != nil }) else {
            throw TesseraError(.badData, "factors of rank \(rank) do not make a tensor of the shape \(shape)")
        }
        let (inputs, outputs) = isTransposed ? (shape[0], shape[1]) : (shape[1], shape[0])
        return [
            EncodedTensor(suffix: suffixes.a, dtype: dtype, shape: [rank, inputs], rate: nil),
            EncodedTensor(suffix: suffixes.b, dtype: dtype, shape: [outputs, rank], rate: nil),
        ]
    }
}

/// A merge method that can say the update of a matrix as a product of factors, where all models are adapters of the base.
package protocol FactoredMethod: MergeMethod {
    /// The factors `L` (m × k) and `R` (k × n) of the update, its scale included. `k` is at most the sum of the adapters' ranks.
    func factors(_ tensor: TensorPasses) throws -> (left: Matrix, right: Matrix)

    /// What finding the factors takes, for a matrix of the given shape.
    func factorCost(of shape: [Int]) -> OperatorCost
}

extension FactoredMethod {
    /// Finds the factors and stores them. Rows and columns beyond those that were found are zeros.
    ///
    /// - Throws: `internal` for more of them than the plan has, `badData` for factors that are not finite; errors of the method.
    package func emitFactors(_ tensor: TensorPasses, as shape: FactorShape, dtype: DType) throws {
        let (left, right) = try factors(tensor), found = left.columns
        guard found <= shape.rank, right.rows == found, tensor.sinks.count == 2 else {
            throw TesseraError(.internal, "\(Self.name) found factors of rank \(found), the plan has \(shape.rank)")
        }
        let (inputs, outputs) = shape.isTransposed ? (left.rows, right.columns) : (right.columns, left.rows)
        try tensor.store(0, count: shape.rank * inputs, as: dtype) { place in
            let k = place / inputs, input = place % inputs
            return k < found ? (shape.isTransposed ? left[input, k] : right[k, input]) : 0
        }
        try tensor.store(1, count: outputs * shape.rank, as: dtype) { place in
            let output = place / shape.rank, k = place % shape.rank
            return k < found ? (shape.isTransposed ? right[k, output] : left[output, k]) : 0
        }
    }
}

extension TensorPasses {
    /// Stores an output that follows from matrices in memory, rounded to its type.
    ///
    /// - Parameter value: of each element.
    fileprivate func store(_ output: Int, count: Int, as dtype: DType, _ value: (Int) -> Double) throws {
        let width = dtype.bitWidth / 8, byteCount = count * width, size = TreeDigest.blockSize
        var values = [Float](repeating: 0, count: FixedTree.tileElements)
        for index in 0..<TreeDigest.blockCount(ofBytes: byteCount, blockSize: size) {
            try checkCancellation()
            let range = index * size..<min(byteCount, (index + 1) * size)
            try sinks[output].writeBlocks(BlockPair(index: index, range), step: FixedTree.tileElements * width) { bytes, target in
                let first = bytes.lowerBound / width, own = bytes.count / width
                for place in 0..<own { values[place] = Float(value(first + place)) }
                guard values[..<own].allSatisfy(\.isFinite) else {
                    throw TesseraError(
                        .badData, "the update is too large for the numbers of an adapter", advice: "scale the adapters down")
                }
                kernels.narrow(values, to: dtype, target, count: own)
            }
        }
    }
}

/// A method on whole matrices that finds its update as a product.
protocol FactoredMatrixMethod: MatrixMethod, FactoredMethod {
    /// `m = left · right`, without the scale.
    func factoredUpdate(_ tasks: TaskMatrices) throws -> (left: Matrix, right: Matrix)
}

extension FactoredMatrixMethod {
    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let (left, right) = try factoredUpdate(tasks)
        return left.columns == 0 ? try tasks.zeros() : try left.view().times(right.view())
    }

    package func factors(_ tensor: TensorPasses) throws -> (left: Matrix, right: Matrix) {
        let tasks = TaskMatrices(
            tensor: tensor, models: role.models, size: MatrixSize(tensor.shape, tasks: role.models.count))
        let found = try matrixSize(tensor.shape) == nil ? role.otherFactors(tasks) : factoredUpdate(tasks)
        found.left.scaleColumns(by: Array(repeating: scales[0], count: found.left.columns))
        return found
    }

    package func factorCost(of shape: [Int]) -> OperatorCost {
        let need = need(MatrixSize(shape, tasks: role.models.count))
        return OperatorCost(
            passes: need.passes, operations: need.operations, matrixElements: need.elements,
            memory: MemoryNeed(shared: LinearAlgebra.bufferBytes) + need.memory)
    }
}
