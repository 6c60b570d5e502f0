import TensorKernels
import TestSupport
import Testing

/// The loops over thinned vectors, on every level: the same bits as a plain loop, and nothing beyond their ends.
@Suite(.serialized) struct ThinnedTests {
    private static let counts = [1, 5, 64, 513, 4099, 8192, 20_001]

    private static func numbers(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in Float.random(in: -1...1, using: &random) }
    }

    /// The kept element of every stratum, as `Thinning` says it.
    private static func places(_ thinning: Thinning) -> [Int] {
        let strata = thinning.strata(of: 0..<thinning.count)
        var words = [UInt32](repeating: 0, count: strata.count / 4 + 1)
        CounterRandom(key: thinning.key, stream: 0).draw(first: 0, into: &words, count: words.count, kernels: .portable)
        return strata.map { stratum in
            let start = stratum * thinning.every, left = min(thinning.every, thinning.count - start)
            return start + Int(words[stratum / 4] >> (8 * UInt32(stratum % 4)) & 0xff) * left / 256
        }
    }

    @Test(arguments: Thinning.strides)
    func picksAndPlacesWhatThePlainLoopDoes(every: Int) {
        var random = SplitMix(seed: UInt64(every))
        for count in Self.counts {
            let thinning = Thinning(key: random.next(), every: every, count: count), x = Self.numbers(count, seed: 3)
            let places = Self.places(thinning), strata = places.count
            var whole = [Float](repeating: 0, count: count)
            for place in places { whole[place] = x[place] }
            // Where a tile may begin.
            let start = count / 2 / (4 * every) * (4 * every), first = start / every
            for kernels in Kernels.available {
                var kept = [Float](repeating: 77, count: strata - first + 1)
                x.withUnsafeBufferPointer { x in
                    guard let x = x.baseAddress else { return }
                    kernels.pick(thinning, of: x + start, start..<count, into: &kept)
                }
                #expect(kept == places[first...].map { x[$0] } + [77], "\(kernels), every \(every) of \(count)")
                for _ in 0..<8 {
                    let low = Int.random(in: 0..<count, using: &random), range = low..<Int.random(in: low...count, using: &random)
                    let own = thinning.strata(of: range).map { x[places[$0]] } + [0]
                    var target = [Float](repeating: 77, count: range.count + 1)
                    kernels.place(thinning, own, into: &target, range)
                    #expect(target == Array(whole[range]) + [77], "\(kernels), every \(every) of \(count), \(range)")
                }
            }
        }
    }

    /// Codes, scales and numbers are the same on every level; and the scale is what was wanted, to bfloat16.
    @Test(arguments: 1...8, [1, 8, 128])
    func fitsTheSameEverywhere(bits: Int, every: Int) {
        for (group, count) in [(16, 45), (64, 200), (64, 64), (1024, 1500)] {
            let x = Self.numbers(count, seed: UInt64(bits * count)), groups = (count + group - 1) / group
            let energies = stride(from: 0, to: count, by: group).map { start in
                x[start..<min(count, start + group)].reduce(0.0) { $0 + Double($1) * Double($1) }
            }
            let wanted = energies.map { $0 * Double(every) * 1.1 }
            var first: (scales: [Float], codes: [UInt8], decoded: [Float])?
            for kernels in Kernels.available {
                var scales = [Float](repeating: 77, count: groups + 1), codes = [UInt8](repeating: 0xee, count: count + 1)
                var decoded = [Float](repeating: 77, count: count + 1)
                kernels.fitKept(
                    x, wanted: wanted, every: every, group: group, bits: bits, scales: &scales, codes: &codes, decoded: &decoded,
                    count: count)
                #expect(scales.removeLast() == 77 && codes.removeLast() == 0xee && decoded.removeLast() == 77)
                for index in 0..<count {
                    #expect(decoded[index] == (Float(codes[index]) - Kernels.risingZero(bits: bits)) * scales[index / group])
                    #expect(decoded[index] != 0)
                }
                for (number, wanted) in wanted.enumerated() {
                    let own = number * group..<min(count, (number + 1) * group)
                    let product = own.reduce(0.0) { $0 + Double(x[$1]) * Double(decoded[$1]) }
                    #expect((product / wanted - 1).magnitude < 0.005, "\(bits) bits, groups of \(group): \(product / wanted)")
                }
                guard let found = first else {
                    first = (scales, codes, decoded)
                    continue
                }
                #expect(found.scales == scales && found.codes == codes && found.decoded == decoded, "\(kernels)")
            }
        }
    }

    /// Zeros have no direction, and a wanted product that no scale can give is not chased to infinity.
    @Test func whatHasNoScaleIsZero() {
        let kernels = Kernels.best
        var scales: [Float] = [1], codes = [UInt8](repeating: 9, count: 64), decoded = [Float](repeating: 9, count: 64)
        kernels.fitKept(
            [Float](repeating: 0, count: 64), wanted: [1e30], every: 8, group: 64, bits: 2, scales: &scales, codes: &codes,
            decoded: &decoded, count: 64)
        #expect(scales == [0] && decoded.allSatisfy { $0 == 0 })
        let x = Self.numbers(64, seed: 1)
        kernels.fitKept(
            x, wanted: [1e30], every: 8, group: 64, bits: 2, scales: &scales, codes: &codes, decoded: &decoded, count: 64)
        #expect(scales[0].magnitude < 32)
    }
}
