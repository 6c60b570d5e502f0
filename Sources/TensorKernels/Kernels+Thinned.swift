internal import CTensorKernels

/// Which elements of a vector a thinned form keeps: one of every `every` consecutive ones, a stratum, chosen by a random byte.
///
/// Stratum `s` has the elements `s·every ..< (s + 1)·every`, or the `left` that there are of them. It keeps the one at
/// `⌊byte · left / 256⌋`, where the byte is number `s mod 4`, from the lowest, of the random word of element `⌊s/4⌋`
/// (`CounterRandom`, stream 0). So which elements are kept depends only on the key and their places, and costs no space.
package struct Thinning: Sendable, Hashable {
    package let key: UInt64
    /// Elements of a stratum: a power of two of `strides`.
    package let every: Int
    /// Elements of the vector.
    package let count: Int

    package init(key: UInt64, every: Int, count: Int) {
        self.key = key
        self.every = every
        self.count = count
    }

    /// A byte distinguishes the elements of the longest.
    package static let strides = (0...7).map { 1 << $0 }

    /// The strata that elements lie in; as many elements of them are kept.
    package func strata(of range: Range<Int>) -> Range<Int> {
        range.lowerBound / every..<(range.upperBound + every - 1) / every
    }

    fileprivate var raw: tk_thinning { tk_thinning(key: key, every: every, count: count) }
}

extension Kernels {
    /// Takes the kept ones of the elements `range`, whose strata all lie within it.
    ///
    /// - Parameter kept: gets one number for each stratum.
    package func pick(
        _ thinning: Thinning, of x: UnsafePointer<Float>, _ range: Range<Int>, into kept: UnsafeMutablePointer<Float>
    ) {
        withUnsafePointer(to: thinning.raw) { table.pointee.pick_kept($0, x, range.lowerBound, kept, range.count) }
    }

    /// Puts the kept elements in their places among zeros.
    ///
    /// - Parameters:
    ///   - kept: a number for each of `thinning.strata(of: range)`.
    ///   - range: elements of the vector.
    package func place(
        _ thinning: Thinning, _ kept: UnsafePointer<Float>, into target: UnsafeMutablePointer<Float>, _ range: Range<Int>
    ) {
        withUnsafePointer(to: thinning.raw) { table.pointee.place_kept($0, kept, range.lowerBound, target, range.count) }
    }

    /// The zero point of a grid without a code for zero: halfway between the two middle codes.
    package static func risingZero(bits: Int) -> Float { Float((1 << bits) - 1) / 2 }

    /// Quantizes each group of kept elements on a grid of its own, whose zero point is `risingZero`.
    ///
    /// The codes are those of the scale with the least squared error that a search finds. The stored scale is the one with
    /// `Σ xx̂` over the kept elements equal to the group's entry in `wanted`, but at most `4 · every` times as large as the scale
    /// of least error. With `Σ τ²` over all elements that the group stands for, the decoded vector steps as far along τ as τ.
    ///
    /// - Parameters:
    ///   - scales: a bfloat16 number per group, 0 for a group of zeros.
    ///   - decoded: gets the numbers as they will be read.
    package func fitKept(
        _ kept: UnsafePointer<Float>, wanted: UnsafePointer<Double>, every: Int, group: Int, bits: Int,
        scales: UnsafeMutablePointer<Float>, codes: UnsafeMutablePointer<UInt8>, decoded: UnsafeMutablePointer<Float>, count: Int
    ) {
        table.pointee.fit_kept(kept, wanted, every, group, bits, scales, codes, decoded, count)
    }
}
