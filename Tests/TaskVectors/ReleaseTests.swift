import Core
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Testing

/// Whatever is done to task vectors, no input stays mapped.
@Suite struct ReleaseTests {
    private static let grid = StorageFormat.dense(.grid(Grid(bits: 3, granularity: .group(64))))
    private static let rows = StorageFormat.dense(.grid(Grid(bits: 3, granularity: .row)))

    private static func encodings(count: Int) -> [Encoding] {
        let kept = [count / 4, count / 4]
        let blocks = Selection.blocks(n: 2, m: 8, tail: .drop, isDisjoint: true)
        return [
            .quantize(Quantizer(tasks: [grid, rows])), .quantize(Quantizer(shared: rows, tasks: [grid, .zero])),
            .sparsify(SparseEncoder(selection: .largest(kept), values: .raw(.bf16), kept: kept)),
            .sparsify(SparseEncoder(selection: blocks, values: .raw(.bf16), kept: kept)),
            .mask(TaskMasks(rule: .emr, shared: .raw(.bf16), taskCount: 2)), .compare,
            .measureGrids(GridMeasurement(shared: [.zero], formats: [grid])), .measureMagnitudes(.first(tasks: 2)),
            .countKept(SparseEncoder(selection: .largest(kept), values: .raw(.bf16), kept: kept)),
            .quantize(Quantizer(tasks: [.signs(.row), .signs(.column)])),
            .measureGrids(GridMeasurement(shared: [.zero], formats: [.signs(.column), .signs(.row)])),
        ]
    }

    /// The last one has two chunks.
    @Test(arguments: Array(0..<11).map { ($0, 40_000) } + [(0, ChunkRate.chunk + 10_240)])
    func nothingStaysMapped(encoding index: Int, count: Int) throws {
        let encoding = Self.encodings(count: count)[index], shape = [count / 64, 64]
        let files = (0..<3).map { model in
            RecordingBytes(TestTensor(bfloat16: (0..<count).map { Float(($0 &* 31 &+ model) % 251) / 64 }).bytes)
        }
        let sources = try files.map { try StoredTensor($0, offset: 0, dtype: .bf16, count: count) }
        let sinks = encoding.formats.flatMap { $0.tensors(shape: shape) }.map { _ in Collector() }
        _ = try encoding.encode(
            TensorPasses(
                shape: shape, sources: sources, inputs: TensorInputs(count: 3, base: 0), kernels: .best,
                runner: AtOnce(), memory: MemoryBudget(bytes: 1 << 20), sinks: sinks))
        for notes in files.map(\.notes) {
            #expect(notes.mapped.isEmpty)
            #expect(notes.released == RangeSet(0..<2 * count))
        }
    }
}
