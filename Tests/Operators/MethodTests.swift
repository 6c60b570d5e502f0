import Core
import Operators
import TestSupport
import Testing

/// Each method against its definition, computed apart in float64.
@Suite(.serialized) struct MethodTests {
    /// One below, at, and above a tile, and a handful.
    private static let sizes = [1, 5, 1_000, 8_191, 8_192, 8_193, 20_000]

    /// A base and fine-tunes that are close to it. Every value fits bfloat16, so that differences are exact in float32.
    static func family(_ count: Int, models: Int, seed: UInt64 = 1) -> (base: [Float], tunes: [[Float]]) {
        var random = SplitMix(seed: seed)
        func value(_ scale: Float) -> Float {
            Float(bitPattern: (Float.random(in: -scale...scale, using: &random)).bitPattern & 0xffff_0000)
        }
        let base = (0..<count).map { _ in value(1) }
        return (base, (0..<models).map { _ in base.map { $0 + value(0.05) } })
    }

    private func expect(_ found: TestTensor, _ expected: [Double], _ comment: String) {
        Self.expect(found, expected, comment)
    }

    /// Within 1e-6 of the value or of the tensor's root mean square, whichever is larger.
    static func expect(_ found: TestTensor, _ expected: [Double], _ comment: String) {
        let rms = (expected.reduce(0) { $0 + $1 * $1 } / Double(max(1, expected.count))).squareRoot()
        let misses = zip(found.values, expected).count { !(($0 - $1).magnitude <= 1e-6 * max(rms, $1.magnitude)) }
        #expect(misses == 0, "\(comment): \(misses) of \(expected.count) values are off")
        #expect(found.values.count == expected.count)
    }

    private func doubles(_ values: [Float]) -> [Double] { values.map(Double.init) }

    @Test(arguments: sizes, [false, true])
    func linear(size: Int, normalize: Bool) throws {
        let (base, tunes) = Self.family(size, models: 2)
        let all = [base] + tunes, weights = [0.5, 1.25, -0.3]
        let found = try Bench(sources: all.map { TestTensor($0) }).run(
            Linear.self, shared: ["normalize": .flag(normalize)], perInput: weights.map { ["weight": .number($0)] })
        expect(found, Reference.linear(all.map(doubles), weights: weights, normalize: normalize), "linear")
    }

    @Test(arguments: sizes, [false, true])
    func taskArithmetic(size: Int, normalize: Bool) throws {
        let (base, tunes) = Self.family(size, models: 3)
        let weights = [0.5, -1, 0.7]
        // The base stands in the middle: its place must not matter.
        let found = try Bench(sources: [tunes[0], base, tunes[1], tunes[2]].map { TestTensor($0) }, base: 1).run(
            TaskArithmetic.self, shared: ["normalize": .flag(normalize), "lambda": .number(0.8)],
            perInput: [weights[0], 9, weights[1], weights[2]].map { ["weight": .number($0)] })
        expect(
            found,
            Reference.taskArithmetic(
                base: doubles(base), tunes.map(doubles), weights: weights, lambda: 0.8, normalize: normalize),
            "task arithmetic")
    }

    /// Shares of the weights, or of the exponentials of learned numbers, whatever is added to all of those.
    @Test(arguments: sizes, [false, true])
    func selfPositioning(size: Int, softmax: Bool) throws {
        let (base, tunes) = Self.family(size, models: 3)
        let weights = softmax ? [0.5, -1, 300] : [0.5, 0, 1.5]
        let shares = softmax ? [0, 0, 1] : [0.25, 0, 0.75]
        func run(_ weights: [Double], softmax: Bool) throws -> TestTensor {
            try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0).run(
                SelfPositioning.self, shared: ["size": .number(1.5), "softmax": .flag(softmax)],
                perInput: [[:]] + weights.map { ["weight": .number($0)] })
        }
        expect(
            try run(weights, softmax: softmax),
            Reference.taskArithmetic(base: doubles(base), tunes.map(doubles), weights: shares, lambda: 1.5, normalize: false),
            "self positioning")
        let learned = [0.3, 0.1, -0.2]
        #expect(try run(learned, softmax: true) == run(learned.map { $0 + 0.25 }, softmax: true))
        #expect(try run([1, 2, 1], softmax: false) == run([2, 4, 2], softmax: false))
        // One model alone has all.
        #expect(try run([0, 7, 0], softmax: false) == run([-1e5, 1e5, -1e5], softmax: true))
    }

    @Test(arguments: [[0, 0, 0], [1, -0.5, 1], [-1, -1, -1]])
    func weightsThatGiveNoSharesAreRefused(weights: [Double]) {
        #expect {
            try SelfPositioning(
                ParameterValues(
                    shared: ["size": .number(1), "softmax": .flag(false)],
                    perInput: [[:]] + weights.map { ["weight": .number($0)] }),
                inputs: TensorInputs(count: 4, base: 0))
        } throws: { ($0 as? TesseraError)?.problem.contains("gives no shares") ?? false }
    }

    struct TiesCase: Sendable {
        var densities = [0.2, 0.5, 1.0]
        var weights = [1.0, 0.5, 0.8]
        var normalize = true
        var rescale = false
        var lambda = 1.0
    }

    @Test(
        arguments: sizes,
        [
            TiesCase(), TiesCase(normalize: false), TiesCase(rescale: true), TiesCase(lambda: 0.3),
            TiesCase(densities: [0, 0.001, 0.999]),
            TiesCase(densities: [1, 1, 1]), TiesCase(weights: [1, -0.5, 0.2], normalize: false),
        ])
    func ties(size: Int, ties: TiesCase) throws {
        let (base, tunes) = Self.family(size, models: 3, seed: 2)
        let found = try Bench(sources: ([base] + tunes).map { TestTensor($0) }, base: 0).run(
            Ties.self,
            shared: ["normalize": .flag(ties.normalize), "rescale": .flag(ties.rescale), "lambda": .number(ties.lambda)],
            perInput: [[:]] + zip(ties.weights, ties.densities).map { ["weight": .number($0), "density": .number($1)] })
        let expected = Reference.ties(
            base: doubles(base), tunes.map(doubles), weights: ties.weights, densities: ties.densities, lambda: ties.lambda,
            normalize: ties.normalize, rescale: ties.rescale)
        expect(found, expected, "ties")
    }

    /// Thousands of entries are equal to the threshold: exactly as many as asked for stay, those with the lowest indices.
    @Test(arguments: [1, 7_000, 8_192, 8_193, 15_000, 29_999])
    func equalEntriesAreKeptByLowestIndex(kept: Int) throws {
        let count = 30_000
        let base = TestTensor([Float](repeating: 0, count: count)), tune = TestTensor([Float](repeating: 1, count: count))
        let found = try Bench(sources: [base, tune], base: 0).run(
            Ties.self, perInput: [[:], ["weight": .number(1), "density": .number((Double(kept) + 0.5) / Double(count))]])
        #expect(found.values == (0..<count).map { $0 < kept ? 1 : 0 })
    }

    @Test func passthroughKeepsEveryBit() throws {
        let odd = TestTensor([.nan, .signalingNaN, -0.0, .leastNonzeroMagnitude, .infinity, Float(bitPattern: 0x7f80_0001)])
        #expect(try Bench(sources: [odd]).run(Passthrough.self) == odd)
        let scaled = try Bench(sources: [TestTensor([1, -2, 0.5])]).run(Passthrough.self, perInput: [["scale": .number(0.25)]])
        #expect(scaled.values == [0.25, -0.5, 0.125])
    }

    @Test func identicalCopiesWhatAgreesAndRefusesWhatDiffers() throws {
        let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0) }
        let first = TestTensor(.i8, [3_000_000], bytes: bytes)
        #expect(try Bench(sources: [first, first], output: .i8).run(Identical.self) == first)
        var other = bytes
        other[2_345_678] ^= 1
        let error = #expect(throws: TesseraError.self) {
            try Bench(sources: [first, TestTensor(.i8, [3_000_000], bytes: other)], output: .i8).run(Identical.self)
        }
        #expect(error?.problem.contains("differs from model 1 at byte 2345678") == true)
    }

    @Test func notANumberIsNotHidden() throws {
        let base = TestTensor([0, 0, 0]), tune = TestTensor([.nan, 1, 2])
        for method in [TaskArithmetic.self, Ties.self] as [any MergeMethod.Type] {
            let found = try Bench(sources: [base, tune], base: 0).run(
                method, perInput: [[:], ["weight": .number(1), "density": .number(1)]])
            #expect(found.values[0].isNaN)
            #expect(Array(found.values[1...]) == [1, 2])
        }
    }

    @Test func weightsThatCancelHaveNoMean() {
        let error = #expect(throws: TesseraError.self) {
            try Bench(sources: [TestTensor([1]), TestTensor([2])]).run(
                Linear.self, perInput: [["weight": .number(1)], ["weight": .number(-1)]])
        }
        #expect(error?.code == .badData)
    }

    @Test func aPlanThatLacksAValueIsBadDataAndNoCrash() {
        for method in MergeMethods.all {
            let inputs = TensorInputs(count: 2, base: method.inputs.givesBaseARole ? 0 : nil)
            let isOptional = method.parameters.allSatisfy { !$0.isRequired && $0.scope != .shared }
            if isOptional { continue }
            #expect(throws: TesseraError.self) { try method.init(ParameterValues(perInput: [[:], [:]]), inputs: inputs) }
        }
    }

    @Test func namesAreUniqueAndEveryMethodIsFound() {
        #expect(Set(MergeMethods.all.map { $0.name }).count == MergeMethods.all.count)
        for method in MergeMethods.all {
            #expect(MergeMethods.named(method.name) == method)
            #expect(!method.summary.isEmpty)
            #expect(Set(method.parameters.map(\.name)).count == method.parameters.count)
        }
    }
}
