import Core
import TensorKernels
import TestSupport
import Testing

/// Conversions against Swift's own types, exhaustively where that is possible.
@Suite(.serialized) struct ConversionTests {
    private func widened(_ dtype: DType, _ bytes: [UInt8], count: Int, _ kernels: Kernels) -> [Float] {
        var target = [Float](repeating: .nan, count: count)
        bytes.withUnsafeBytes { raw in
            if let start = raw.baseAddress { kernels.widen(dtype, start, &target, count: count) }
        }
        return target
    }

    private func narrowed<Word: FixedWidthInteger>(_ values: [Float], to dtype: DType, as: Word.Type, _ kernels: Kernels)
        -> [Word]
    {
        var target = [Word](repeating: 0, count: values.count)
        target.withUnsafeMutableBytes { raw in
            if let start = raw.baseAddress { kernels.narrow(values, to: dtype, start, count: values.count) }
        }
        return target
    }

    private static let allHalves = (0...UInt16.max).flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }

    @Test(arguments: Kernels.available)
    func everyHalfWidens(kernels: Kernels) {
        let values = widened(.f16, Self.allHalves, count: 65_536, kernels)
        for pattern in 0...UInt16.max {
            let expected = Float(Float16(bitPattern: pattern)), found = values[Int(pattern)]
            #expect(found == expected && found.sign == expected.sign || found.isNaN && expected.isNaN, "\(pattern)")
        }
    }

    @Test(arguments: Kernels.available)
    func everyBrainFloatWidens(kernels: Kernels) {
        let values = widened(.bf16, Self.allHalves, count: 65_536, kernels)
        #expect(values.map(\.bitPattern) == (0...UInt16.max).map { UInt32($0) << 16 })
    }

    /// Every value between two neighbours rounds to the nearer one, and the middle to the even one.
    @Test(arguments: Kernels.available)
    func halvesRoundToNearestEven(kernels: Kernels) {
        var inputs: [Float] = [], expected: [UInt16] = []
        for pattern in UInt16(0)..<0x7c00 {
            let low = Float(Float16(bitPattern: pattern))
            let high = pattern == 0x7bff ? Float(65_536) : Float(Float16(bitPattern: pattern + 1))
            let middle = (low + high) / 2
            for sign in [UInt16(0), 0x8000] {
                let factor: Float = sign == 0 ? 1 : -1
                inputs += [low, middle.nextDown, middle, middle.nextUp].map { factor * $0 }
                expected += [pattern, pattern, pattern % 2 == 0 ? pattern : pattern + 1, pattern + 1].map { $0 | sign }
            }
        }
        #expect(narrowed(inputs, to: .f16, as: UInt16.self, kernels) == expected)
    }

    @Test(arguments: Kernels.available)
    func brainFloatsRoundToNearestEven(kernels: Kernels) {
        var inputs: [Float] = [], expected: [UInt16] = []
        for pattern in UInt16(0)..<0x7f80 {
            let base = UInt32(pattern) << 16
            for (low, result) in [
                (UInt32(0), pattern), (0x7fff, pattern), (0x8000, pattern % 2 == 0 ? pattern : pattern + 1),
                (0x8001, pattern + 1),
            ] {
                inputs += [Float(bitPattern: base | low), Float(bitPattern: base | low | 0x8000_0000)]
                expected += [result, result | 0x8000]
            }
        }
        #expect(narrowed(inputs, to: .bf16, as: UInt16.self, kernels) == expected)
    }

    private static let float8: [DType] = [.f8E4M3, .f8E5M2]

    @Test(arguments: Kernels.available, float8)
    func everyFloat8Widens(kernels: Kernels, dtype: DType) {
        let codes = Array(UInt8.min...UInt8.max), values = widened(dtype, codes, count: codes.count, kernels)
        for (code, found) in zip(codes, values) {
            let expected = Float8.value(of: code, dtype)
            #expect(Double(found).bitPattern == expected.bitPattern || found.isNaN && expected.isNaN, "\(code): \(found)")
        }
        #expect(values.count(where: \.isNaN) == (dtype == .f8E4M3 ? 2 : 6))
    }

    @Test(arguments: Kernels.available, float8)
    func everyFloat8ComesBack(kernels: Kernels, dtype: DType) {
        let codes = Array(UInt8.min...UInt8.max)
        let expected = codes.map { Float8.value(of: $0, dtype).isNaN ? 0x7f : $0 }
        #expect(narrowed(widened(dtype, codes, count: codes.count, kernels), to: dtype, as: UInt8.self, kernels) == expected)
    }

    /// As above, up to what would be the next number after the largest.
    @Test(arguments: Kernels.available, float8)
    func float8RoundsToNearestEven(kernels: Kernels, dtype: DType) {
        var inputs: [Float] = [], expected: [UInt8] = []
        for code in Float8.numbers(dtype) {
            let low = Float(Float8.value(of: code, dtype))
            let isLast = code == Float8.numbers(dtype).upperBound
            let high = Float(isLast ? Float8.limit(dtype) : Float8.value(of: code + 1, dtype)), middle = (low + high) / 2
            for sign in [UInt8(0), 0x80] {
                let factor: Float = sign == 0 ? 1 : -1
                inputs += [low, low.nextUp, middle.nextDown, middle, middle.nextUp, high.nextDown].map { factor * $0 }
                expected += [code, code, code, code % 2 == 0 ? code : code + 1, code + 1, code + 1].map { $0 | sign }
            }
        }
        #expect(narrowed(inputs, to: dtype, as: UInt8.self, kernels) == expected)
    }

    /// As PyTorch casts: without infinities all that is too large is NaN, from above the middle between 448 and the 480 that is
    /// not there.
    @Test(arguments: Kernels.available)
    func whatFloat8DoesNotHold(kernels: Kernels) {
        let inputs: [Float] = [448, 464, Float(464).nextUp, 480, 57_344, Float(61_440).nextDown, 61_440, 65_536, 1e38, .infinity]
        let both = inputs + inputs.map { -$0 } + [.nan, Float(bitPattern: 0xffc0_0000), Float(bitPattern: 0x7f80_0001)]
        func codes(_ positive: [UInt8]) -> [UInt8] { positive + positive.map { $0 | 0x80 } + [0x7f, 0x7f, 0x7f] }
        #expect(
            narrowed(both, to: .f8E4M3, as: UInt8.self, kernels) == codes([0x7e, 0x7e] + Array(repeating: 0x7f, count: 8)))
        #expect(
            narrowed(both, to: .f8E5M2, as: UInt8.self, kernels)
                == codes([0x5f, 0x5f, 0x5f, 0x60, 0x7b, 0x7b, 0x7c, 0x7c, 0x7c, 0x7c]))
        // Below half of the smallest subnormal number nothing is left but the sign.
        for (dtype, half) in [(DType.f8E4M3, Float(0x1p-10)), (.f8E5M2, 0x1p-17)] {
            let small = [0, .leastNonzeroMagnitude, half.nextDown, half, half.nextUp, 3 * half]
            let expected: [UInt8] = [0, 0, 0, 0, 1, 2]
            #expect(narrowed(small, to: dtype, as: UInt8.self, kernels) == expected)
            #expect(narrowed(small.map { -$0 }, to: dtype, as: UInt8.self, kernels) == expected.map { $0 | 0x80 })
        }
    }

    /// Any floats, and whatever is left over at the end of a vector.
    @Test(arguments: Kernels.available, float8)
    func float8OfAnyLength(kernels: Kernels, dtype: DType) {
        var random = SplitMix(seed: 8)
        for length in Array(0...70) + [127, 129, 1001] {
            let values = (0..<length).map { index in
                index % 3 == 0
                    ? Float(bitPattern: UInt32(truncatingIfNeeded: random.next())) : Float.random(in: -8...8, using: &random)
            }
            let codes = values.map { Float8.code(of: Double($0), dtype) }
            #expect(narrowed(values, to: dtype, as: UInt8.self, kernels) == codes)
            let found = widened(dtype, codes, count: length, kernels), expected = codes.map { Float8.value(of: $0, dtype) }
            #expect(zip(found, expected).allSatisfy { Double($0).bitPattern == $1.bitPattern || $0.isNaN && $1.isNaN })
        }
    }

    /// Whichever NaN it was: that depends on the processor. As many as fill a vector, and some that are left over.
    @Test(arguments: Kernels.available)
    func everyNaNIsWrittenAsOne(kernels: Kernels) {
        let patterns: [UInt32] = [0x7f80_0001, 0x7fbf_ffff, 0x7fc0_0000, 0xffff_ffff, 0xff80_0001, 0xffc0_0000, 0x7fff_ffff]
        let values = (0..<5).flatMap { _ in patterns.map { Float(bitPattern: $0) } }
        func isOnly<Bits: FixedWidthInteger>(_ bits: Bits, _ dtype: DType) -> Bool {
            narrowed(values, to: dtype, as: Bits.self, kernels) == values.map { _ in bits }
        }
        #expect(isOnly(Float16.nan.bitPattern, .f16) && isOnly(UInt16(0x7fc0), .bf16))
        #expect(isOnly(Float.nan.bitPattern, .f32) && isOnly(Double.nan.bitPattern, .f64))
        #expect(isOnly(UInt8(0x7f), .f8E4M3) && isOnly(UInt8(0x7f), .f8E5M2))
    }

    @Test(arguments: Kernels.available)
    func doublesRoundOnce(kernels: Kernels) {
        var random = SplitMix(seed: 3)
        let doubles =
            [0, -0.0, 1e300, -1e300, 1e-300, .infinity, 1 + 0x1p-24, 1 + 0x3p-24, 0x1.fffffefp127]
            + (0..<5_000).map { _ in Double(bitPattern: random.next()) }.filter { !$0.isNaN }
        let bytes = doubles.flatMap { withUnsafeBytes(of: $0, Array.init) }
        #expect(widened(.f64, bytes, count: doubles.count, kernels).map(\.bitPattern) == doubles.map { Float($0).bitPattern })
        let floats = doubles.map { Float($0) }
        #expect(narrowed(floats, to: .f64, as: UInt64.self, kernels) == floats.map { Double($0).bitPattern })
    }
}
