import TensorKernels
import TestSupport
import Testing

/// Bitmaps and what is done by them, on every level: the same as loops over arrays of Bool.
@Suite(.serialized) struct BitmapTests {
    private static let lengths = [0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100, 257, 1000]
    private static let firsts = [0, 1, 5, 8, 13, 64, 257]

    private func values(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { index in
            switch Int.random(in: 0..<8, using: &random) {
            case 0: 0
            case 1: -0.0
            case 2: Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
            default: Float(Int.random(in: -8...8, using: &random)) / 4
            }
        }
    }

    private func flags(_ count: Int, density: Double, seed: UInt64) -> [Bool] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in Double.random(in: 0..<1, using: &random) < density }
    }

    private func bitmap(_ flags: [Bool]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: (flags.count + 7) / 8)
        for (index, flag) in flags.enumerated() where flag { bytes[index / 8] |= 1 << (index % 8) }
        return bytes
    }

    private static func patterns(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }

    /// A bitmap of `count` bits as it is made, with a byte behind it that must stay.
    private func made(_ count: Int, _ body: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0x55, count: (count + 7) / 8) + [0xee]
        bytes.withUnsafeMutableBytes { if let first = $0.baseAddress { body(first) } }
        #expect(bytes.last == 0xee)
        return bytes.dropLast()
    }

    @Test(arguments: Kernels.available)
    func bitmapsAreMade(kernels: Kernels) {
        for count in Self.lengths {
            let x = values(count, seed: 1), y = values(count, seed: 2)
            #expect(made(count) { kernels.bits(ofNonzero: x, into: $0, count: count) } == bitmap(x.map { $0 != 0 }))
            for factor in [Float(0), 0.3, 1, 2.5] {
                #expect(
                    made(count) { kernels.bits(of: x, above: factor, times: y, into: $0, count: count) }
                        == bitmap(zip(x, y).map { $0.magnitude > factor * $1.magnitude }))
            }
            #expect(
                made(count) { kernels.bits(of: x, agreeingWith: y, into: $0, count: count) }
                    == bitmap(zip(x, y).map { $0 > 0 && $1 > 0 || $0 < 0 && $1 < 0 }))
        }
    }

    @Test(arguments: Kernels.available, [0, 0.1, 0.5, 0.95, 1])
    func bitmapsAreApplied(kernels: Kernels, density: Double) {
        for count in Self.lengths {
            for first in Self.firsts {
                let flags = flags(first + count, density: density, seed: 3), bits = bitmap(flags)
                let x = values(count, seed: 4), own = Array(flags[first...])
                // Bits beyond the first `first + count` are none of ours.
                var dirty = bits
                if let last = bits.indices.last {
                    dirty[last] |= UInt8(truncatingIfNeeded: 0xff << ((first + count - 1) % 8 + 1))
                }
                #expect(kernels.countBits(dirty, count: first + count) == flags.count { $0 })

                var kept = x + [77]
                kernels.apply(bits, first: first, to: &kept, count: count)
                #expect(Self.patterns(kept) == Self.patterns(zip(x, own).map { $1 ? $0 : 0 } + [77]))

                let chosen = zip(x, own).filter(\.1).map(\.0)
                if first == 0 {
                    var compressed = [Float](repeating: 0, count: chosen.count) + [77]
                    #expect(kernels.compress(x, bits: dirty, into: &compressed, count: count) == chosen.count)
                    #expect(Self.patterns(compressed) == Self.patterns(chosen + [77]))
                }
                var expanded = [Float](repeating: 1, count: count) + [77]
                #expect(kernels.expand(chosen, bits: dirty, first: first, into: &expanded, count: count) == chosen.count)
                #expect(Self.patterns(expanded) == Self.patterns(zip(x, own).map { $1 ? $0 : 0 } + [77]))
            }
        }
    }

    // MARK: n of m

    /// By sorting, as the words say it.
    private func largest(_ kept: Int, _ x: [Float], taken: [UInt8]) -> [UInt8] {
        let order = x.indices.sorted { a, b in
            let (ranks, others) = ((taken[a] == 0 ? 0 : 1, a), (taken[b] == 0 ? 0 : 1, b))
            if ranks.0 != others.0 { return ranks.0 < others.0 }
            let (large, small) = (x[a].magnitude.bitPattern, x[b].magnitude.bitPattern)
            return large != small ? large > small : a < b
        }
        var flags = [UInt8](repeating: 0, count: x.count)
        for index in order.prefix(kept) where x[index] != 0 { flags[index] = 1 }
        return flags
    }

    @Test(arguments: Kernels.available, [1, 3, 4, 8, 16, 31, 32, 33, 100, 1024])
    func theLargestOfEachBlockStay(kernels: Kernels, block: Int) {
        for blocks in [1, 2] {
            for tail in Set([0, 1, block - 1]) {
                let count = blocks * block + tail
                for (seed, density) in zip(UInt64(0)..., [0, 0.5, 1]) {
                    let x = values(count, seed: seed)
                    let taken = flags(count, density: density, seed: seed + 10).map { UInt8($0 ? 255 : 0) }
                    for kept in Set([0, 1, block / 4, block / 2 + 1, block]) {
                        let keptAtEnd = min(kept, tail)
                        var found = [UInt8](repeating: 9, count: count) + [0xee]
                        kernels.keepLargest(
                            kept, ofEach: block, keptAtEnd: keptAtEnd, x, taken: taken, into: &found, count: count)
                        let expected = stride(from: 0, to: count, by: block).flatMap { start -> [UInt8] in
                            let range = start..<min(start + block, count)
                            return largest(
                                range.count == block ? kept : keptAtEnd, Array(x[range]), taken: Array(taken[range]))
                        }
                        #expect(found == expected + [0xee], "\(kept) of \(block), \(count) elements")
                    }
                }
            }
        }
    }

    @Test(arguments: Kernels.available)
    func freePositionsComeFirst(kernels: Kernels) {
        var found = [UInt8](repeating: 9, count: 8)
        kernels.keepLargest(
            2, ofEach: 4, keptAtEnd: 0, [5, -1, 2, -1, 7, 6, 3, 0], taken: [1, 0, 1, 0, 1, 1, 0, 1], into: &found, count: 8)
        #expect(found == [0, 1, 0, 1, 1, 0, 1, 0])
        // A zero is never kept, but while it is free it takes its place.
        kernels.keepLargest(
            2, ofEach: 4, keptAtEnd: 0, [5, 0, 2, -1, 2, -2, 2, 2], taken: [1, 0, 1, 0, 0, 0, 0, 0], into: &found, count: 8)
        #expect(found == [0, 0, 0, 1, 1, 1, 0, 0])
    }
}
