import Core
package import Operators
import Synchronization
import TensorKernels

/// What was found in one tensor while it was encoded or measured.
package struct TensorStatistics: Sendable, Hashable, Codable {
    /// For each task some numbers, whose meaning the encoding states.
    package let tasks: [[Double]]
    /// What identifies the base's tensor; `nil` where it was only measured.
    package let base: BaseIdentity?

    package init(tasks: [[Double]], base: BaseIdentity? = nil) {
        self.tasks = tasks
        self.base = base
    }
}

/// What is done with one tensor of a base and its fine-tunes to store their task vectors.
///
/// Source 0 is the base, the next ones are the fine-tunes in the order of the tasks. A task vector is `θ − θ₀` in float32.
package enum Encoding: Sendable, Hashable, Codable {
    case quantize(Quantizer)
    case sparsify(SparseEncoder)
    case mask(TaskMasks)
    /// Tensors of types without arithmetic are not stored. For each task one number: 1 where its tensor is another than the base's.
    case compare
    case measureGrids(GridMeasurement)
    case measureMagnitudes(MagnitudeMeasurement)
    case countKept(SparseEncoder)

    /// Reads all sources and writes the outputs.
    ///
    /// - Throws: `badData` when a source holds numbers that are not finite, and what reading and writing throw.
    package func encode(_ tensor: TensorPasses) throws -> TensorStatistics {
        // The base is identified first: encoding releases the sources.
        switch self {
        case .quantize(let quantizer):
            let base = try BaseIdentity(of: tensor)
            return TensorStatistics(tasks: try quantizer.encode(tensor), base: base)
        case .sparsify(let encoder):
            let base = try BaseIdentity(of: tensor)
            return TensorStatistics(tasks: try encoder.encode(tensor), base: base)
        case .mask(let masks):
            let base = try BaseIdentity(of: tensor)
            return TensorStatistics(tasks: try masks.encode(tensor), base: base)
        case .compare:
            let base = try BaseIdentity(of: tensor, isLast: true)
            let differ = try (0..<tensor.taskCount).map {
                try tensor.digest(ofSource: $0 + 1, isLast: true) != base.digest
            }
            return TensorStatistics(tasks: differ.map { [$0 ? 1 : 0] }, base: base)
        case .measureGrids(let measurement): return TensorStatistics(tasks: try measurement.measure(tensor))
        case .measureMagnitudes(let measurement): return TensorStatistics(tasks: try measurement.measure(tensor))
        case .countKept(let encoder): return TensorStatistics(tasks: try encoder.countKept(in: tensor))
        }
    }

    /// The formats that are written, in the order of the outputs.
    package var formats: [StorageFormat] {
        switch self {
        case .quantize(let quantizer): quantizer.formats
        case .sparsify(let encoder): encoder.formats
        case .mask(let masks): masks.formats
        case .compare, .measureGrids, .measureMagnitudes, .countKept: []
        }
    }

    /// What it needs for a tensor of that shape.
    package func cost(of shape: [Int], sources: Int) -> OperatorCost {
        let written = formats.flatMap { $0.tensors(shape: shape) }, count = shape.reduce(1, *)
        // Scales and zero points of rows are made as float32 and as they are stored.
        let whole = written.reduce(0) { $0 + ($1.rate == nil && $1.part != .values && $1.part != .codes ? 4 * $1.byteCount : 0) }
        let memory = MemoryNeed(
            shared: whole,
            perThread: ChunkBuffer.byteCount(written.compactMap(\.rate)) + SharedVectorBuffer.byteCount + CodeBuffer.byteCount)
        return switch self {
        case .quantize(let quantizer): OperatorCost(passes: quantizer.passes + 1, memory: memory)
        case .sparsify(let encoder):
            OperatorCost(
                passes: encoder.passes,
                memory: memory + encoder.memory(count: count) + MemoryNeed(perThread: TreeDigest.blockSize))
        case .mask(let masks): OperatorCost(passes: masks.passes + 1, memory: memory)
        case .compare: OperatorCost(passes: 1)
        case .measureGrids: OperatorCost(passes: 1, memory: memory)
        case .measureMagnitudes:
            OperatorCost(passes: 1, memory: MemoryNeed(shared: (sources - 1) * MagnitudeHistogram.byteCount))
        case .countKept(let encoder): OperatorCost(passes: 1, memory: encoder.memory(count: count))
        }
    }
}

extension TensorPasses {
    /// The fine-tunes.
    var taskCount: Int { inputs.count - 1 }
}
