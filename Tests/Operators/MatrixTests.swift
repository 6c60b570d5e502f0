import Core
import LinearAlgebra
import Operators
import Synchronization
import TensorKernels
import TestSupport
import Testing

/// Methods that hold whole matrices, compute for long between two passes, and find something out.
@Suite struct MatrixTests {
    /// `x · xᵀ · x`, and the trace of `x · xᵀ`.
    private struct Cube: MergeMethod {
        static let name = "cube"
        static let summary = "The product of a matrix with itself, transposed, and with itself."
        static let inputs = InputContract(base: .plainInput, models: 1...1)
        static let parameters: [Parameter] = []

        init(_ values: ParameterValues, inputs: TensorInputs) {}

        func cost(of shape: [Int]) -> OperatorCost {
            let rows = shape[0], columns = shape[1]
            return OperatorCost(
                passes: 1, operations: 4 * Double(rows) * Double(rows) * Double(columns),
                matrixElements: 2 * rows * columns + rows * rows)
        }

        func merge(_ tensor: TensorPasses) throws {
            let x = try tensor.matrix(0), gram = try tensor.matrix(rows: x.rows, columns: x.rows)
            let result = try tensor.matrix(rows: x.rows, columns: x.columns)
            for i in 0..<x.rows {
                try tensor.checkCancellation()
                for j in 0..<x.rows {
                    gram[i, j] = (0..<x.columns).reduce(0) { $0 + x[i, $1] * x[j, $1] }
                    for k in 0..<x.columns { result[i, k] += gram[i, j] * x[j, k] }
                }
            }
            tensor.report("trace", [(0..<x.rows).reduce(0) { $0 + gram[$1, $1] }])
            try tensor.emit { tile, out in
                for index in 0..<tile.count { out[index] = Float(result.elements[tile.range.lowerBound + index]) }
            }
        }
    }

    /// Cancelled after it was asked a few times.
    private final class Cancelling: ParallelRunner {
        let threads = 1
        let asked = Atomic(0)
        private let limit: Int

        init(after limit: Int) { self.limit = limit }

        func checkCancellation() throws {
            if asked.wrappingAdd(1, ordering: .relaxed).newValue > limit { throw CancellationError() }
        }

        func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
            for index in 0..<count { try body(index) }
        }
    }

    private func passes(
        _ x: TestTensor, elements: Int, runner: any ParallelRunner = AtOnce(), sink: Collector = Collector()
    ) throws -> TensorPasses {
        TensorPasses(
            shape: x.shape, codec: Rounding(dtype: .f32),
            sources: [try StoredTensor(Memory(bytes: x.bytes), offset: 0, dtype: x.dtype, count: x.shape.reduce(1, *))],
            inputs: TensorInputs(count: 1), kernels: .best, runner: runner, memory: MemoryBudget(bytes: 0),
            matrixElements: elements, sinks: [sink])
    }

    private func method() throws -> Cube { Cube(ParameterValues(), inputs: TensorInputs(count: 1)) }

    /// Rows lie across tiles, and the source is not float32.
    @Test func aWholeMatrixIsComputed() throws {
        let shape = [3, 7_001], count = 3 * 7_001
        let x = TestTensor(bfloat16: (0..<count).map { Float($0 % 7) / 4 }, shape: shape), sink = Collector()
        let method = try method(), passes = try passes(x, elements: method.cost(of: shape).matrixElements, sink: sink)
        try method.merge(passes)
        let values = x.values
        func element(_ row: Int, _ column: Int) -> Double { values[row * 7_001 + column] }
        let gram = (0..<3).map { i in (0..<3).map { j in (0..<7_001).reduce(0) { $0 + element(i, $1) * element(j, $1) } } }
        let found = TestTensor(.f32, shape, bytes: try sink.bytes(count: 4 * count)).values
        for i in 0..<3 {
            for k in stride(from: 0, to: 7_001, by: 17) {
                let expected = (0..<3).reduce(0) { $0 + gram[i][$1] * element($1, k) }
                #expect((found[i * 7_001 + k] - expected).magnitude <= 1e-4 * max(1, expected))
            }
        }
        let trace = try #require(passes.statistics?.numbers["trace"]?.first)
        #expect((trace - (gram[0][0] + gram[1][1] + gram[2][2])).magnitude < 1)
    }

    @Test func moreThanTheCostSaysIsRefused() throws {
        let x = TestTensor([1, 2, 3, 4], shape: [2, 2]), method = try method()
        let elements = method.cost(of: [2, 2]).matrixElements
        try method.merge(passes(x, elements: elements))
        let error = #expect(throws: TesseraError.self) { try method.merge(passes(x, elements: elements - 1)) }
        #expect(error?.code == .internal)
    }

    @Test func aMatrixThatIsGoneLeavesItsPlace() throws {
        let passes = try passes(TestTensor([1, 2], shape: [1, 2]), elements: 2)
        for _ in 0..<3 { withExtendedLifetime(try passes.matrix(0)) {} }
        let held = try passes.matrix(0)
        #expect(throws: TesseraError.self) { try passes.matrix(0) }
        #expect(throws: TesseraError.self) { try passes.matrix(rows: .max, columns: 2) }
        #expect(held[0, 1] == 2)
    }

    @Test func aLongComputationIsCancelled() throws {
        let shape = [50, 4], x = TestTensor([Float](repeating: 1, count: 200), shape: shape), runner = Cancelling(after: 3)
        let method = try method(), elements = method.cost(of: shape).matrixElements
        #expect(throws: CancellationError.self) { try method.merge(passes(x, elements: elements, runner: runner)) }
        #expect(runner.asked.load(ordering: .relaxed) == 4)
    }

    @Test func mostMethodsReportNothing() throws {
        let passes = try passes(TestTensor([1, 2], shape: [2]), elements: 0)
        try Passthrough(ParameterValues(perInput: [[:]]), inputs: TensorInputs(count: 1)).merge(passes)
        #expect(passes.statistics == nil)
    }
}
