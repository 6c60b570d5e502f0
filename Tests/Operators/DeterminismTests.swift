import Core
import Operators
import TensorKernels
import TestSupport
import Testing

/// The same bytes for any number of threads, any order of work and any instruction set.
@Suite(.serialized) struct DeterminismTests {
    /// Two and a half blocks of float32 output, so that blocks, spans of tiles and tiles are all cut.
    private static let count = 2 * (TreeDigest.blockSize / 4) + 700_001

    private static func bench(output: DType) -> Bench {
        var random = SplitMix(seed: 5)
        func tensor() -> TestTensor {
            // A short pattern, repeated: equal magnitudes abound, which makes every trim cut through ties.
            let pattern = (0..<997).map { _ in
                Float(bitPattern: UInt32(truncatingIfNeeded: random.next()) & 0x3fff_0000 | 0x3000_0000)
            }
            return TestTensor((0..<count).map { pattern[$0 % 997] })
        }
        return Bench(sources: (0..<3).map { _ in tensor() }, base: 0, output: output)
    }

    @Test(arguments: [DType.f32, .bf16, .f8E5M2])
    func tiesWithRescaling(output: DType) throws {
        var bench = Self.bench(output: output)
        func run() throws -> TestTensor {
            try bench.run(
                Ties.self, shared: ["rescale": .flag(true)],
                perInput: [
                    [:], ["weight": .number(0.6), "density": .number(0.3)], ["weight": .number(0.4), "density": .number(0.7)],
                ])
        }
        bench.kernels = .portable
        let expected = try run().bytes
        let runners: [any ParallelRunner] = [InOrder(), Backwards(), AtOnce()]
        for (index, (kernels, runner)) in zip(Kernels.available + Kernels.available, runners + runners).enumerated() {
            bench.kernels = kernels
            bench.runner = runner
            bench.memory = [1 << 30, 0, 10_000][index % 3]
            #expect(try run().bytes == expected, "\(kernels), \(runner), \(bench.memory)")
        }
    }

    @Test(arguments: [DType.f16, .f8E4M3, .f8E5M2])
    func linearOverMixedTypes(output: DType) throws {
        let values = (0..<100_000).map { Float($0 % 1_013) / 64 }
        let codes = values.indices.map { UInt8($0 % 127) }
        let sources = [
            TestTensor(values), TestTensor(bfloat16: values), TestTensor(.f8E4M3, [values.count], bytes: codes),
            TestTensor(.f8E5M2, [values.count], bytes: codes.map { $0 % 0x7c }),
        ]
        var bench = Bench(sources: sources, output: output)
        func run() throws -> TestTensor {
            try bench.run(Linear.self, perInput: [0.1, 0.9, 0.2, 0.3].map { ["weight": .number($0)] })
        }
        bench.kernels = .portable
        let expected = try run()
        for kernels in Kernels.available {
            bench.kernels = kernels
            bench.runner = AtOnce()
            #expect(try run() == expected)
        }
    }

    /// Every method, on rows that lie across tiles and blocks, with equal values everywhere.
    @Test(
        arguments: MergeMethods.all.filter { !$0.usesLinearAlgebra }.map { $0.name },
        [[3, 10_003], [31, 1_000], [2, 5, 3_001]])
    func everyMethod(name: String, shape: [Int]) throws { try expectSameBytes(name, shape) }

    /// A matrix of several tiles, and a tensor that is none.
    @Test(
        arguments: MergeMethods.all.filter { $0.usesLinearAlgebra }.map { $0.name }, [[91, 200], [200, 91], [2, 5, 3_001]])
    func everyMatrixMethod(name: String, shape: [Int]) throws { try expectSameBytes(name, shape) }

    private func expectSameBytes(_ name: String, _ shape: [Int]) throws {
        let method = try #require(MergeMethods.named(name)), count = shape.reduce(1, *)
        let models = name == "passthrough" ? 1 : method.inputs.models.upperBound == 1 ? 1 : 2
        let base = method.inputs.base == .plainInput ? nil : models
        let sources = (0...models).prefix(base == nil ? models : models + 1).map { model in
            TestTensor((0..<count).map { Float(($0 &* 31 &+ model &* 7) % 1_009) / 512 }, shape: shape)
        }
        var (shared, own) = method.testValues(0.4)
        for parameter in method.parameters {
            switch parameter.name {
            case "weight", "t", "density", "select_topk", "scale":
                if parameter.scope == .shared {
                    shared[parameter.name] = .number(0.4)
                } else {
                    own[parameter.name] = .number(0.4)
                }
            case "rescale", "filter_wise", "nuslerp_row_wise":
                if parameter.kind == .flag { shared[parameter.name] = .flag(true) }
            case "nuslerp_flatten": shared[parameter.name] = .flag(false)
            case "steps": shared[parameter.name] = .number(20)
            default: break
            }
        }
        var bench = Bench(sources: sources, base: base, kernels: .portable, randomKey: 11)
        let expected = try bench.run(method, shared: shared, perInput: sources.map { _ in own }).bytes
        let runners: [any ParallelRunner] = [Backwards(), AtOnce(), InOrder()]
        for (index, runner) in runners.enumerated() {
            bench.kernels = Kernels.available[index % Kernels.available.count]
            bench.runner = runner
            bench.memory = [1 << 30, 0, 10_000][index]
            let bytes = try bench.run(method, shared: shared, perInput: sources.map { _ in own }).bytes
            #expect(bytes == expected, "\(bench.kernels), \(runner), \(bench.memory)")
        }
    }

    /// Rows that lie across tiles, spans and blocks of output.
    @Test func rowsAcrossBlocks() throws {
        let shape = [3, 700_001], count = 3 * 700_001
        let values = (0..<count).map { Float(($0 &* 2_654_435_761) % 65_521) / 65_536 - 0.5 }
        let base = TestTensor([Float](repeating: 0, count: count), shape: shape)
        var bench = Bench(sources: [base, TestTensor(values, shape: shape)], base: 0, output: .f32, randomKey: 4)
        let own: [String: ParameterValue] = ["weight": .number(1), "density": .number(0.5)]
        let expected = try bench.run(DellaLinear.self, perInput: [[:], own]).bytes
        bench.runner = AtOnce()
        bench.kernels = .portable
        #expect(try bench.run(DellaLinear.self, perInput: [[:], own]).bytes == expected)
    }
}
