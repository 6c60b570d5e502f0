import TensorKernels
import TestSupport
import Testing

/// Counting around a window of magnitudes, and selecting among those in it.
@Suite struct WindowTests {
    /// Numbers of both signs, of which some are equal, some zero and some no numbers.
    private static func values(_ count: Int) -> [Float] {
        var random = SplitMix(seed: 3)
        return (0..<count).map { index in
            switch index % 7 {
            case 0: [0, -0, 0.5, -0.5, 0.75, .infinity, .nan].randomElement(using: &random) ?? 0
            case 1: Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
            default: Float.random(in: -1...1, using: &random)
            }
        }
    }

    private static let windows: [ClosedRange<UInt32>] = [
        0...0, 0...0x7fff_ffff, 0x7fff_ffff...0x7fff_ffff, 0...1, 0x3f00_0000...0x3f00_0000, 0x3f00_0000...0x3f40_0000,
        0x3eff_ffff...0x3f00_0001, 0x3e80_0000...0x7f80_0000, 0x7f80_0001...0x7fc0_0000,
    ]

    @Test(arguments: Kernels.available, [0, 1, 31, 32, 33, 95, 1_000, 8_192])
    func countsAreThoseOfALoop(kernels: Kernels, count: Int) {
        let values = Self.values(count), patterns = values.map { $0.bitPattern & 0x7fff_ffff }
        for window in Self.windows {
            var counted = WindowCount(), asked = 0
            // In two ranges that begin and end anywhere.
            let ranges = [0..<count / 3, count / 3..<count]
            for range in ranges {
                values.withUnsafeBufferPointer { values in
                    guard let first = values.baseAddress else { return }
                    counted.add(first + range.lowerBound, count: range.count, around: window, kernels: kernels) { noted in
                        asked += noted
                        return true
                    }
                }
            }
            let between = patterns.filter { $0 > window.lowerBound && $0 < window.upperBound }
            #expect(counted.above == patterns.count { $0 > window.upperBound }, "\(window)")
            #expect(counted.atHigh.reduce(0, +) == patterns.count { $0 == window.upperBound }, "\(window)")
            #expect(counted.atLow.reduce(0, +) == patterns.count { $0 == window.lowerBound }, "\(window)")
            #expect(counted.between == between && asked == between.count, "\(window)")
            func byRange(_ pattern: UInt32) -> [Int] { ranges.map { patterns[$0].count { $0 == pattern } } }
            #expect(counted.atHigh == byRange(window.upperBound), "\(window)")
            #expect(counted.atLow == byRange(window.lowerBound), "\(window)")
            for pattern in Set(between) { #expect(counted.equal(to: pattern) == byRange(pattern), "\(window)") }
        }
    }

    /// Patterns that do not fit are counted all the same, and not noted any more.
    @Test func withoutMemoryNothingIsNoted() {
        let values: [Float] = [4, 1, 2, 3, -2, 0]
        var counted = WindowCount()
        for hasSpace in [true, false, true] {
            counted.add(
                values, count: values.count, around: Float(1).bitPattern...Float(3).bitPattern, kernels: .best,
                buffer: { _ in hasSpace })
        }
        #expect(
            counted.above == 3 && counted.atHigh.reduce(0, +) == 3 && counted.atLow.reduce(0, +) == 3 && counted.between == nil)
        #expect(counted.atHigh == [1, 1, 1] && counted.equal(to: Float(2).bitPattern) == nil)
    }

    @Test(arguments: [1, 2, 500, 20_000])
    func selectionIsWhatSortingFinds(count: Int) {
        var random = SplitMix(seed: 12)
        let kinds: [() -> UInt32] = [
            { UInt32(truncatingIfNeeded: random.next()) >> 1 },
            { 0x3f80_0000 + UInt32(truncatingIfNeeded: random.next()) % 70_000 },
            { [0, 1, 0x3f80_0000, 0x7fff_ffff][Int(random.next() % 4)] }, { 77 },
        ]
        for next in kinds {
            let patterns = (0..<count).map { _ in next() }, sorted = patterns.sorted(by: >)
            let lists = [Array(patterns[..<(count / 3)]), [], Array(patterns[(count / 3)...])]
            for range in [0...0x7fff_ffff, sorted[count - 1]...sorted[0]] {
                for rank in Set([1, count / 2, count / 3 + 1, count - 1, count]) where rank >= 1 {
                    #expect(lists.largest(rank, in: range) == sorted[rank - 1], "\(rank) of \(count)")
                }
                #expect(lists.largest(count + 1, in: range) == nil)
            }
        }
    }
}
