import TensorKernels
import TestSupport
import Testing

/// Quantized task vectors, on every level: the same bits as loops that are as plain as the words they are described in.
@Suite(.serialized) struct CodeTests {
    private static let lengths = [0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100, 257, 1000]
    private static let firsts = [0, 1, 5, 8, 13, 64, 257]

    /// Ordinary numbers, zeros of both signs, and ties between codes.
    private func values(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { index in
            switch index % 5 {
            case 0: Float(Int.random(in: -40...40, using: &random)) / 8
            case 1: Bool.random(using: &random) ? 0 : -0.0
            default: Float.random(in: -6...4, using: &random)
            }
        }
    }

    private func codes(_ count: Int, bits: Int, seed: UInt64) -> [UInt8] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in UInt8.random(in: 0...UInt8(1 << bits - 1), using: &random) }
    }

    private func packed(_ codes: [UInt8], bits: Int) -> [UInt8] {
        var stream = [UInt8](repeating: 0, count: Kernels.streamByteCount(codes.count, bits: bits))
        for (index, code) in codes.enumerated() {
            for bit in 0..<bits where code >> bit & 1 == 1 {
                stream[(index * bits + bit) / 8] |= 1 << ((index * bits + bit) % 8)
            }
        }
        return stream
    }

    private func rounded(_ x: Float, highest: UInt8) -> UInt8 {
        x.isNaN ? 0 : UInt8(min(max(x.rounded(.toNearestOrEven), 0), Float(highest)))
    }

    // MARK: Range and squared error

    @Test(arguments: Kernels.available)
    func theRangeIsFound(kernels: Kernels) {
        for count in Self.lengths {
            var x = values(count, seed: 1)
            let range = kernels.range(x, count: count)
            #expect(range == ValueRange(lowest: x.min() ?? .infinity, highest: x.max() ?? -.infinity))
            for bad in [Float.nan, -.infinity, .infinity] where count > 0 {
                for place in Set([0, count / 2, count - 1]) {
                    let good = x[place]
                    x[place] = bad
                    #expect(kernels.range(x, count: count) == nil, "\(bad) at \(place) of \(count)")
                    x[place] = good
                }
            }
        }
        for zeros in [[0, -0.0], [-0.0, 0], [-0.0]] as [[Float]] {
            let range = kernels.range(zeros, count: zeros.count)
            #expect(range?.lowest.bitPattern == 0 && range?.highest.bitPattern == 0)
        }
    }

    @Test(arguments: Kernels.available)
    func squaredErrorsHaveEightLanes(kernels: Kernels) {
        for count in Self.lengths {
            let x = values(count, seed: 1), y = values(count, seed: 2)
            var lanes = [Double](repeating: 0, count: 8)
            for (index, (x, y)) in zip(x, y).enumerated() {
                lanes[index % 8] += (Double(x) - Double(y)) * (Double(x) - Double(y))
            }
            #expect(kernels.squaredError(x, y, count: count).bitPattern == sum(lanes).bitPattern)
            let found = kernels.compare(x, y, count: count)
            #expect(found.squaredError.bitPattern == sum(lanes).bitPattern)
            #expect(found.energy.bitPattern == kernels.dot(x, x, count: count).bitPattern)
            #expect(found.product.bitPattern == kernels.dot(x, y, count: count).bitPattern)
        }
    }

    @Test(arguments: Kernels.available)
    func squaresAreSummedByGroups(kernels: Kernels) {
        for count in Self.lengths {
            let x = values(count, seed: 4)
            for group in [1, 4, 16, 64, 1024] {
                var sums = [Double](repeating: 77, count: (count + group - 1) / group + 1)
                kernels.sumsOfSquares(x, group: group, into: &sums, count: count)
                let expected = stride(from: 0, to: count, by: group).map { start in
                    let own = Array(x[start..<min(count, start + group)])
                    return kernels.dot(own, own, count: own.count)
                }
                #expect(sums == expected + [77], "\(count) in groups of \(group)")
            }
        }
    }

    private func sum(_ lanes: [Double]) -> Double {
        ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
    }

    // MARK: Quantization

    @Test(arguments: Kernels.available)
    func quantizationRoundsProductAndSum(kernels: Kernels) {
        for count in Self.lengths {
            var x = values(count, seed: 3)
            for (place, odd) in zip([3, 11, 30], [Float.nan, .infinity, -.infinity]) where place < count { x[place] = odd }
            for (factor, offset) in [(Float(1), 3.0), (0.3, 1.5), (25, -7.25), (-3, 0), (1e9, 100)] {
                for highest: UInt8 in [1, 3, 7, 100, 255] {
                    var found = [UInt8](repeating: 0xee, count: count)
                    kernels.quantize(x, factor: factor, offset: offset, highest: highest, into: &found, count: count)
                    #expect(found == x.map { rounded($0 * factor + Float(offset), highest: highest) })
                }
            }
        }
    }

    /// A range far from zero: in float32 the sum would have lost what tells the codes apart.
    @Test(arguments: Kernels.available)
    func farOffsetsAreExact(kernels: Kernels) {
        for offset in [-3_000_000.25, 1_048_576, -1_048_576.5, 1e12] {
            let center = Float(-offset)
            let x = (0..<100).map { Float(bitPattern: center.bitPattern + UInt32($0)) } + [.nan, .infinity, -.infinity]
            for factor in [Float(1), 1.7] {
                let expected = x.map { x -> UInt8 in
                    let sum = Double(x) * Double(factor) + offset
                    return sum.isNaN ? 0 : UInt8(min(max(sum.rounded(.toNearestOrEven), 0), 255))
                }
                var found = [UInt8](repeating: 0, count: x.count)
                kernels.quantize(x, factor: factor, offset: offset, highest: 255, into: &found, count: x.count)
                #expect(found == expected, "\(offset), \(factor)")
            }
        }
    }

    // MARK: Streams

    @Test(arguments: Kernels.available, 1...8)
    func codesArePacked(kernels: Kernels, bits: Int) {
        for count in Self.lengths {
            let codes = codes(count, bits: bits, seed: 4), expected = packed(codes, bits: bits)
            for shift in [0, 1, 3] {
                // What stands around the stream stays.
                let around = [UInt8](repeating: 0xee, count: shift)
                var found = around + [UInt8](repeating: 0x55, count: expected.count) + [0xee]
                found.withUnsafeMutableBytes { bytes in
                    if let first = bytes.baseAddress { kernels.pack(codes, bits: bits, into: first + shift, count: count) }
                }
                #expect(found == around + expected + [0xee], "\(bits) bits, \(count) codes")
            }
            // What a code has beyond its width is dropped.
            var found = [UInt8](repeating: 0, count: expected.count)
            kernels.pack(codes.map { $0 | UInt8(truncatingIfNeeded: 0xff << bits) }, bits: bits, into: &found, count: count)
            #expect(found == expected)
        }
    }

    @Test(arguments: Kernels.available, 1...8)
    func codesAreLookedUpFromAnywhere(kernels: Kernels, bits: Int) {
        let table = values(1 << bits, seed: 5)
        for count in Self.lengths {
            for first in Self.firsts {
                let codes = codes(first + count, bits: bits, seed: 6), stream = packed(codes, bits: bits)
                var looked = [Float](repeating: 0, count: count) + [77]
                kernels.dequantize(stream, bits: bits, first: first, values: table, into: &looked, count: count)
                let wanted = Array(codes[first...])
                #expect(looked == wanted.map { table[Int($0)] } + [77], "\(bits) bits, \(first) + \(count)")
            }
        }
    }

    @Test(arguments: Kernels.available, 1...8)
    func groupsAreDecodedFromAnywhere(kernels: Kernels, bits: Int) {
        var random = SplitMix(seed: 7)
        for group in [1, 4, 8, 32, 128] {
            for count in [0, 1, 9, 64, 257] {
                for first in [0, 5, 8, 131] {
                    let codes = codes(first + count, bits: bits, seed: 8), stream = packed(codes, bits: bits)
                    let groups = (first + count) / group + 1 - first / group
                    let scales = (0..<groups).map { _ in Float.random(in: -1...1, using: &random) }
                    let zero = Float(Int.random(in: 0..<512, using: &random)) / 2
                    var found = [Float](repeating: 0, count: count) + [77]
                    kernels.dequantize(
                        stream, bits: bits, first: first, group: group, scales: scales, zero: zero, into: &found, count: count)
                    let expected = (first..<first + count).map { index in
                        (Float(codes[index]) - zero) * scales[index / group - first / group]
                    }
                    #expect(found == expected + [77], "\(bits) bits, groups of \(group), \(first) + \(count)")
                }
            }
        }
    }
}
