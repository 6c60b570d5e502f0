import Core
import Operators
import TaskVectors
import TensorKernels
import Testing
import Work

/// What a tensor costs: memory, which is reserved, and time, by which shards are compared.
@Suite struct CostTests {
    private static let shape = [4096, 4096]

    private func work(_ sources: [SourceReference], method: String = "linear", base: Int? = nil) -> TensorWork {
        TensorWork(
            name: "t", shape: Self.shape,
            operation: .merge(
                MergeOperation(
                    method: method,
                    values: ParameterValues(
                        shared: [
                            "normalize": .flag(true), "rescale": .flag(false), "lambda": .number(1), "epsilon": .number(0.1),
                        ],
                        perInput: sources.map { _ in ["weight": .number(1), "density": .number(0.5)] }), base: base,
                    codec: .rounding(to: .bf16))), sources: sources,
            outputs: Rounding(dtype: .bf16).outputs(shape: Self.shape).map { OutputTensor($0, name: "t", part: 0, offset: 0) })
    }

    private static func stored(_ file: Int) -> SourceReference {
        .stored(StoredReference(file: file, offset: 0, dtype: .bf16, shape: shape))
    }

    private static func adapted(_ file: Int, rank: Int) -> SourceReference {
        func factor(_ shape: [Int]) -> StoredReference { StoredReference(file: 9, offset: 0, dtype: .f32, shape: shape) }
        return .lowRank(
            stored(file),
            LowRankReference(a: factor([rank, 4096]), b: factor([4096, rank]), rank: rank, scale: 1, isTransposed: false))
    }

    private func seconds(_ work: TensorWork) throws -> Double { try work.estimatedSeconds(work.cost()) }

    @Test func timeGrowsWithPassesAndArithmetic() throws {
        let plain = [Self.stored(0), Self.stored(1)]
        let linear = try seconds(work(plain)), ties = try seconds(work(plain, method: "ties", base: 0))
        #expect(linear > 0 && ties > 1.5 * linear)
        let adapted = try seconds(work([Self.stored(0), Self.adapted(1, rank: 64)]))
        #expect(adapted > linear)
        #expect(try seconds(work([Self.stored(0), Self.adapted(1, rank: 256)])) > 2 * adapted)
    }

    /// Magnitudes take a pass over the matrix, and memory for the norms; so does an adapter below a vocabulary's rows.
    @Test func adaptersAreTimeAndMemory() throws {
        let adapted = Self.adapted(1, rank: 64), base = Self.stored(0)
        let magnitudes = StoredReference(file: 9, offset: 0, dtype: .f32, shape: [4096])
        let rescaled = SourceReference.rescaled(adapted, MagnitudeReference(magnitudes, axis: .rows))
        let plain = try work([base, adapted]).cost(), longer = try work([base, rescaled]).cost()
        #expect(longer.operations > 1.9 * plain.operations)
        #expect(longer.memory.shared >= plain.memory.shared + 4096 * 16)
        var map = RowMap()
        map.append(.stored(RowMap.SourceRow(source: 0, row: 0)), count: 4096)
        func aligned(_ source: SourceReference) -> SourceReference {
            .aligned([source], AlignmentReference(rowLength: 4096, map: map))
        }
        let nested = try work([base, aligned(aligned(adapted))]).cost()
        #expect(nested.memory.shared >= plain.memory.shared + 2 * 4 * 4096)
        #expect(nested.operations == plain.operations)
    }

    /// An adapter whose first factors are found again costs a factorization, and the matrix in float64 several times.
    @Test func partsOfMatricesAreTimeAndMemory() throws {
        let stored = Self.stored(0), area = 4096.0 * 4096
        func residual(_ part: ResidualMatrix.Part) -> SourceReference {
            .residual(stored, ResidualReference(part: part, rank: 16, scale: 1, linearAlgebra: ""))
        }
        let plain = try work([stored]).cost(), leading = try work([residual(.leadingColumns)]).cost()
        let principal = try work([residual(.principal)]).cost()
        #expect(leading.memory.shared >= plain.memory.shared + 8 * Int(area))
        #expect(principal.memory.shared >= leading.memory.shared + 24 * Int(area))
        #expect(principal.operations > plain.operations + 9 * area * 4096)
    }

    /// A factorization of a matrix takes longer than many passes over it.
    @Test func operationsAreTime() {
        let bytes = 2 * 4096 * 4096, cube = 4096.0 * 4096 * 4096
        let passes = OperatorCost(passes: 10).estimatedSeconds(read: bytes, written: bytes)
        #expect(OperatorCost(passes: 1, operations: 10 * cube).estimatedSeconds(read: bytes, written: bytes) > 100 * passes)
    }

    @Test func matricesArePartOfTheMemory() {
        let cost = OperatorCost(passes: 1, matrixElements: 1000, memory: MemoryNeed(shared: 24, perThread: 8))
        #expect(cost.memory == MemoryNeed(shared: 8024, perThread: 8))
        let more = cost.adding(passes: 1, operations: 5, memory: MemoryNeed(shared: 1, perThread: 1))
        #expect(more.memory == MemoryNeed(shared: 8025, perThread: 9))
        #expect(more.matrixElements == 1000 && more.passes == 2 && more.operations == 5)
    }

    /// Two models that share the matrices of an alignment read and hold them once.
    @Test func alignedMatricesCountOnce() throws {
        let matrices = [Self.stored(0), Self.adapted(1, rank: 8)]
        var map = RowMap()
        map.append(.stored(RowMap.SourceRow(source: 0, row: 0)), count: 4096)
        let aligned = SourceReference.aligned(matrices, AlignmentReference(rowLength: 4096, map: map))
        let work = work([aligned, aligned])
        #expect(work.sourceByteCount == 2 * (2 << 24))
        let factors = 4 * 2 * 2 * 8 * 4096, rows = 2 * 4 * 4096
        #expect(try work.cost().memory.shared == factors + rows)
    }

    @Test func outputsAreThoseOfTheOperation() throws {
        let sources = [Self.stored(0)]
        try work(sources).checkOutputs()
        for (dtype, byteCount, blockSize) in [
            (DType.f32, 1 << 25, 4 << 20), (.bf16, 1 << 24, 4 << 20), (.bf16, 1 << 25, 8 << 20),
        ] {
            let output = OutputTensor(
                name: "t", dtype: dtype, byteCount: byteCount, part: 0, offset: 0, blockSize: blockSize)
            let wrong = TensorWork(
                name: "t", shape: Self.shape, operation: work(sources).operation, sources: sources, outputs: [output])
            #expect(throws: TesseraError.self) { try wrong.checkOutputs() }
        }
        let codec = MergeOperation(
            method: "linear", values: ParameterValues(), base: nil, codec: CodecReference(name: "magic", dtype: .f32))
        let unknown = TensorWork(
            name: "t", shape: Self.shape, operation: .merge(codec), sources: sources, outputs: work(sources).outputs)
        let error = #expect(throws: TesseraError.self) { try unknown.checkOutputs() }
        #expect(error?.code == .protocolMismatch)
    }
}
