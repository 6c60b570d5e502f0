package import Core
import Synchronization
package import TensorKernels

/// A matrix whose vectors keep their direction and get new lengths: `m ⊙ V / ‖V‖`.
///
/// DoRA (arXiv 2402.09353, eq. 5): `V` is the matrix with the low-rank update, `m` the trained magnitudes, one for each output
/// of the layer. Norms are summed in ascending order in float64 over all elements, by the first thread that needs one, so that
/// they do not depend on how the tensor is read. The factor `m / ‖V‖` is rounded to float32. A vector of zeros stays so.
package final class RescaledMatrix: ElementSource {
    /// Where the vectors lie: in the rows, or in the columns where the matrix is transposed (`fan_in_fan_out`, embeddings).
    package enum Axis: String, Sendable, Hashable, Codable { case rows, columns }

    package var dtype: DType { matrix.dtype }
    package var count: Int { matrix.count }

    private let matrix: any ElementSource
    private let magnitudes: StoredTensor
    private let axis: Axis
    private let columns: Int
    /// One factor for each vector.
    private let factors = Mutex<[Float]?>(nil)

    /// - Parameters:
    ///   - shape: of the matrix; all dimensions but the first are its columns.
    ///   - magnitudes: as many as there are vectors.
    /// - Throws: `badData` unless the magnitudes fit the matrix.
    package init(
        _ matrix: any ElementSource, shape: [Int], magnitudes: StoredTensor, axis: Axis
    ) throws(TesseraError) {
        let rows = shape.first ?? 0
        guard rows > 0, shape.count > 1, matrix.dtype.isArithmetic, magnitudes.dtype.isArithmetic,
            Shape.elementCount(shape) == matrix.count, magnitudes.count == (axis == .rows ? rows : matrix.count / rows)
        else {
            throw TesseraError(.badData, "\(magnitudes.count) magnitudes do not fit the \(axis.rawValue) of the shape \(shape)")
        }
        self.matrix = matrix
        self.magnitudes = magnitudes
        self.axis = axis
        columns = matrix.count / rows
    }

    /// Bytes of memory while the norms are computed, for so many vectors.
    package static func memory(vectors: Int) -> Int { 16 * vectors + 12 * FixedTree.tileElements }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard !range.isEmpty else { return }
        let factors = try factors(kernels)
        try matrix.load(range, into: target, scratch: scratch, kernels: kernels)
        factors.withUnsafeBufferPointer { factors in
            guard let first = factors.baseAddress else { return }
            forEachRow(of: range) { row, column, offset, length in
                let place = target + offset
                switch axis {
                case .rows: kernels.scale(place, by: first[row], into: place, count: length)
                case .columns: kernels.multiply(place, by: first + column, into: place, count: length)
                }
            }
        }
    }

    /// Calls `body` with each row that `range` touches: its number, the first column, where it begins in `range`, and how many
    /// elements it has there.
    private func forEachRow(of range: Range<Int>, _ body: (_ row: Int, _ column: Int, _ offset: Int, _ length: Int) -> Void) {
        var next = range.lowerBound
        while next < range.upperBound {
            let column = next % columns, length = min(range.upperBound - next, columns - column)
            body(next / columns, column, next - range.lowerBound, length)
            next += length
        }
    }

    package func prefetch(_ range: Range<Int>) {
        matrix.prefetch(range)
        if range.lowerBound == 0 { magnitudes.prefetch(0..<magnitudes.count) }
    }

    /// The magnitudes are released when they are decoded.
    package func release(_ range: Range<Int>) { matrix.release(range) }

    /// The rescaled elements, rounded to the matrix's own type.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        try copyRounded(byteRange, to: target)
    }

    // MARK: Norms

    private func factors(_ kernels: Kernels) throws -> [Float] {
        try factors.withLock { factors in
            if let factors { return factors }
            let magnitudes = try magnitudes.decoded(kernels)
            let computed = zip(magnitudes, try squares(kernels)).map { magnitude, square in
                square == 0 ? 0 : Float(Double(magnitude) / square.squareRoot())
            }
            factors = computed
            return computed
        }
    }

    /// The sum of squares of each vector.
    private func squares(_ kernels: Kernels) throws -> [Double] {
        var sums = [Double](repeating: 0, count: magnitudes.count)
        try Scratch.with(elements: FixedTree.tileElements) { floats, scratch in
            for start in stride(from: 0, to: count, by: FixedTree.tileElements) {
                let range = start..<min(count, start + FixedTree.tileElements)
                try matrix.load(range, into: floats, scratch: scratch, kernels: kernels)
                matrix.release(range)
                sums.withUnsafeMutableBufferPointer { sums in
                    forEachRow(of: range) { row, column, offset, length in
                        for index in 0..<length {
                            let value = Double(floats[offset + index])
                            sums[axis == .rows ? row : column + index] += value * value
                        }
                    }
                }
            }
        }
        return sums
    }
}
