import Core
package import Operators
import Synchronization
import TensorKernels

/// What is done with one tensor of a base and its fine-tunes in order to store task vectors.
///
/// Source 0 is the base; the fine-tunes follow in the order of the tasks. A task vector is `θ − θ₀` in float32.
package enum Encoding: Sendable, Hashable, Codable {
    case quantize(Quantizer)
    case sparsify(SparseEncoder)
    case mask(TaskMasks)
    /// A tensor of a type without arithmetic is only compared with the base's.
    case compare
    case measureGrids(GridMeasurement)
    case measureMagnitudes(MagnitudeMeasurement)
    case countKept(SparseEncoder)

    /// Reads all sources and writes the outputs.
    ///
    /// - Throws: `badData` when a source has numbers that are not finite, and errors of reading and writing.
    package func encode(_ tensor: TensorPasses) throws -> EncodingStatistics {
        switch self {
        case .quantize(let quantizer):
            let (base, errors) = try BaseIdentity.find(of: tensor) { try quantizer.encode(tensor, computing: $0) }
            return .vectors(base: base, errors)
        case .sparsify(let encoder):
            let base = try BaseIdentity(of: tensor)
            return .vectors(base: base, try encoder.encode(tensor))
        case .mask(let masks):
            let (base, sums) = try BaseIdentity.find(of: tensor) { try masks.encode(tensor, computing: $0) }
            return .masks(base: base, sums)
        case .compare:
            let base = try BaseIdentity(of: tensor, isLast: true)
            let differ = try (0..<tensor.taskCount).map {
                try tensor.digest(ofSource: $0 + 1, isLast: true) != base.digest
            }
            return .comparison(base: base, differ)
        case .measureGrids(let measurement): return .grids(try measurement.measure(tensor))
        case .measureMagnitudes(let measurement): return .magnitudes(try measurement.measure(tensor))
        case .countKept(let encoder): return .kept(try encoder.countKept(in: tensor))
        }
    }

    /// The storage formats that are written, in the order of the outputs.
    package var formats: [StorageFormat] {
        switch self {
        case .quantize(let quantizer): quantizer.formats
        case .sparsify(let encoder): encoder.formats
        case .mask(let masks): masks.formats
        case .compare, .measureGrids, .measureMagnitudes, .countKept: []
        }
    }

    /// The tensors of each of `formats` that are written as outputs, for a tensor of the given shape: none for a vector that is
    /// packed.
    package func outputs(shape: [Int]) -> [[EncodedTensor]] {
        if case .quantize(let quantizer) = self, quantizer.packLimit != nil {
            return formats.map { quantizer.packedByteCount(of: $0, shape: shape) == nil ? $0.tensors(shape: shape) : [] }
        }
        // Mostly all tasks have one format: its tensors are made once, and share their shapes.
        var last: (format: StorageFormat, tensors: [EncodedTensor])?
        return formats.map { format in
            if let last, last.format == format { return last.tensors }
            let tensors = format.tensors(shape: shape)
            last = (format, tensors)
            return tensors
        }
    }

    /// Arithmetic operations of encoding every vector that is written.
    private func fits(count: Int) -> Double {
        formats.reduce(0) { $0 + GridMeasurement.operationsPerElement(of: $1) * Double(count) }
    }

    /// What the encoding needs for a tensor of the given shape.
    package func cost(of shape: [Int], sources: Int) -> OperatorCost {
        let written = outputs(shape: shape).flatMap(\.self), count = Shape.count(shape)
        // Scales and zero points of rows are held as float32 and as stored.
        let whole = written.reduce(0) {
            $0 + ($1.rate == nil && ($1.part == .scales || $1.part == .zeros) ? 4 * $1.byteCount : 0)
        }
        let memory = MemoryNeed(
            shared: whole,
            perThread: ChunkBuffer.byteCount(written.compactMap(\.rate)) + SharedVectorBuffer.byteCount + CodeBuffer.byteCount)
        func signMemory(_ formats: [StorageFormat], vectors: Int? = nil) -> MemoryNeed {
            let scalings = formats.compactMap(\.signScaling)
            return Set(scalings).reduce(MemoryNeed()) { need, scaling in
                need + scaling.memory(shape: shape, vectors: vectors ?? scalings.count { $0 == scaling })
            }
        }
        return switch self {
        case .quantize(let quantizer):
            OperatorCost(
                passes: quantizer.passes + 1, operations: fits(count: count), memory: memory + signMemory(quantizer.tasks))
        case .sparsify(let encoder):
            OperatorCost(
                passes: encoder.passes,
                memory: memory + encoder.memory(count: count) + MemoryNeed(perThread: TreeDigest.blockSize))
        case .mask(let masks): OperatorCost(passes: masks.passes + 1, memory: memory)
        case .compare: OperatorCost(passes: 1)
        case .measureGrids(let measurement):
            OperatorCost(
                passes: measurement.passes, operations: measurement.operations(count: count, tasks: sources - 1),
                memory: memory + signMemory(measurement.formats, vectors: sources - 1))
        case .measureMagnitudes:
            OperatorCost(passes: 1, memory: MemoryNeed(shared: (sources - 1) * MagnitudeHistogram.byteCount))
        case .countKept(let encoder):
            OperatorCost(passes: encoder.selection.passes + 1, memory: encoder.selectionMemory(count: count))
        }
    }
}

extension TensorPasses {
    /// The number of fine-tunes.
    var taskCount: Int { inputs.count - 1 }
}
