import Checkpoints
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

    @Test(arguments: Kernels.available)
    func notANumberStaysNotANumber(kernels: Kernels) {
        let values = [0x7f80_0001, 0x7fbf_ffff, 0x7fc0_0000, 0xffff_ffff, 0xff80_0001].map { Float(bitPattern: $0) }
        #expect(narrowed(values, to: .f16, as: UInt16.self, kernels).allSatisfy { Float16(bitPattern: $0).isNaN })
        #expect(narrowed(values, to: .bf16, as: UInt16.self, kernels).allSatisfy { Float(bitPattern: UInt32($0) << 16).isNaN })
        #expect(narrowed(values, to: .f64, as: UInt64.self, kernels).allSatisfy { Double(bitPattern: $0).isNaN })
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
