import TensorKernels
import TestSupport
import Testing

/// Grids that are fitted to groups, on every level: the same bits as a plain loop, and as good as they say.
@Suite(.serialized) struct GridFitTests {
    /// Numbers of many kinds: what task vectors look like, and what none ever should.
    private static let kinds: [String: @Sendable (inout SplitMix) -> Float] = [
        "normal": { normal(&$0) },
        "long tails": {
            let x = normal(&$0)
            return x * x * x
        },
        "sparse": { Int.random(in: 0..<10, using: &$0) == 0 ? normal(&$0) : 0 },
        "bfloat16": { Float(bitPattern: normal(&$0).bitPattern & 0xffff_0000) },
        "one-sided": { normal(&$0).magnitude },
        "zero": { Bool.random(using: &$0) ? 0 : -0.0 },
        "constant": { _ in -0.37 },
        "far": { 1000 + normal(&$0) / 1000 },
        "tiny": { normal(&$0) * 0x1p-122 },
        "subnormal": { normal(&$0) * 0x1p-135 },
        "huge": { normal(&$0) * 0x1p120 },
    ]

    private static func normal(_ random: inout SplitMix) -> Float {
        let sum = (0..<4).reduce(0.0) { sum, _ in sum + Double.random(in: -1...1, using: &random) }
        return Float(sum * 0.866)
    }

    private static func numbers(_ kind: String, _ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in kinds[kind]?(&random) ?? 0 }
    }

    // MARK: A plain loop

    private struct Fit: Equatable {
        var scale: UInt32
        var codes: [UInt8]
        var decoded: [UInt32]
    }

    /// Sums in eight lanes, as every sum of the kernels.
    private static func sum(_ terms: [Double]) -> Double {
        var lanes = [Double](repeating: 0, count: 8)
        for (index, term) in terms.enumerated() { lanes[index % 8] += term }
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
    }

    private static func codes(_ x: ArraySlice<Float>, scale: Float, zero: Float, top: Float) -> [Float] {
        let inverse = 1 / scale
        return x.map { value in
            let place = value * inverse + zero
            let raised: Float = place > 0 ? place : 0
            return (raised < top ? raised : top).rounded(.toNearestOrEven)
        }
    }

    private static func stored(_ scale: Double) -> Float {
        let single = Float(scale)
        guard single.isFinite else { return 0 }
        let bits = single.bitPattern
        let rounded = Float(bitPattern: (bits &+ 0x7fff &+ (bits >> 16 & 1)) & 0xffff_0000)
        return rounded.magnitude >= 0x1p-120 && rounded.isFinite ? rounded : 0
    }

    /// Tries the scales that are best for normal numbers, somewhat smaller and larger ones and the widest that is of use, on the
    /// side with more buffer; improves the best twice by least squares; codes by it; and stores the scale that does not shorten
    /// the vector.
    private static func plainFit(_ x: ArraySlice<Float>, bits: Int) -> Fit {
        let usualSteps: [Float] = [0, 1.596, 1.15, 0.62, 0.345, 0.19, 0.105, 0.057, 0.031]
        let top = Float((1 << bits) - 1), zero: Float = bits == 1 ? 0.5 : Float(1 << (bits - 1))
        let energy = sum(x.map { Double($0) * Double($0) })
        let low = (x.min() ?? 0) + 0, high = (x.max() ?? 0) + 0
        let reach = -low > high ? -low : high, widest = bits == 1 ? 2 * reach : reach / zero
        let side: Float = high > -low ? -1 : 1
        let usual = Float((energy / Double(x.count)).squareRoot()) * usualSteps[bits]

        var best: (scale: Float, gain: Double) = (0, -1)
        func moments(_ scale: Float) -> (product: Double, square: Double) {
            let relative = codes(x, scale: scale, zero: zero, top: top).map { Double($0 - zero) }
            return (sum(zip(x, relative).map { Double($0) * $1 }), sum(relative.map { $0 * $0 }))
        }
        func attempt(_ scale: Float) {
            guard scale.magnitude >= 0x1p-120 else { return }
            let found = moments(scale)
            guard found.square > 0 else { return }
            let gain = found.product * found.product / found.square
            if gain > best.gain { best = (Float(found.product / found.square), gain) }
        }
        for share in [0.8, 0.95, 1.15, nil] as [Float?] {
            let tried = share.map { usual * $0 } ?? widest, scale = side * (tried < widest ? tried : widest)
            attempt(scale)
            if bits == 2 { attempt(-scale) }
        }
        attempt(best.scale)
        attempt(best.scale)

        let scale = stored(Double(best.scale))
        var final: Float = 0
        if scale != 0 {
            let found = moments(scale)
            if found.square > 0, found.product != 0 {
                let least = found.product / found.square, unbiased = energy / found.product
                final = stored(unbiased.magnitude < 2 * least.magnitude ? unbiased : 2 * least)
            }
        }
        guard final != 0 else {
            let none = UInt8(bits == 1 ? 0 : 1 << (bits - 1))
            return Fit(scale: 0, codes: x.map { _ in none }, decoded: x.map { _ in 0 })
        }
        let chosen = codes(x, scale: scale, zero: zero, top: top)
        return Fit(
            scale: final.bitPattern, codes: chosen.map { UInt8($0) }, decoded: chosen.map { (($0 - zero) * final).bitPattern })
    }

    private struct Found {
        var scales: [Float]
        var codes: [UInt8]
        var decoded: [Float]
    }

    private func fit(_ x: [Float], group: Int, bits: Int, kernels: Kernels) -> Found {
        let groups = (x.count + group - 1) / group
        var found = Found(
            scales: [Float](repeating: 77, count: groups + 1), codes: [UInt8](repeating: 0xee, count: x.count + 1),
            decoded: [Float](repeating: 77, count: x.count + 1))
        kernels.fitGroups(
            x, group: group, bits: bits, scales: &found.scales, codes: &found.codes, decoded: &found.decoded, count: x.count)
        // Nothing behind the last one is touched.
        #expect(found.scales.removeLast() == 77 && found.codes.removeLast() == 0xee && found.decoded.removeLast() == 77)
        return found
    }

    @Test(arguments: kinds.keys.sorted(), 1...8)
    func isWhatAPlainLoopFinds(kind: String, bits: Int) {
        for (group, count) in [(16, 45), (64, 137), (128, 128), (512, 515)] {
            let x = Self.numbers(kind, count, seed: UInt64(count + bits))
            let expected = stride(from: 0, to: count, by: group).map {
                Self.plainFit(x[$0..<min(count, $0 + group)], bits: bits)
            }
            for kernels in Kernels.available {
                let found = fit(x, group: group, bits: bits, kernels: kernels)
                let what = "\(kernels), \(kind), \(bits) bits, groups of \(group), \(count)"
                #expect(found.scales.map(\.bitPattern) == expected.map(\.scale), "\(what)")
                #expect(found.codes == expected.flatMap(\.codes), "\(what)")
                #expect(found.decoded.map(\.bitPattern) == expected.flatMap(\.decoded), "\(what)")
            }
        }
    }

    // MARK: Properties

    private func error(_ x: [Float], _ y: [Float]) -> Double {
        var sum = 0.0
        for (x, y) in zip(x, y) {
            let difference = Double(x) - Double(y)
            sum += difference * difference
        }
        return sum
    }

    /// A grid with the same zero that reaches to the group's farthest number.
    private func plainGrid(_ x: [Float], group: Int, bits: Int) -> [Float] {
        let zero = Kernels.fittedZero(bits: bits), top = Float((1 << bits) - 1)
        return stride(from: 0, to: x.count, by: group).flatMap { start -> [Float] in
            let own = x[start..<min(x.count, start + group)]
            let farthest = own.max { $0.magnitude < $1.magnitude } ?? 0
            let scale = bits == 1 ? 2 * farthest.magnitude : -farthest / zero
            return Self.codes(own, scale: scale == 0 ? 1 : scale, zero: zero, top: top).map { ($0 - zero) * scale }
        }
    }

    /// The codes are those of the least error that was found; the scale that does not shorten the vector costs something of that,
    /// and more the fewer bits there are: never as much as twice, nor as much as storing nothing.
    @Test(arguments: ["normal", "long tails", "sparse", "bfloat16", "one-sided"], 1...8)
    func errsHardlyMoreThanAPlainGrid(kind: String, bits: Int) {
        for group in [32, 64, 128, 512] {
            let x = Self.numbers(kind, 2048, seed: 5)
            let found = error(x, fit(x, group: group, bits: bits, kernels: .best).decoded)
            let plain = error(x, plainGrid(x, group: group, bits: bits))
            let energy = error(x, x.map { _ in 0 })
            // Scales are rounded to eight bits.
            #expect(found <= 1.02 * plain + 0x1p-18 * energy, "groups of \(group): \(found / plain)")
            #expect(found <= 1.001 * energy, "groups of \(group)")
        }
    }

    /// What is read is not shorter than what was stored, seen along it: `Σ xx̂ = Σ x²` to the width of a scale in bfloat16.
    @Test(arguments: ["normal", "long tails", "bfloat16", "constant", "huge"], 1...8)
    func doesNotShortenTheVector(kind: String, bits: Int) {
        for group in [32, 128] {
            let x = Self.numbers(kind, 1024, seed: 6)
            let found = fit(x, group: group, bits: bits, kernels: .best)
            for start in stride(from: 0, to: x.count, by: group) {
                let own = x[start..<start + group], read = found.decoded[start..<start + group]
                let product = zip(own, read).reduce(0) { $0 + Double($1.0) * Double($1.1) }
                let square = own.reduce(0) { $0 + Double($1) * Double($1) }
                #expect(product <= square * (1 + 0x1p-8), "\(start): \(product / square)")
                // A scale of one bit may be at its limit, twice the one that errs least.
                #expect(product >= square * (bits > 1 ? 1 - 0x1p-8 : 0.2), "\(start): \(product / square)")
            }
        }
    }

    /// Scales are bfloat16 numbers, and a group of zeros is read as zeros.
    @Test(arguments: kinds.keys.sorted(), 1...8)
    func whatIsStoredIsWhatIsRead(kind: String, bits: Int) {
        let x = Self.numbers(kind, 1000, seed: 7)
        let found = fit(x, group: 64, bits: bits, kernels: .best)
        let zero = Kernels.fittedZero(bits: bits)
        #expect(found.scales.allSatisfy { $0.bitPattern & 0xffff == 0 && $0.isFinite })
        #expect(found.codes.allSatisfy { Int($0) < 1 << bits })
        for (index, read) in found.decoded.enumerated() {
            #expect(read.bitPattern == ((Float(found.codes[index]) - zero) * found.scales[index / 64]).bitPattern || read == 0)
            #expect(read == (Float(found.codes[index]) - zero) * found.scales[index / 64])
        }
        if kind == "zero" { #expect(found.decoded.allSatisfy { $0 == 0 } && found.scales.allSatisfy { $0 == 0 }) }
    }
}
