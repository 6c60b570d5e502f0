import TensorKernels
import TestSupport
import Testing

@Suite struct RandomTests {
    /// Where an element's word comes from: four words of each of eight counters.
    private func words(key: UInt64, stream: UInt32, group: Int, kernels: Kernels) -> [[UInt32]] {
        var words = [UInt32](repeating: 0, count: 32)
        CounterRandom(key: key, stream: stream).draw(first: 32 * group, into: &words, count: 32, kernels: kernels)
        return (0..<8).map { lane in (0..<4).map { words[lane + 8 * $0] } }
    }

    /// The first of the published test vectors of Random123 (philox4x32, 10 rounds): key and counter are zero.
    @Test(arguments: Kernels.available)
    func philoxMatchesItsPublishedVector(kernels: Kernels) {
        #expect(
            words(key: 0, stream: 0, group: 0, kernels: kernels)[0] == [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8])
    }

    /// The others have counters of which we leave the fourth word at zero, so they check this plain version, and this the
    /// kernels.
    private func philox(_ counter: [UInt32], _ key: [UInt32]) -> [UInt32] {
        var c = counter, k = key
        for _ in 0..<10 {
            let p = UInt64(0xd251_1f53) * UInt64(c[0]), q = UInt64(0xcd9e_8d57) * UInt64(c[2])
            c = [
                UInt32(truncatingIfNeeded: q >> 32) ^ c[1] ^ k[0], UInt32(truncatingIfNeeded: q),
                UInt32(truncatingIfNeeded: p >> 32) ^ c[3] ^ k[1], UInt32(truncatingIfNeeded: p),
            ]
            k = [k[0] &+ 0x9e37_79b9, k[1] &+ 0xbb67_ae85]
        }
        return c
    }

    @Test func thePlainVersionMatchesThePublishedVectors() {
        #expect(philox([0, 0, 0, 0], [0, 0]) == [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8])
        #expect(
            philox([.max, .max, .max, .max], [.max, .max]) == [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd])
        #expect(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0])
                == [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1])
    }

    @Test(arguments: Kernels.available, [0, 1, 77, (1 << 32) / 8 - 1, (1 << 32) / 8, 1 << 40])
    func everyLaneIsPhilox(kernels: Kernels, group: Int) {
        let found = words(key: 0x299f_31d0_a409_3822, stream: 5, group: group, kernels: kernels)
        for lane in 0..<8 {
            let counter = UInt64(group) * 8 + UInt64(lane)
            let expected = philox(
                [UInt32(truncatingIfNeeded: counter), UInt32(counter >> 32), 5, 0], [0xa409_3822, 0x299f_31d0])
            #expect(found[lane] == expected)
        }
    }

    /// A word depends on its element alone, wherever the range that is drawn begins and ends.
    @Test(arguments: Kernels.available)
    func anyRangeHasTheSameWords(kernels: Kernels) {
        let random = CounterRandom(key: 42, stream: 3)
        var all = [UInt32](repeating: 0, count: 3_000)
        random.draw(first: 0, into: &all, count: 3_000, kernels: .portable)
        for (first, count) in [(0, 1), (1, 31), (31, 2), (32, 32), (33, 1_000), (999, 0), (1_000, 2_000)] {
            var some = [UInt32](repeating: 0, count: count)
            random.draw(first: first, into: &some, count: count, kernels: kernels)
            #expect(some == Array(all[first..<first + count]))
            var flags = [UInt8](repeating: 2, count: count)
            random.flag(probability: 0.25, first: first, &flags, count: count, kernels: kernels)
            #expect(flags == all[first..<first + count].map { $0 < 1 << 30 ? 1 : 0 })
        }
    }

    @Test(arguments: Kernels.available)
    func flagsAreNotedAsBits(kernels: Kernels) {
        for count in [0, 1, 31, 32, 33, 1_000] {
            let flags = (0..<count).map { UInt8($0 % 3 % 2) }
            var bits = [UInt32](repeating: .max, count: (count + 31) / 32), found = [UInt8](repeating: 2, count: count)
            kernels.pack(flags, into: &bits, count: count)
            #expect((0..<count).allSatisfy { bits[$0 / 32] >> ($0 % 32) & 1 == flags[$0] })
            kernels.unpack(bits, into: &found, count: count)
            #expect(found == flags)
        }
    }

    /// What a row may hold: equal magnitudes, many decades, subnormals, infinities.
    private func rows(_ count: Int) -> [(String, [Float])] {
        var random = SplitMix(seed: UInt64(count))
        func row(_ value: (inout SplitMix) -> Float) -> [Float] { (0..<count).map { _ in value(&random) } }
        let any = row { Float(bitPattern: UInt32(truncatingIfNeeded: $0.next())) }
        return [
            ("uniform", row { Float.random(in: -1...1, using: &$0) }),
            ("few values", row { Float(Int.random(in: -4...4, using: &$0)) / 256 }),
            ("mostly zero", row { Int.random(in: 0..<10, using: &$0) > 0 ? 0 : Float.random(in: -1...1, using: &$0) }),
            ("all zero", row { Bool.random(using: &$0) ? 0 : -0.0 }),
            ("all equal", row { Bool.random(using: &$0) ? 0.75 : -0.75 }),
            ("nearly equal", row { Float(bitPattern: Float(0.75).bitPattern + UInt32.random(in: 0...70, using: &$0)) }),
            (
                "decades",
                row {
                    Float.random(in: 0...1, using: &$0)
                        * Float(sign: .plus, exponent: .random(in: -90...90, using: &$0), significand: 1)
                }
            ),
            ("subnormal", row { Float(bitPattern: UInt32.random(in: 0...200, using: &$0)) }),
            (
                "far below the largest",
                row { Int.random(in: 0..<20, using: &$0) > 0 ? Float.random(in: 0...0x1p-40, using: &$0) : 1 }
            ),
            (
                "extremes",
                row { [0, .leastNonzeroMagnitude, -.greatestFiniteMagnitude, .infinity][Int.random(in: 0..<4, using: &$0)] }
            ),
            ("any pattern", any.map { $0.isNaN ? .infinity : $0 }),
        ]
    }

    /// DELLA's choice against ranks that are found by sorting, where few and where many elements need theirs.
    @Test(arguments: Kernels.available, [1, 2, 31, 33, 63, 64, 65, 896, 4_864])
    func elementsStayByTheirRank(kernels: Kernels, count: Int) {
        for (name, row) in rows(count) {
            check(name, row, [(0.35, 0.3), (0.1, 0.8), (0.5, 0), (0.0, 1.0)], kernels: kernels)
        }
    }

    @Test(arguments: Kernels.available)
    func elementsOfLongRowsStayByTheirRank(kernels: Kernels) {
        for (name, row) in rows(151_936) where ["uniform", "few values", "all equal", "mostly zero"].contains(name) {
            check(name, row, [(0.35, 0.3)], kernels: kernels)
        }
    }

    private func check(_ name: String, _ row: [Float], _ probabilities: [(lowest: Double, spread: Double)], kernels: Kernels) {
        let count = row.count
        let random = CounterRandom(key: 5, stream: 2), buffer = RankBuffer()
        // Also across where the counter's second word goes on.
        let first = count % 2 == 0 ? (1 << 34) - count / 2 : 3
        var words = [UInt32](repeating: 0, count: count)
        random.draw(first: first, into: &words, count: count, kernels: .portable)
        let order = row.indices.sorted { (row[$0].magnitude, $0) < (row[$1].magnitude, $1) }
        for (lowest, spread) in probabilities {
            var flags = [UInt8](repeating: 9, count: count), expected = flags
            for (rank, index) in order.enumerated() {
                let q = count > 1 ? Double(rank) / Double(count - 1) : 0.5
                let limit = min((lowest + q * spread) * 0x1p32, Double(UInt32.max)).rounded(.down)
                expected[index] = Double(words[index]) < limit ? 1 : 0
            }
            buffer.choose(
                row, words: &words, lowest: lowest, spread: spread, flags: &flags, count: count, kernels: kernels)
            #expect(
                row.indices.allSatisfy { row[$0] == 0 || flags[$0] == expected[$0] }, "\(name), \(lowest), \(spread)")
            #expect(flags.allSatisfy { $0 <= 1 })
            var others = [UInt8](repeating: 9, count: count)
            buffer.choose(
                row, random, first: first, lowest: lowest, spread: spread, flags: &others, count: count, kernels: kernels)
            #expect(others == flags, "\(name), \(lowest), \(spread)")
        }
    }

    @Test func keysDifferBySeedAndName() throws {
        let keys = try [(0, "a"), (1, "a"), (0, "b"), (256, "a")].map { try CounterRandom.key(seed: $0, tensor: $1) }
        #expect(Set(keys).count == keys.count)
        #expect(try CounterRandom.key(seed: 0, tensor: "a") == keys[0])
    }

    @Test func wordsAreSpreadEvenly() {
        var words = [UInt32](repeating: 0, count: 1 << 18), bits = [Int](repeating: 0, count: 32),
            cells = [Int](repeating: 0, count: 256)
        CounterRandom(key: 7, stream: 0).draw(first: 0, into: &words, count: words.count, kernels: .best)
        for word in words {
            for bit in 0..<32 { bits[bit] += Int(word >> bit & 1) }
            cells[Int(word >> 24)] += 1
        }
        let half = Double(words.count) / 2
        #expect(bits.allSatisfy { (Double($0) - half).magnitude < 5 * (half / 2).squareRoot() })
        let expected = Double(words.count) / 256
        let chi = cells.reduce(0) { $0 + (Double($1) - expected) * (Double($1) - expected) / expected }
        #expect((chi - 255).magnitude < 5 * (2 * 255.0).squareRoot())
    }
}
