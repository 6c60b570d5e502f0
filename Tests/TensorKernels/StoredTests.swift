import Checkpoints
import TensorKernels
import TestSupport
import Testing

/// The fused loops over stored elements compute the same bits as the single steps, on every level, for every type.
@Suite(.serialized) struct StoredTests {
    private static let types: [DType] = [.f32, .bf16, .f16, .f64]
    private static let lengths = [0, 1, 31, 64, 65, 1000]

    private func values(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in Float.random(in: -1...1, using: &random) }
    }

    /// Bytes of random numbers in a type, one byte off any alignment.
    private func stored(_ count: Int, _ dtype: DType, seed: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 1 + count * dtype.bitWidth / 8)
        bytes.withUnsafeMutableBytes { bytes in
            if let first = bytes.baseAddress {
                Kernels.portable.narrow(values(count, seed: seed), to: dtype, first + 1, count: count)
            }
        }
        return bytes
    }

    private func widened(_ bytes: [UInt8], _ dtype: DType, count: Int) -> [Float] {
        var values = [Float](repeating: 0, count: count)
        bytes.withUnsafeBytes { bytes in
            if let first = bytes.baseAddress { Kernels.portable.widen(dtype, first + 1, &values, count: count) }
        }
        return values
    }

    private func vector<Result>(_ bytes: [UInt8], _ dtype: DType, _ body: (StoredVector) throws -> Result) rethrows -> Result? {
        try bytes.withUnsafeBytes { bytes in try bytes.baseAddress.map { try body(StoredVector($0 + 1, dtype)) } }
    }

    @Test(arguments: types, Kernels.available)
    func differencesAreWidenedAndSubtracted(dtype: DType, kernels: Kernels) {
        for other in Self.types {
            for count in Self.lengths {
                let x = stored(count, dtype, seed: 1), y = stored(count, other, seed: 2)
                var expected = widened(x, dtype, count: count), found = [Float](repeating: .nan, count: count)
                Kernels.portable.subtract(expected, widened(y, other, count: count), into: &expected, count: count)
                _ = vector(x, dtype) { x in vector(y, other) { y in kernels.difference(x, y, into: &found, count: count) } }
                #expect(found.map(\.bitPattern) == expected.map(\.bitPattern), "\(dtype) - \(other), \(count), \(kernels)")
            }
        }
    }

    @Test(arguments: Kernels.available, [true, false])
    func trimmedMergesAreTheirSteps(kernels: Kernels, isConsensus: Bool) throws {
        let count = 1000, types: [DType] = [.bf16, .f32, .f16], weights: [Float] = [0.5, -0.3, 0.8],
            factors: [Float] = [1, 1.25, 0.9]
        let bands = [MagnitudeBand.all, .none, MagnitudeBand(from: Float(0.4).bitPattern, to: Float(1.1).bitPattern)]
        let models = types.indices.map { stored(count, types[$0], seed: UInt64($0)) }, base = stored(count, .bf16, seed: 9)
        for (normalize, lambda, divisor) in [(true, Float(1), Float(1)), (false, 0.7, 1), (true, 1.5, 2.5)] {
            let wideBase = widened(base, .bf16, count: count), portable = Kernels.portable
            var expected = [Float](repeating: 0, count: count)
            var entries: [[Float]] = []
            for (index, model) in models.enumerated() {
                var entry = widened(model, types[index], count: count)
                portable.subtract(entry, wideBase, into: &entry, count: count)
                portable.keep(bands[index], &entry, count: count)
                portable.scale(entry, by: factors[index], into: &entry, count: count)
                if isConsensus {
                    portable.scale(entry, by: weights[index], into: &entry, count: count)
                } else {
                    portable.axpy(weights[index], entry, into: &expected, count: count)
                }
                entries.append(entry)
            }
            if isConsensus {
                entries[0].withUnsafeBufferPointer { a in
                    entries[1].withUnsafeBufferPointer { b in
                        entries[2].withUnsafeBufferPointer { c in
                            portable.signConsensus(
                                [a, b, c].compactMap(\.baseAddress), weights: weights, normalize: normalize, into: &expected,
                                count: count)
                        }
                    }
                }
            } else {
                portable.divide(&expected, by: divisor, count: count)
            }
            portable.scale(expected, by: lambda, into: &expected, count: count)
            portable.add(wideBase, to: &expected, count: count)

            var found = [Float](repeating: .nan, count: count)
            _ = vector(base, .bf16) { base in
                vector(models[0], types[0]) { a in
                    vector(models[1], types[1]) { b in
                        vector(models[2], types[2]) { c in
                            let merge = Kernels.TrimmedMerge(
                                [a, b, c], base: base, weights: weights, factors: factors, isConsensus: isConsensus,
                                normalize: normalize, divisor: divisor, lambda: lambda)
                            // In two stretches that begin and end anywhere.
                            for range in [0..<333, 333..<count] {
                                merge.apply(range, bands: bands, into: &found, kernels: kernels)
                            }
                        }
                    }
                }
            }
            #expect(found.map(\.bitPattern) == expected.map(\.bitPattern), "\(kernels), \(normalize), \(lambda), \(divisor)")
        }
    }

    /// The second round of a histogram notes what it counts, in order and as far as there is room.
    @Test(arguments: Kernels.available, [0, 5, 10_000])
    func whatIsCountedIsNoted(kernels: Kernels, room: Int) throws {
        let high = Float(0.5).bitPattern >> 16
        var random = SplitMix(seed: 7)
        let values = (0..<1000).map { index in
            let low = UInt32(index % 3 == 0 ? 0 : UInt16(truncatingIfNeeded: random.next()))
            return Float(bitPattern: (high + UInt32(index % 5 == 0 ? 1 : 0)) << 16 | low | (index % 2 == 0 ? 1 << 31 : 0))
        }
        let near = values.map(\.magnitude.bitPattern).filter { $0 >> 16 == high }.map { UInt16(truncatingIfNeeded: $0) }
        var histogram = MagnitudeHistogram.fine(inBin: high)
        let notes = [UInt16](unsafeUninitializedCapacity: room) { buffer, count in
            let hits = UnsafeMutableBufferPointer(start: buffer.baseAddress, count: room)
            let found = histogram.add(values, count: values.count, hits: hits, kernels: kernels)
            #expect(found.hits == near.count { $0 != 0 } && found.zeros == near.count { $0 == 0 })
            count = min(room, found.hits)
        }
        #expect(notes == Array(near.filter { $0 != 0 }.prefix(room)))
        #expect(histogram.place(ofLargest: near.count)?.inside == near.count { $0 == near.min() })
    }
}
