import Core
import Glibc
import TensorKernels
import TestSupport
import Testing

/// Every instruction set computes the same bits as the portable loops, for any length, alignment and bit pattern.
@Suite(.serialized) struct LevelTests {
    private static let lengths = [0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1000, 8192]

    /// Half of the values are ordinary, the others any bit pattern: infinities, NaN, subnormals.
    private static func values(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { index in
            index % 2 == 0
                ? Float.random(in: -1...1, using: &random) : Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
        }
    }

    /// NaN payloads are not promised; that a value is NaN is.
    private static func bits(_ values: [Float]) -> [UInt32] { values.map { $0.isNaN ? 0x7fc0_0000 : $0.bitPattern } }

    private func compare(
        _ name: String, _ operation: (Kernels, _ x: [Float], _ y: [Float], inout [Float]) -> Void
    ) {
        for length in Self.lengths {
            let x = Self.values(length, seed: 1), y = Self.values(length, seed: 2)
            var expected = Self.values(length, seed: 3)
            operation(.portable, x, y, &expected)
            for kernels in Kernels.available {
                var found = Self.values(length, seed: 3)
                operation(kernels, x, y, &found)
                #expect(Self.bits(found) == Self.bits(expected), "\(name), \(length) elements, \(kernels)")
            }
        }
    }

    @Test func arithmeticIsTheSame() {
        compare("subtract") { kernels, x, y, target in kernels.subtract(x, y, into: &target, count: x.count) }
        compare("add") { kernels, x, _, target in kernels.add(x, to: &target, count: x.count) }
        compare("scale") { kernels, x, _, target in kernels.scale(x, by: 0.3, into: &target, count: x.count) }
        compare("axpy") { kernels, x, _, target in kernels.axpy(0.1, x, into: &target, count: x.count) }
    }

    @Test func theLoopsOfSingleMethodsAreTheSame() {
        func rows(_ count: Int, _ body: ([UnsafePointer<Float>]) -> Void) {
            let values = (11...13).map { Self.values(count + 1, seed: $0) }
            values[0].withUnsafeBufferPointer { a in
                values[1].withUnsafeBufferPointer { b in
                    values[2].withUnsafeBufferPointer { c in body([a, b, c].compactMap(\.baseAddress)) }
                }
            }
        }
        compare("multiply") { kernels, x, y, target in kernels.multiply(x, by: y, into: &target, count: x.count) }
        compare("multiplyAdd") { kernels, x, y, target in kernels.multiplyAdd(x, y, into: &target, count: x.count) }
        compare("nearswap") { kernels, x, y, target in kernels.nearswap(0.1, x, y, into: &target, count: x.count) }
        compare("importance") { kernels, x, y, target in
            Self.stored(x, y) { kernels.importance($0, $1, factor: 0.7, into: &target, count: x.count) }
        }
        compare("swapImportant") { kernels, x, y, target in
            Self.stored(x, y) { kernels.swapImportant($0, for: $1, factor: 0.7, threshold: 0.3, into: &target, count: x.count) }
        }
        compare("mergeChanges") { kernels, x, _, target in
            rows(x.count) { kernels.mergeChanges($0, factors: [1, 1.1, 1.2], above: 0.4, into: &target, count: x.count) }
        }
        for length in Self.lengths {
            let x = (0..<length).map { Float($0 % 37) / 7 - 2 }, y = (0..<length).map { Float($0 % 31) / 9 - 1 }
            for kernels in Kernels.available {
                var sums = [Double](repeating: 0.1, count: length), expected = sums
                kernels.addProducts(x, y, to: &sums, count: length)
                Kernels.portable.addProducts(x, y, to: &expected, count: length)
                #expect(sums == expected)
            }
        }
    }

    /// Entries chosen by their variance over three models, one of which is stored as a task vector.
    @Test(arguments: [0, Float(0.1).bitPattern, 0x7fff_ffff])
    func varyingEntriesAreTheSame(from: UInt32) {
        func entries(_ x: [Float], _ y: [Float], _ kernels: Kernels, _ body: (Kernels.VaryingEntries) -> Void) {
            let count = x.count, third = Self.values(count + 1, seed: 4), base = Self.values(count + 1, seed: 5)
            third.withUnsafeBytes { third in
                base.withUnsafeBytes { base in
                    guard let third = third.baseAddress, let base = base.baseAddress else { return }
                    Self.stored(x, y) { x, y in
                        let base = StoredVector(base, .f32)
                        let vectors = [(x, false), (y, false), (StoredVector(third, .f32), true)].map {
                            Kernels.TaskVector($0, base: base, isDifference: $1)
                        }
                        body(.init(of: vectors, base: base, weights: [0.2, 0.5, 0.3], range: 0..<count, kernels: kernels))
                    }
                }
            }
        }
        compare("variances") { kernels, x, y, target in entries(x, y, kernels) { $0.variances(into: &target) } }
        compare("fuse") { kernels, x, y, target in
            entries(x, y, kernels) { $0.fuse(from: from, floor: 1e-6, into: &target) }
        }
        compare("squares") { kernels, x, y, target in
            entries(x, y, kernels) { entries in
                target = entries.squares(from: from).map { Float($0) }
            }
        }
    }

    private static func stored<Result>(_ x: [Float], _ y: [Float], _ body: (StoredVector, StoredVector) -> Result) -> Result {
        func call(_ x: UnsafeRawPointer, _ y: UnsafeRawPointer) -> Result { body(StoredVector(x, .f32), StoredVector(y, .f32)) }
        return call(x, y)
    }

    /// Rows close to their largest value, far from it, and with groups of either kind; close to each other and far apart.
    private static func softmaxRows(_ count: Int) -> [(x: [Float], y: [Float])] {
        let near = (0..<count).map { Float($0 % 89) / 1_000 }, far = (0..<count).map { Float($0 % 97) / 17 }
        let mixed = (0..<count).map { $0 % 50 < 9 ? far[$0] : near[$0] }
        return [
            (near, near.map { $0 * 1.001 }), (near, far), (far, far.map { $0 * 0.999 }), (mixed, near),
            (mixed, mixed.map { $0 + 1e-4 * $0 * $0 }),
        ]
    }

    private static func divergence(_ x: [Float], _ y: [Float], kernels: Kernels) -> Double {
        stored(x, y) { a, b in
            let (p, q) = (kernels.softmaxParts(a, count: x.count), kernels.softmaxParts(b, count: x.count))
            return kernels.divergence(a, b, softmax: [p.maximum, 1 / p.sum, q.maximum, 1 / q.sum], count: x.count)
        }
    }

    private static func rowDivergence(_ x: [Float], _ y: [Float], kernels: Kernels) -> Double {
        var exponentials = [Double](repeating: .nan, count: 2 * (x.count + 7))
        return stored(x, y) { kernels.rowDivergence($0, $1, exponentials: &exponentials, count: x.count) }
    }

    @Test func divergencesAreTheSame() {
        for length in Self.lengths {
            for (x, y) in Self.softmaxRows(length) {
                let expected = Self.divergence(x, y, kernels: .portable)
                for kernels in Kernels.available {
                    #expect(Self.divergence(x, y, kernels: kernels).bitPattern == expected.bitPattern, "\(length), \(kernels)")
                    let atOnce = Self.rowDivergence(x, y, kernels: kernels)
                    #expect(atOnce.bitPattern == expected.bitPattern, "\(length) at once, \(kernels)")
                }
            }
        }
    }

    /// Not a number that its bits happen to make, which differ between processors.
    @Test(arguments: Kernels.available)
    func theDivergenceOfARowWithNaNIsNaN(kernels: Kernels) {
        let row: [Float] = (0..<100).map { Float($0 % 7) }
        for wrong in [Float.nan, -.nan, .infinity, -.infinity] {
            var other = row
            other[42] = wrong
            // -infinity has no weight at all, which is a number.
            let isNumber = wrong == -.infinity
            #expect(Self.divergence(row, other, kernels: kernels).isNaN != isNumber, "\(wrong) in the base")
            #expect(Self.divergence(other, row, kernels: kernels).isNaN != isNumber, "\(wrong) in the model")
        }
    }

    /// The exponential and the logarithm against the C library's, through the sums they are used in.
    @Test func softmaxIsRight() {
        for x in stride(from: -700.0, through: 0, by: 0.37) {
            #expect((Kernels.portable.exponential(x) / exp(x) - 1).magnitude < 1e-13)
        }
        func softmax(_ x: [Float]) -> [Double] {
            let top = x.max() ?? 0, powers = x.map { exp(Double($0) - Double(top)) }, sum = powers.reduce(0, +)
            return powers.map { $0 / sum + 1e-8 }
        }
        for (x, y) in Self.softmaxRows(1_001) {
            let p = softmax(x), q = softmax(y)
            let expected = zip(p, q).reduce(0) { $0 + $1.0 * log1p(($1.0 - $1.1) / $1.1) }
            // Rounding the sums of exponentials moves every term alike, also where the divergence is next to nothing.
            #expect((Self.divergence(x, y, kernels: .best) - expected).magnitude < 1e-14 + 1e-12 * expected)
        }
    }

    /// The products of axpy are rounded before the sum: a fused multiply-add would give other bits.
    @Test(arguments: Kernels.available)
    func nothingIsFused(kernels: Kernels) {
        let x = Self.values(4096, seed: 9).map { $0.isFinite ? $0 : 1 }
        var target = Self.values(4096, seed: 10).map { $0.isFinite ? $0 : 1 }
        let expected = zip(x, target).map { x, y in y + 0.1 * x }
        let fused = zip(x, target).map { x, y in y.addingProduct(0.1, x) }
        kernels.axpy(0.1, x, into: &target, count: x.count)
        #expect(Self.bits(target) == Self.bits(expected))
        #expect(Self.bits(expected) != Self.bits(fused))
    }

    @Test func statisticsAreTheSame() {
        for length in Self.lengths {
            let x = Self.values(length, seed: 5), y = Self.values(length, seed: 6)
            for kernels in Kernels.available {
                #expect(
                    kernels.countEqual(x, pattern: x.first?.magnitude.bitPattern ?? 0, count: length)
                        == x.count { $0.magnitude.bitPattern == x.first?.magnitude.bitPattern })
                let ordinary = x.map { $0.isFinite ? $0 : 1 }, others = y.map { $0.isFinite ? $0 : 1 }
                #expect(
                    kernels.dot(ordinary, others, count: length).bitPattern
                        == Kernels.portable.dot(ordinary, others, count: length).bitPattern)
            }
        }
    }

    @Test(arguments: Kernels.available)
    func sumsAreRight(kernels: Kernels) {
        let x = (0..<1000).map { Float($0 % 17) - 8 }, y = (0..<1000).map { Float($0 % 13) }
        #expect(kernels.dot(x, y, count: 1000) == zip(x, y).reduce(0) { $0 + Double($1.0 * $1.1) })
    }

    @Test(arguments: Kernels.available, [DType.f16, .bf16, .f64, .f32, .f8E4M3, .f8E5M2])
    func conversionsAcceptAnyAlignment(kernels: Kernels, dtype: DType) {
        let width = dtype.bitWidth / 8
        for length in Self.lengths {
            var random = SplitMix(seed: 8)
            let bytes = (0..<length * width + 7).map { _ in UInt8.random(in: 0...255, using: &random) }
            for shift in [0, 1, 3, 7] {
                var found = [Float](repeating: 0, count: length), expected = found
                bytes.withUnsafeBytes { raw in
                    guard let start = raw.baseAddress else { return }
                    kernels.widen(dtype, start + shift, &found, count: length)
                    Kernels.portable.widen(dtype, start + shift, &expected, count: length)
                }
                #expect(Self.bits(found) == Self.bits(expected))
            }
        }
    }
}
