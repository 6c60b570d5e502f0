internal import CTensorKernels

/// The loops of particular merge methods.
extension Kernels {
    // MARK: Factors for each element

    /// `target = factors · x`, element by element.
    package func multiply(
        _ x: UnsafePointer<Float>, by factors: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.multiply(factors, x, target, count)
    }

    /// `target += factors · x`, element by element, the product rounded before the sum.
    package func multiplyAdd(
        _ factors: UnsafePointer<Float>, _ x: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.multiply_add(factors, x, target, count)
    }

    /// `sums += x · y` in float64, element by element.
    package func addProducts(
        _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, to sums: UnsafeMutablePointer<Double>, count: Int
    ) {
        table.pointee.add_products(x, y, sums, count)
    }

    // MARK: Flags

    /// Flags of 0 and 1 as bits, 32 in each word.
    package func pack(_ flags: UnsafePointer<UInt8>, into bits: UnsafeMutablePointer<UInt32>, count: Int) {
        table.pointee.pack_flags(flags, bits, count)
    }

    package func unpack(_ bits: UnsafePointer<UInt32>, into flags: UnsafeMutablePointer<UInt8>, count: Int) {
        table.pointee.unpack_flags(bits, flags, count)
    }

    // MARK: Changes

    /// Counts for each row the entries above `epsilon`: in `alone` those where no other row's entry is, in `shared` those where
    /// another row's is.
    package func countChanges(
        _ rows: [UnsafePointer<Float>], above epsilon: Float, alone: inout [UInt32], shared: inout [UInt32], count: Int
    ) {
        table.pointee.count_changes(rows, min(rows.count, alone.count, shared.count), epsilon, &alone, &shared, count)
    }

    /// If one row's entry is above `epsilon`, that entry times the row's factor; if several are, their mean.
    package func mergeChanges(
        _ rows: [UnsafePointer<Float>], factors: [Float], above epsilon: Float, into target: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        table.pointee.merge_changes(rows, factors, min(rows.count, factors.count), epsilon, target, count)
    }

    /// `w·b + (1 − w)·a` with `w = t / |a − b|`, the divisor at least 1e-6 and `w` within 0...1.
    package func nearswap(
        _ t: Float, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.nearswap(t, a, b, target, count)
    }

    // MARK: Softmax

    /// `exp(x)` for `x ≤ 0`, the same bits on every machine.
    package func exponential(_ x: Double) -> Double { table.pointee.exponential(x) }
}
