package import Core
import Synchronization
package import TensorKernels

/// Which part of the factors of a mixture of experts belongs to a tensor.
///
/// PEFT keeps the factors of `n` experts in one pair: `A` is `[n·rank, in]`, with the rows of an expert together, and `B` is
/// `[out, rank·n]`, with the experts of one rank together.
package struct ExpertFactors: Sendable, Hashable, Codable {
    /// The number of experts that the factors hold.
    package let count: Int
    /// The expert that the tensor belongs to; `nil` for a tensor of all experts.
    package let expert: Int?
    /// The row of `B` that updates the first row of the tensor, where the tensor is one of several that the model's library
    /// stacks (`gate_proj` and `up_proj`).
    package let firstRow: Int

    package init(count: Int, expert: Int? = nil, firstRow: Int = 0) {
        self.count = count
        self.expert = expert
        self.firstRow = firstRow
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        count = try container.decodeInteger(in: 1...Int(Int32.max), forKey: .count)
        expert = try container.contains(.expert) ? container.decodeInteger(in: 0...count - 1, forKey: .expert) : nil
        firstRow = try container.decodeInteger(in: 0...Int(Int32.max), forKey: .firstRow)
    }
}

/// A tensor with a low-rank adapter folded into it: `W + s·L·R`, with `L` of shape `[rows, rank]` and `R` of `[rank, columns]`.
///
/// LoRA (arXiv 2106.09685): `L = B` and `R = A` as PEFT stores them, or both transposed where the matrix is (`fan_in_fan_out`,
/// embeddings). The product is summed over the rank in ascending order in float32, scaled, then added. The columns of a
/// convolution are all its dimensions but the first. A tensor of several experts is as many matrices.
package final class LowRankUpdate: ElementSource {
    package var dtype: DType { matrix.dtype }
    package var count: Int { matrix.count }

    private let matrix: any ElementSource
    private let a: StoredTensor?
    private let b: StoredTensor
    private let scale: Float
    private let layout: Layout
    /// Whether the matrix is the tensor that the method takes differences from, so that the product is the whole difference.
    let isOnMethodsBase: Bool
    /// Decoded by the first thread that needs them.
    private let decoded = Mutex<LowRankProduct?>(nil)

    /// How the factors and the matrices of the tensor lie.
    private struct Layout {
        let rank: Int
        /// Matrices of the tensor, and the shape of each.
        let blocks: Int
        let rows: Int
        let columns: Int
        let isTransposed: Bool
        let experts: ExpertFactors

        var inputs: Int { isTransposed ? rows : columns }
        var outputs: Int { isTransposed ? columns : rows }
    }

    /// - Parameters:
    ///   - shape: of the tensor: `[rows, …]`, or `[experts, rows, columns]` for all experts in one.
    ///   - a: of shape `[rank, columns]`, or `[rank, rows]` if transposed; `nil` for the number 1, which makes `b` the update of
    ///     a bias.
    ///   - b: of shape `[rows, rank]`, or `[columns, rank]` if transposed.
    ///   - experts: where the factors belong to a mixture of experts.
    /// - Throws: `badData` unless the factors fit the tensor.
    package init(
        _ matrix: any ElementSource, shape: [Int], a: StoredTensor?, b: StoredTensor, rank: Int, scale: Double,
        isTransposed: Bool, experts: ExpertFactors? = nil, isOnMethodsBase: Bool = false
    ) throws(TesseraError) {
        guard
            let layout = Self.layout(
                shape: shape, a: a?.count ?? 1, b: b.count, rank: rank, isTransposed: isTransposed, experts: experts),
            matrix.dtype.isArithmetic, a?.dtype.isArithmetic ?? true, b.dtype.isArithmetic,
            Shape.elementCount(shape) == matrix.count
        else {
            throw TesseraError(
                .badData,
                "an adapter of rank \(rank) with \(a?.count ?? 1) and \(b.count) elements does not fit the shape \(shape)")
        }
        self.matrix = matrix
        self.a = a
        self.b = b
        self.scale = Float(scale)
        self.isOnMethodsBase = isOnMethodsBase
        self.layout = layout
    }

    /// - Parameters:
    ///   - a: elements of the factor.
    ///   - b: the same.
    /// - Returns: `nil` unless the factors fit the tensor.
    private static func layout(
        shape: [Int], a: Int, b: Int, rank: Int, isTransposed: Bool, experts: ExpertFactors?
    ) -> Layout? {
        guard rank > 0, let first = shape.first, let count = Shape.elementCount(shape) else { return nil }
        let parts = experts ?? ExpertFactors(count: 1, expert: 0), isOneExpert = parts.expert != nil
        guard isOneExpert || (shape.count == 3 && first == parts.count) else { return nil }
        let rows = isOneExpert ? first : shape[1], blocks = isOneExpert ? 1 : first
        let matrices = blocks.multipliedReportingOverflow(by: rows)
        guard !matrices.overflow else { return nil }
        let layout = Layout(
            rank: rank, blocks: blocks, rows: rows, columns: matrices.partialValue > 0 ? count / matrices.partialValue : 0,
            isTransposed: isTransposed, experts: parts)
        let outputs = parts.firstRow + layout.outputs
        guard Shape.elementCount([parts.count, rank, layout.inputs]) == a, let width = Shape.elementCount([parts.count, rank]),
            let needed = Shape.elementCount([outputs, parts.count, rank])
        else { return nil }
        // Only a part of the rows belongs to a tensor that the library stacks with others.
        let fits = experts?.expert == nil ? needed == b : needed <= b && b % width == 0 && !isTransposed
        return fits ? layout : nil
    }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        try matrix.load(range, into: target, scratch: scratch, kernels: kernels)
        try addProduct(range, to: target, scratch: scratch, kernels: kernels)
    }

    /// Adds `s·L·R` without the matrix.
    func addProduct(
        _ range: Range<Int>, to target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard layout.columns > 0, !range.isEmpty else { return }
        try product(kernels).add(range, scale: scale, to: target, scratch: scratch, kernels: kernels)
    }

    package func prefetch(_ range: Range<Int>) {
        matrix.prefetch(range)
        guard range.lowerBound == 0 else { return }
        for factor in [a, b].compactMap(\.self) { factor.prefetch(0..<factor.count) }
    }

    /// The factors are released when they are decoded.
    package func release(_ range: Range<Int>) { matrix.release(range) }

    /// The folded elements, rounded to the matrix's own type.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        try copyRounded(byteRange, to: target)
    }

    // MARK: Factors

    /// The task vector on the method's base, `scale · left · right` of shapes `[rows, rank]` and `[rank, columns]`; `nil` where
    /// the update is of another matrix, or of several.
    func factorsOnBase(_ kernels: Kernels) throws -> (left: [Float], right: [Float], rank: Int, scale: Double)? {
        guard isOnMethodsBase, layout.blocks == 1 else { return nil }
        let own = try product(kernels)
        return (own.left, own.right, layout.rank, Double(scale))
    }

    private func product(_ kernels: Kernels) throws -> LowRankProduct {
        try decoded.withLock { decoded in
            if let product = decoded { return product }
            let a = try a.map { try $0.decoded(kernels) } ?? [1], b = try b.decoded(kernels)
            let product = arranged(a, b)
            decoded = product
            return product
        }
    }

    /// The factors in the order in which `load` reads them.
    private func arranged(_ a: [Float], _ b: [Float]) -> LowRankProduct {
        let layout = layout, rank = layout.rank, experts = layout.experts
        var left = [Float](repeating: 0, count: layout.blocks * layout.rows * rank)
        var right = [Float](repeating: 0, count: layout.blocks * rank * layout.columns)
        for block in 0..<layout.blocks {
            let expert = experts.expert ?? block
            for k in 0..<rank {
                for input in 0..<layout.inputs {
                    let value = a[(expert * rank + k) * layout.inputs + input]
                    if layout.isTransposed {
                        left[(block * layout.rows + input) * rank + k] = value
                    } else {
                        right[(block * rank + k) * layout.columns + input] = value
                    }
                }
                for output in 0..<layout.outputs {
                    let value = b[((experts.firstRow + output) * rank + k) * experts.count + expert]
                    if layout.isTransposed {
                        right[(block * rank + k) * layout.columns + output] = value
                    } else {
                        left[(block * layout.rows + output) * rank + k] = value
                    }
                }
            }
        }
        return LowRankProduct(rank: rank, rows: layout.rows, columns: layout.columns, left: left, right: right)
    }
}

extension StoredTensor {
    /// All elements as float32. The stored bytes are released.
    func decoded(_ kernels: Kernels) throws -> [Float] {
        defer { release(0..<count) }
        var values = [Float](repeating: 0, count: count)
        try withUnsafeTemporaryAllocation(byteCount: count * 8, alignment: 64) { scratch in
            try values.withUnsafeMutableBufferPointer { values in
                guard let first = values.baseAddress else { return }
                try load(0..<count, into: first, scratch: scratch, kernels: kernels)
            }
        }
        return values
    }
}
