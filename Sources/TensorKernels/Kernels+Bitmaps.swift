internal import CTensorKernels

/// The loops over sparse task vectors. A bitmap is a stream of one-bit codes: element `i` is bit `i % 8` of byte `i / 8`; unused
/// bits of the last byte are zero.
extension Kernels {
    // MARK: Making bitmaps

    /// Set where `x` is not 0, as NaN is not.
    package func bits(ofNonzero x: UnsafePointer<Float>, into bits: UnsafeMutableRawPointer, count: Int) {
        table.pointee.bits_nonzero(x, bits, count)
    }

    /// Set where `|x| > factor · |y|`, the product rounded to float32 (TALL masks).
    package func bits(
        of x: UnsafePointer<Float>, above factor: Float, times y: UnsafePointer<Float>, into bits: UnsafeMutableRawPointer,
        count: Int
    ) {
        table.pointee.bits_above(factor, x, y, bits, count)
    }

    /// Set where `x` and `y` are both above zero or both below it (EMR).
    package func bits(
        of x: UnsafePointer<Float>, agreeingWith y: UnsafePointer<Float>, into bits: UnsafeMutableRawPointer, count: Int
    ) {
        table.pointee.bits_agreeing(x, y, bits, count)
    }

    /// Flags the elements to keep with 1: in each block of `block` elements, the `kept` largest magnitudes among those whose
    /// `taken` is 0.
    ///
    /// Of equal magnitudes, the first are kept; zeros never are. If fewer than `kept` elements are not taken, the largest of the
    /// taken ones are kept too.
    ///
    /// - Parameters:
    ///   - block: at most `blockLimit`; the last block may be shorter.
    ///   - keptAtEnd: the number of elements to keep of a shorter last block.
    package func keepLargest(
        _ kept: Int, ofEach block: Int, keptAtEnd: Int, _ x: UnsafePointer<Float>, taken: UnsafePointer<UInt8>,
        into flags: UnsafeMutablePointer<UInt8>, count: Int
    ) {
        assert((1...Self.blockLimit).contains(block))
        table.pointee.keep_of_blocks(x, taken, block, kept, keptAtEnd, flags, count)
    }

    /// The longest block for `keepLargest`.
    package static let blockLimit = Int(TK_BLOCK_LIMIT)

    // MARK: Using them

    /// The number of set bits among the first `count`.
    package func countBits(_ bits: UnsafeRawPointer, count: Int) -> Int { table.pointee.count_bits(bits, count) }

    /// The number of elements that are not 0.
    package func countNonzero(_ x: UnsafePointer<Float>, count: Int) -> Int {
        withUnsafeTemporaryAllocation(byteCount: max(1, (count + 7) / 8), alignment: 8) { buffer in
            guard let bitmap = buffer.baseAddress else { return 0 }
            bits(ofNonzero: x, into: bitmap, count: count)
            return countBits(bitmap, count: count)
        }
    }

    /// Sets the elements whose bit is not set to 0. The first element's bit is bit `first`.
    package func apply(_ bits: UnsafeRawPointer, first: Int, to target: UnsafeMutablePointer<Float>, count: Int) {
        table.pointee.apply_bits(bits, first, target, count)
    }

    /// The elements of `x` whose bits are set, in order; bit 0 is that of the first element.
    ///
    /// - Returns: their number. Nothing is written beyond them.
    package func compress(
        _ x: UnsafePointer<Float>, bits: UnsafeRawPointer, into target: UnsafeMutablePointer<Float>, count: Int
    ) -> Int {
        table.pointee.compress(x, bits, target, count)
    }

    /// `target` = the next of `values` if the bit is set, else 0. The first element's bit is bit `first`.
    ///
    /// - Returns: the number of values used. No further value is read.
    package func expand(
        _ values: UnsafePointer<Float>, bits: UnsafeRawPointer, first: Int, into target: UnsafeMutablePointer<Float>, count: Int
    ) -> Int {
        table.pointee.expand(values, bits, first, target, count)
    }
}
