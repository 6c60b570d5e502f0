internal import CTensorKernels

/// The loops of single merge methods. The same rules as for all kernels: any level computes the same bits.
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

    // MARK: Selections

    /// Multiplies by 0 the elements whose key's magnitude pattern lies outside `patterns`; NaN stays.
    package func keep(
        _ patterns: ClosedRange<UInt32>, ofKeys keys: UnsafePointer<Float>, _ target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.keep_keyed(keys, patterns.lowerBound, patterns.upperBound, target, count)
    }

    /// Flags of 0 and 1 as bits, 32 in each word.
    package func pack(_ flags: UnsafePointer<UInt8>, into bits: UnsafeMutablePointer<UInt32>, count: Int) {
        table.pointee.pack_flags(flags, bits, count)
    }

    package func unpack(_ bits: UnsafePointer<UInt32>, into flags: UnsafeMutablePointer<UInt8>, count: Int) {
        table.pointee.unpack_flags(bits, flags, count)
    }

    /// The population variance of each element over the rows.
    package func variance(_ rows: [UnsafePointer<Float>], into target: UnsafeMutablePointer<Float>, count: Int) {
        table.pointee.variance(rows, rows.count, target, count)
    }

    /// The weighted mean of the entries whose sign is that of the sum of all; zero counts as plus and never agrees, and the
    /// divisor is at least `floor` (SCE).
    package func fuseAgreeing(
        _ rows: [UnsafePointer<Float>], weights: [Float], floor: Float, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.fuse_agreeing(rows, weights, min(rows.count, weights.count), floor, target, count)
    }

    // MARK: Changes

    /// Adds to `alone` and `shared`, for each row, how many of its entries lie above `epsilon` where no other row's does, and
    /// where another's does.
    package func countChanges(
        _ rows: [UnsafePointer<Float>], above epsilon: Float, alone: inout [UInt32], shared: inout [UInt32], count: Int
    ) {
        table.pointee.count_changes(rows, min(rows.count, alone.count, shared.count), epsilon, &alone, &shared, count)
    }

    /// The only entry above `epsilon` times its row's factor, or the mean of the entries above it.
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
