package import Core
import Synchronization
package import TensorKernels

/// A matrix with a low-rank adapter folded into it: `W + s·L·R`, with `L` of shape `[rows, rank]` and `R` of `[rank, columns]`.
///
/// LoRA (arXiv 2106.09685): `L = B` and `R = A` as PEFT stores them, or both transposed where the matrix is (`fan_in_fan_out`,
/// embeddings). The product is summed over the rank in ascending order in float32, scaled, then added.
package final class LowRankUpdate: ElementSource {
    package var dtype: DType { matrix.dtype }
    package var count: Int { matrix.count }

    private let matrix: any ElementSource
    private let a: StoredTensor
    private let b: StoredTensor
    private let rank: Int
    private let scale: Float
    private let rows: Int
    private let columns: Int
    private let isTransposed: Bool
    /// Decoded by the first thread that needs them.
    private let decoded = Mutex<Factors?>(nil)

    private struct Factors: Sendable {
        /// `[rows, rank]`
        let left: [Float]
        /// `[rank, columns]`
        let right: [Float]
    }

    /// - Parameters:
    ///   - shape: `[rows, columns]` of the matrix.
    ///   - a: of shape `[rank, columns]`, or `[rank, rows]` if transposed.
    ///   - b: of shape `[rows, rank]`, or `[columns, rank]` if transposed.
    /// - Throws: `badData` unless the factors fit the matrix.
    package init(
        _ matrix: any ElementSource, shape: [Int], a: StoredTensor, b: StoredTensor, rank: Int, scale: Double, isTransposed: Bool
    ) throws(TesseraError) {
        guard shape.count == 2, rank > 0, matrix.dtype.isArithmetic, a.dtype.isArithmetic, b.dtype.isArithmetic,
            Shape.elementCount([rank, isTransposed ? shape[0] : shape[1]]) == a.count,
            Shape.elementCount([isTransposed ? shape[1] : shape[0], rank]) == b.count, Shape.elementCount(shape) == matrix.count
        else {
            throw TesseraError(
                .badData, "an adapter of rank \(rank) with \(a.count) and \(b.count) elements does not fit the shape \(shape)")
        }
        self.matrix = matrix
        self.a = a
        self.b = b
        self.rank = rank
        self.scale = Float(scale)
        rows = shape[0]
        columns = shape[1]
        self.isTransposed = isTransposed
    }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        try matrix.load(range, into: target, scratch: scratch, kernels: kernels)
        guard columns > 0, !range.isEmpty else { return }
        let factors = try factors(kernels)
        let buffer = scratch.bindMemory(to: Float.self)
        guard let sum = buffer.baseAddress else { return }
        var next = range.lowerBound
        while next < range.upperBound {
            let row = next / columns, column = next % columns
            let length = min(range.upperBound - next, columns - column, buffer.count)
            sum.update(repeating: 0, count: length)
            factors.right.withUnsafeBufferPointer { right in
                guard let first = right.baseAddress else { return }
                for k in 0..<rank {
                    kernels.axpy(factors.left[row * rank + k], first + k * columns + column, into: sum, count: length)
                }
            }
            kernels.axpy(scale, sum, into: target + (next - range.lowerBound), count: length)
            next += length
        }
    }

    package func prefetch(_ range: Range<Int>) {
        matrix.prefetch(range)
        guard range.lowerBound == 0 else { return }
        for factor in [a, b] { factor.prefetch(0..<factor.count) }
    }

    /// The factors are released when they are decoded.
    package func release(_ range: Range<Int>) { matrix.release(range) }

    /// The folded elements, rounded to the matrix's own type.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        try copyRounded(byteRange, to: target)
    }

    private func factors(_ kernels: Kernels) throws -> Factors {
        try decoded.withLock { decoded in
            if let factors = decoded { return factors }
            let a = try decode(a, kernels), b = try decode(b, kernels)
            let factors =
                isTransposed
                ? Factors(left: Self.transposed(a, rows: rank), right: Self.transposed(b, rows: columns))
                : Factors(left: b, right: a)
            decoded = factors
            return factors
        }
    }

    private func decode(_ tensor: StoredTensor, _ kernels: Kernels) throws -> [Float] {
        defer { tensor.release(0..<tensor.count) }
        var values = [Float](repeating: 0, count: tensor.count)
        try withUnsafeTemporaryAllocation(byteCount: tensor.count * 8, alignment: 64) { scratch in
            try values.withUnsafeMutableBufferPointer { values in
                guard let first = values.baseAddress else { return }
                try tensor.load(0..<tensor.count, into: first, scratch: scratch, kernels: kernels)
            }
        }
        return values
    }

    private static func transposed(_ values: [Float], rows: Int) -> [Float] {
        let columns = values.count / max(1, rows)
        return (0..<values.count).map { values[$0 % rows * columns + $0 / rows] }
    }
}
