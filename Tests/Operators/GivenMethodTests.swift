import Core
import Foundation
import Operators
import TestSupport
import Testing

/// The methods that are given files beside the models, against their definitions, and with files that are wrong.
@Suite struct GivenMethodTests {
    private static let sizes = [1, 5, 1_000, 8_193]

    private static func random(_ count: Int, _ range: ClosedRange<Float>, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in Float.random(in: range, using: &random) }
    }

    private func expect(_ found: TestTensor, _ expected: [Double], _ what: String) {
        let worst = zip(found.values, expected).reduce(0) { max($0, ($1.0 - $1.1).magnitude / max(1, $1.1.magnitude)) }
        #expect(found.values.count == expected.count && worst <= 1e-6, "\(what): \(worst)")
    }

    // MARK: Fisher

    private func fisher(
        _ models: [[Float]], _ information: [[Float]], _ shared: [String: ParameterValue] = [:],
        own: [[String: ParameterValue]]? = nil, shape: [Int]? = nil
    ) throws -> TestTensor {
        let bench = Bench(
            sources: models.map { TestTensor($0, shape: shape) },
            given: information.enumerated().map { Bench.Given("fisher", ofSource: $0, TestTensor($1, shape: shape)) })
        let sums = information.map { values in
            ["squared_fisher": ParameterValue.number(values.reduce(0) { $0 + Double($1) * Double($1) })]
        }
        let perInput = zip(sums, own ?? sums.map { _ in [:] }).map { $0.merging($1) { $1 } }
        return try bench.run(Fisher.self, shared: shared, perInput: perInput)
    }

    @Test(arguments: sizes, [true, false])
    func fisherIsAWeightedMean(size: Int, normalize: Bool) throws {
        let models = (0..<3).map { Self.random(size, -1...1, seed: $0 + 1) }
        let information = (0..<3).map { Self.random(size, 0...Float($0 + 1), seed: $0 + 7) }
        let weights = [0.5, 2, 1]
        let scales = information.enumerated().map { index, values in
            let norm = values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
            return weights[index] / (normalize ? norm + 1e-6 : 1)
        }
        let expected = (0..<size).map { element in
            var sum = 0.0, total = 0.0
            for index in 0..<3 {
                let weight = scales[index] * (Double(information[index][element]) + 1e-6)
                sum += weight * Double(models[index][element])
                total += weight
            }
            return sum / total
        }
        let own = weights.map { ["weight": ParameterValue.number($0), "normalize": .flag(normalize)] }
        let found = try fisher(models, information, ["normalize": .flag(normalize)], own: own)
        expect(found, expected, "fisher")
        // In another order.
        let order = [2, 0, 1]
        let other = try fisher(
            order.map { models[$0] }, order.map { information[$0] }, ["normalize": .flag(normalize)], own: order.map { own[$0] })
        expect(other, found.values, "another order")
    }

    @Test func oneModelIsReturnedWhateverItsFisherInformation() throws {
        let model = Self.random(3_000, -1...1, seed: 1), information = Self.random(3_000, 0...1e-12, seed: 2)
        #expect(try fisher([model], [information]).values == model.map(Double.init))
    }

    /// The unit of the loss does not matter once the norms are divided out.
    @Test func theUnitOfTheFisherInformationDoesNotMatter() throws {
        let models = [Self.random(500, -1...1, seed: 1), Self.random(500, -1...1, seed: 2)]
        let information = [Self.random(500, 1...2, seed: 3), Self.random(500, 1...2, seed: 4)]
        let scaled = [information[0].map { $0 * 1_024 }, information[1]]
        expect(
            try fisher(models, scaled, ["epsilon": .number(1e-30)]),
            try fisher(models, information, ["epsilon": .number(1e-30)]).values, "scaled")
    }

    @Test(arguments: [Float(-1e-9), .nan, .infinity])
    func whatIsNoFisherInformationIsRefused(value: Float) {
        var information = [Float](repeating: 1, count: 9_000)
        information[8_500] = value
        let error = #expect(throws: TesseraError.self) {
            try fisher(
                [[Float](repeating: 0, count: 9_000)], [information], own: [["squared_fisher": .number(9_000)]])
        }
        #expect(error?.code == .badData && error?.file == "fisher-0" && error?.problem.contains("element 8500") == true)
    }

    @Test func weightsOfZeroHaveNoMean() {
        let error = #expect(throws: TesseraError.self) {
            try fisher([[1], [2]], [[1], [1]], own: [["weight": .number(0)], ["weight": .number(0)]])
        }
        #expect(error?.problem.contains("no model has a weight above 0") == true)
    }

    // MARK: RegMean

    private static let rows = 5, columns = 7
    private static var shape: [Int] { [rows, columns] }

    /// `XᵀX` of random inputs.
    private static func gram(seed: UInt64, inputs: Int = 30) -> [Float] {
        let x = random(inputs * columns, -1...1, seed: seed)
        return (0..<columns * columns).map { index in
            (0..<inputs).reduce(0) { $0 + x[$1 * columns + index / columns] * x[$1 * columns + index % columns] }
        }
    }

    private func regmean(
        _ models: [[Float]], _ grams: [[Float]], _ shared: [String: ParameterValue] = [:], size: Int = columns
    ) throws -> [Double] {
        try Bench(
            sources: models.map { TestTensor($0, shape: Self.shape) },
            given: grams.enumerated().map { Bench.Given("gram", ofSource: $0, TestTensor($1, shape: [size, size])) }
        ).run(RegMean.self, shared: shared).values
    }

    private static func models(_ count: Int) -> [[Float]] {
        (0..<count).map { random(rows * columns, -1...1, seed: UInt64($0 + 1)) }
    }

    /// The result times the sum of the Gram matrices is the sum of the models times theirs.
    @Test(arguments: [1.0, 0.9, 0])
    func regmeanSolvesItsEquation(offDiagonal: Double) throws {
        let models = Self.models(3), grams = (0..<3).map { Self.gram(seed: UInt64($0 + 11)) }
        let found = try regmean(models, grams, ["off_diagonal": .number(offDiagonal), "ridge": .number(0)])
        func shrunk(_ gram: [Float], _ row: Int, _ column: Int) -> Double {
            Double(gram[row * Self.columns + column]) * (row == column ? 1 : offDiagonal)
        }
        for row in 0..<Self.rows {
            for column in 0..<Self.columns {
                var left = 0.0, right = 0.0
                for inner in 0..<Self.columns {
                    for task in 0..<3 {
                        let gram = shrunk(grams[task], inner, column)
                        left += found[row * Self.columns + inner] * gram
                        right += Double(models[task][row * Self.columns + inner]) * gram
                    }
                }
                #expect((left - right).magnitude < 2e-5, "\(row), \(column)")
            }
        }
    }

    @Test func oneModelIsReturnedAndEqualInputsGiveTheMean() throws {
        let models = Self.models(3), gram = Self.gram(seed: 3)
        let alone = try regmean([models[0]], [gram])
        #expect(zip(alone, models[0]).allSatisfy { ($0 - Double($1)).magnitude < 1e-4 })
        let mean = try regmean(models, [gram, gram, gram])
        for index in mean.indices {
            let expected = models.reduce(0) { $0 + Double($1[index]) } / 3
            #expect((mean[index] - expected).magnitude < 1e-4)
        }
    }

    @Test func tensorsWithoutGramMatricesGetTheMean() throws {
        let models = Self.models(2), found = try regmean(models, [])
        #expect(zip(found, zip(models[0], models[1])).allSatisfy { $0 == Double(($1.0 + $1.1) / 2) })
    }

    @Test(
        arguments: [
            ("is not symmetric", 1), ("infinite or not a number", 2), ("on the diagonal", 3), ("is not positive definite", 4),
            ("has another size", 5),
        ])
    func whatIsNoGramMatrixIsRefused(problem: String, how: Int) {
        var gram = Self.gram(seed: 1), size = Self.columns
        switch how {
        case 1: gram[3] += 5
        case 2: gram[3] = .nan
        case 3: gram[0] = -1
        case 4: gram = gram.map { _ in 0 }
        default:
            size = 3
            gram = Array(gram.prefix(9))
        }
        let error = #expect(throws: TesseraError.self) { try regmean([Self.models(1)[0]], [gram], size: size) }
        #expect(error?.code == .badData && error?.problem.contains(problem) == true, "\(String(describing: error))")
    }

    /// Fewer inputs than columns leave directions open, which the ridge decides.
    @Test func theRidgeDecidesWhatTooFewInputsLeaveOpen() throws {
        let models = Self.models(2), grams = [Self.gram(seed: 1, inputs: 2), Self.gram(seed: 2, inputs: 2)]
        let whole: [String: ParameterValue] = ["off_diagonal": .number(1)]
        #expect(try regmean(models, grams, whole.merging(["ridge": .number(1e-3)]) { $1 }).allSatisfy(\.isFinite))
    }

    // MARK: Concrete

    private func concrete(
        _ base: [Float], _ models: [[Float]], logits: [Float], _ shared: [String: ParameterValue] = [:]
    ) throws -> TestTensor {
        try Bench(
            sources: ([base] + models).map { TestTensor($0) }, base: 0, given: [Bench.Given("mask", TestTensor(logits))]
        ).run(Concrete.self, shared: shared)
    }

    @Test(arguments: sizes, ["expected", "median", "hard"])
    func concreteIsMaskedTaskArithmetic(size: Int, reading: String) throws {
        let (base, models) = MethodTests.family(size, models: 2), logits = Self.random(size, -2...3, seed: 5)
        let mask = logits.map { logit in
            let x = Double(logit)
            return reading == "hard" ? (x > 0 ? 1 : 0) : 1 / (1 + exp(-(reading == "median" ? 2 * x : x)))
        }
        let mean = mask.reduce(0, +) / Double(size)
        let expected = (0..<size).map { index in
            let sum = models.reduce(0) { $0 + Double($1[index]) - Double(base[index]) }
            return Double(base[index]) + (mean > 0 ? 0.3 * mask[index] / mean * sum : 0)
        }
        expect(try concrete(base, models, logits: logits, ["mask_as": .text(reading)]), expected, reading)
    }

    /// The mean is divided out, also of a mask that is almost nowhere, where the sigmoid of a logit is its exponential.
    @Test(arguments: [Float(-600), -50, 0, 50])
    func aConstantMaskIsNone(logit: Float) throws {
        let (base, models) = MethodTests.family(1_000, models: 2)
        let found = try concrete(base, models, logits: [Float](repeating: logit, count: 1_000))
        let plain = try Bench(sources: ([base] + models).map { TestTensor($0) }, base: 0).run(
            TaskArithmetic.self, shared: ["lambda": .number(0.3)],
            perInput: [[:]] + models.map { _ in ["weight": .number(1)] })
        expect(found, plain.values, "\(logit)")
    }

    @Test func aMaskThatIsNowhereGivesTheBase() throws {
        let (base, models) = MethodTests.family(50, models: 1)
        let found = try concrete(
            base, models, logits: [Float](repeating: -1, count: 50), ["mask_as": .text("hard")])
        #expect(found.values == base.map(Double.init))
    }

    @Test func aLogitThatIsNotANumberIsRefused() {
        let error = #expect(throws: TesseraError.self) { try concrete([0, 0], [[1, 1]], logits: [0, .nan]) }
        #expect(error?.file == "mask-0" && error?.problem.contains("element 1") == true)
    }

    // MARK: aTLAS

    private func atlas(
        _ base: [Float], _ models: [[Float]], _ coefficients: [[Double]], partition: TestTensor? = nil
    ) throws -> TestTensor {
        try Bench(
            sources: ([base] + models).map { TestTensor($0) }, base: 0,
            given: partition.map { [Bench.Given("partition", $0)] } ?? []
        ).run(
            Atlas.self, shared: ["coefficients": .text("file")],
            perInput: [[:]] + coefficients.map { ["coefficients": .numbers($0)] })
    }

    @Test(arguments: sizes)
    func atlasScalesEachTensorOrEachPart(size: Int) throws {
        let (base, models) = MethodTests.family(size, models: 2), plain = [[0.4], [-1.5]], parted = [[0.4, 2, 0], [-1.5, 1, 7]]
        let parts = (0..<size).map { $0 * 7 % 3 }
        func expected(_ coefficients: [[Double]], _ part: (Int) -> Int) -> [Double] {
            (0..<size).map { index in
                (0..<2).reduce(Double(base[index])) {
                    $0 + coefficients[$1][part(index)] * (Double(models[$1][index]) - Double(base[index]))
                }
            }
        }
        expect(try atlas(base, models, plain), expected(plain) { _ in 0 }, "plain")
        let bytes = parts.flatMap { withUnsafeBytes(of: Int64($0).littleEndian, Array.init) }
        for partition in [TestTensor(.u8, [size], bytes: parts.map { UInt8($0) }), TestTensor(.i64, [size], bytes: bytes)] {
            expect(try atlas(base, models, parted, partition: partition), expected(parted) { parts[$0] }, "parts")
        }
    }

    @Test func partsWithoutCoefficientsAreRefused() {
        func problem(_ coefficients: [[Double]], _ partition: TestTensor?) -> String {
            (#expect(throws: TesseraError.self) { try atlas([0, 0], [[1, 1], [2, 2]], coefficients, partition: partition) })?
                .problem ?? ""
        }
        #expect(problem([[1, 2], [1, 2]], nil).contains("no partition"))
        #expect(problem([[1, 2], [1]], nil).contains("1 and 2 coefficients"))
        #expect(problem([[1, 2], [1, 2]], TestTensor(.i8, [2], bytes: [0, 2])).contains("has part 2 at element 1"))
        #expect(problem([[1, 2], [1, 2]], TestTensor(.i8, [2], bytes: [0xff, 0])).contains("has part -1 at element 0"))
        #expect(problem([[1, 2], [1, 2]], TestTensor(.i8, [1], bytes: [0])).contains("no tensor of this shape"))
    }
}
