import TensorKernels

/// `L·R` for each of several matrices of one shape, which lie one after the other in a tensor.
struct LowRankProduct: Sendable {
    let rank: Int
    /// Of each matrix.
    let rows: Int
    let columns: Int
    /// `[matrices, rows, rank]`
    let left: [Float]
    /// `[matrices, rank, columns]`
    let right: [Float]

    /// Adds `scale` times the elements of `range`: summed over the rank in ascending order in float32, scaled, then added.
    ///
    /// - Parameter scratch: a float or more; the more, the faster.
    func add(
        _ range: Range<Int>, scale: Float, to target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer,
        kernels: Kernels
    ) {
        let buffer = scratch.bindMemory(to: Float.self)
        guard columns > 0, let sum = buffer.baseAddress else { return }
        var next = range.lowerBound
        while next < range.upperBound {
            let row = next / columns, column = next % columns, matrix = row / rows
            let length = min(range.upperBound - next, columns - column, buffer.count)
            sum.update(repeating: 0, count: length)
            right.withUnsafeBufferPointer { right in
                guard let first = right.baseAddress else { return }
                for k in 0..<rank {
                    kernels.axpy(left[row * rank + k], first + (matrix * rank + k) * columns + column, into: sum, count: length)
                }
            }
            kernels.axpy(scale, sum, into: target + (next - range.lowerBound), count: length)
            next += length
        }
    }
}
