internal import CTensorKernels

/// The loops over quantized task vectors. A stream of codes of `bits` bits (1...8) has code `i` in its bits `i·bits ..< (i +
/// 1)·bits`; bit `k` is bit `k % 8` of byte `k / 8`, and unused bits of the last byte are zero. Nothing beyond the codes' last
/// byte is read or written.
extension Kernels {
    /// Bytes of a stream of `count` codes.
    package static func streamByteCount(_ count: Int, bits: Int) -> Int { (count * bits + 7) / 8 }

    // MARK: Encoding

    /// The smallest and the largest element, with +0 for any zero. `nil` unless all elements, and the difference of the two, are
    /// finite.
    package func range(_ x: UnsafePointer<Float>, count: Int) -> ValueRange? {
        var lowest: Float = 0, highest: Float = 0
        guard table.pointee.range(x, &lowest, &highest, count) else { return nil }
        return count == 0 ? ValueRange.none : (highest - lowest).isFinite ? ValueRange(lowest: lowest, highest: highest) : nil
    }

    /// `codes = x · factor + offset`, to the nearest whole number, half to even, within `0...highest`; NaN gives 0.
    ///
    /// Product and sum are rounded to float32 each. Where |offset| ≥ 2²⁰ the product is exact and the sum is rounded to float64.
    package func quantize(
        _ x: UnsafePointer<Float>, factor: Float, offset: Double, highest: UInt8, into codes: UnsafeMutablePointer<UInt8>,
        count: Int
    ) {
        table.pointee.quantize(x, factor, offset, UInt32(highest), codes, count)
    }

    /// Packs codes into a stream. Bits of a code beyond its width are dropped.
    package func pack(_ codes: UnsafePointer<UInt8>, bits: Int, into stream: UnsafeMutableRawPointer, count: Int) {
        table.pointee.pack(codes, bits, stream, count)
    }

    // MARK: Decoding

    /// `target = values[code]` for the codes `first ..< first + count`.
    ///
    /// - Parameter values: 2 to the `bits` numbers.
    package func dequantize(
        _ stream: UnsafeRawPointer, bits: Int, first: Int, values: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        table.pointee.dequantize_table(stream, bits, first, values, target, count)
    }

    /// `target = (code − zero) · scale` for the codes `first ..< first + count`, the product rounded once.
    ///
    /// - Parameters:
    ///   - group: elements of a group, a power of two.
    ///   - scales: one per group, beginning with the group of `first`.
    ///   - zero: the difference is exact for a multiple of ½ below 2²⁰.
    package func dequantize(
        _ stream: UnsafeRawPointer, bits: Int, first: Int, group: Int, scales: UnsafePointer<Float>, zero: Float,
        into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.dequantize_groups(stream, bits, first, group, scales, zero, target, count)
    }

    /// The same with one scale for all codes. In float64 if the zero point is large.
    package func dequantize(
        _ stream: UnsafeRawPointer, bits: Int, first: Int, scale: Float, zero: Double, into target: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        guard zero.magnitude >= 0x1p20 else {
            return withUnsafePointer(to: scale) {
                table.pointee.dequantize_groups(stream, bits, first, 1 << 62, $0, Float(zero), target, count)
            }
        }
        let values = (0..<1 << bits).map { Float((Double($0) - zero) * Double(scale)) }
        dequantize(stream, bits: bits, first: first, values: values, into: target, count: count)
    }

    // MARK: Grids

    /// Quantizes numbers on a grid, into one byte per code.
    package func code(
        _ x: UnsafePointer<Float>, on point: GridPoint, largestCode: Int, into codes: UnsafeMutablePointer<UInt8>, count: Int
    ) {
        quantize(x, factor: point.multiplier, offset: point.offset, highest: UInt8(largestCode), into: codes, count: count)
    }

    /// `target = (code − zero) · scale` for codes of one byte.
    package func decode(
        _ codes: UnsafePointer<UInt8>, on point: GridPoint, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.decode(codes, point.scale, point.zero, target, count)
    }

    /// The zero point of a fitted grid: ½ for one bit, else `2^(bits − 1)`, so that 0 has a code.
    package static func fittedZero(bits: Int) -> Float { bits == 1 ? 0.5 : Float(1 << (bits - 1)) }

    /// Quantizes each group of finite numbers on a grid of its own, whose zero point is `fittedZero`.
    ///
    /// The codes are those of the scale with the least squared error that a search finds. The stored scale is the one with `Σ xx̂
    /// = Σ x²`, which preserves the vector's length. Least squares alone would shorten the vector, more so with fewer bits.
    ///
    /// - Parameters:
    ///   - scales: a bfloat16 number per group, positive or negative; 0 for a group of zeros.
    ///   - decoded: gets the numbers as they will be read.
    package func fitGroups(
        _ x: UnsafePointer<Float>, group: Int, bits: Int, scales: UnsafeMutablePointer<Float>,
        codes: UnsafeMutablePointer<UInt8>, decoded: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.fit_groups(x, group, bits, scales, codes, decoded, count)
    }

    /// `Σ |xᵢ|` in float64.
    package func sumOfMagnitudes(_ x: UnsafePointer<Float>, count: Int) -> Double { table.pointee.sum_of_magnitudes(x, count) }

    /// `Σ (xᵢ − yᵢ)²` in float64.
    package func squaredError(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Double {
        table.pointee.squared_error(x, y, count)
    }

    /// What a vector and its approximation have in common, in float64.
    package struct Comparison: Sendable, Hashable {
        /// `Σ (xᵢ − yᵢ)²`
        package let squaredError: Double
        /// `Σ xᵢ²`
        package let energy: Double
        /// `Σ xᵢyᵢ`
        package let product: Double
    }

    /// The sums of `squaredError` and `dot`, to the last bit, in one pass.
    package func compare(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Comparison {
        var sums = (0.0, 0.0, 0.0)
        withUnsafeMutableBytes(of: &sums) { sums in
            guard let first = sums.assumingMemoryBound(to: Double.self).baseAddress else { return }
            table.pointee.compare(x, y, first, count)
        }
        return Comparison(squaredError: sums.0, energy: sums.1, product: sums.2)
    }

    /// `Σ xᵢ²` of each `group` consecutive elements, the last of which may be fewer, in float64 as `dot` has them.
    package func sumsOfSquares(
        _ x: UnsafePointer<Float>, group: Int, into sums: UnsafeMutablePointer<Double>, count: Int
    ) {
        table.pointee.sums_of_squares(x, group, sums, count)
    }
}
