import Core
import Operators
import TaskVectors
import TensorKernels
import TestSupport
import Testing

/// Tasks of which each selects what the tasks before it left.
@Suite struct DisjointTaskTests {
    private static let count = 40_000

    private static func encoder(tasks: Int, values: ValueFormat) -> SparseEncoder {
        let kept = EntryBlocks(kept: 1, size: 8, tail: .drop).kept(of: count)
        return SparseEncoder(
            selection: .blocks(n: 1, m: 8, tail: .drop, isDisjoint: true), values: values,
            kept: Array(repeating: kept, count: tasks))
    }

    /// The bytes that are read of each fine-tune.
    private func bytesRead(tasks: Int, values: ValueFormat) throws -> [Int] {
        let encoding = Encoding.sparsify(Self.encoder(tasks: tasks, values: values)), shape = [Self.count / 100, 100]
        let files = (0...tasks).map { model in
            RecordingBytes(TestTensor(bfloat16: (0..<Self.count).map { Float(($0 &* 31 &+ model) % 251) / 64 }).bytes)
        }
        _ = try encoding.encode(
            TensorPasses(
                shape: shape, sources: try files.map { try StoredTensor($0, offset: 0, dtype: .bf16, count: Self.count) },
                inputs: TensorInputs(count: files.count, base: 0), kernels: .best, runner: InOrder(),
                memory: MemoryBudget(bytes: 0),
                sinks: encoding.formats.flatMap { $0.tensors(shape: shape) }.map { _ in Collector() }
            ))
        return files.dropFirst().map { $0.notes.reads.reduce(0) { $0 + $1.count } }
    }

    /// A task is selected by reading its vector. No vector is read more often because more tasks follow.
    @Test(arguments: [ValueFormat.raw(.bf16), .grid(Grid(bits: 4, granularity: .row))])
    func eachTaskIsSelectedEquallyOften(values: ValueFormat) throws {
        let two = try bytesRead(tasks: 2, values: values), seven = try bytesRead(tasks: 7, values: values)
        #expect(two[0] > 0 && Set(two + seven) == [two[0]], "\(two), \(seven)")
    }

    /// The bitmaps are memory that the coordinator knows of.
    @Test func bitmapsArePartOfTheCost() {
        func shared(isDisjoint: Bool) -> Int {
            let selection = Selection.blocks(n: 1, m: 8, tail: .drop, isDisjoint: isDisjoint)
            let encoder = SparseEncoder(selection: selection, values: .raw(.bf16), kept: [Self.count / 8])
            return Encoding.sparsify(encoder).cost(of: [Self.count], sources: 2).memory.shared
        }
        #expect(shared(isDisjoint: false) >= Self.count / 8)
        #expect(shared(isDisjoint: true) == shared(isDisjoint: false) + Self.count / 8)
    }
}
