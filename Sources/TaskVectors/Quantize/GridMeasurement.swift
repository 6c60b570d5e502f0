import Operators
import TensorKernels

/// Measures the error that a tensor's task vectors would have in each of several formats. A bit budget is divided by these
/// errors.
package struct GridMeasurement: Sendable, Hashable, Codable {
    /// For RTVQ, the formats that the shared vector may have; `zero` for no shared vector.
    package let shared: [StorageFormat]
    /// Whether offsets are taken from an existing shared vector. If so, the last source is the base plus that vector.
    package let sharedIsFrozen: Bool
    /// Formats that need no ranges: groups, and unquantized numbers.
    package let formats: [StorageFormat]

    package init(shared: [StorageFormat], sharedIsFrozen: Bool = false, formats: [StorageFormat]) {
        self.shared = shared
        self.sharedIsFrozen = sharedIsFrozen
        self.formats = formats
    }

    /// The largest number of tiles that are measured, spread evenly over the tensor.
    private static let tileLimit = 256

    /// Arithmetic operations of encoding one element. Fitting a group's scale takes several rounds over the group.
    static func operationsPerElement(of format: StorageFormat) -> Double {
        if case .group? = format.grid?.granularity { 64 } else { 8 }
    }

    /// Arithmetic operations for a tensor of `count` elements.
    func operations(count: Int, tasks: Int) -> Double {
        let measured = Double(min(count, Self.tileLimit * FixedTree.tileElements))
        return measured * Double(tasks * max(1, shared.count)) * formats.reduce(0) { $0 + Self.operationsPerElement(of: $1) }
    }

    func measure(_ tensor: TensorPasses) throws -> [GridErrors] {
        let tasks = tensor.taskCount - (sharedIsFrozen ? 1 : 0), width = 1 + shared.count * formats.count
        let sharedCoders = shared.map { FormatCoder($0, ranges: []) }, coders = formats.map { FormatCoder($0, ranges: []) }
        let stride = (tensor.tileCount + Self.tileLimit - 1) / Self.tileLimit
        let sums = try tensor.sums(tasks * width + 2, isLast: true) { tile, sums in
            guard stride <= 1 || tile.range.lowerBound / FixedTree.tileElements % stride == stride / 2 else { return }
            sums[tasks * width] = Double(tile.count)
            let kernels = tile.kernels, count = tile.count
            let base = try tile.source(0)
            sums[tasks * width + 1] = kernels.dot(base, base, count: count)
            for (index, coder) in sharedCoders.enumerated() {
                let mean = tile.scratch(0), reference = tile.scratch(1)
                if sharedIsFrozen {
                    reference.update(from: try tile.taskVector(tasks + 1), count: count)
                } else if case .zero = coder.format {
                    reference.update(repeating: 0, count: count)
                } else {
                    mean.update(repeating: 0, count: count)
                    for task in 0..<tasks { kernels.add(try tile.taskVector(task + 1), to: mean, count: count) }
                    kernels.scale(mean, by: 1 / Float(tasks), into: mean, count: count)
                    coder.code(mean, of: tile, decoded: reference)
                }
                let offset = tile.workspace { OffsetBuffer() }.offset
                for task in 0..<tasks {
                    let vector = try tile.taskVector(task + 1)
                    if index == 0 {
                        sums[task * width] = kernels.dot(vector, vector, count: count)
                        guard sums[task * width].isFinite else { throw NotFinite.error }
                    }
                    kernels.subtract(vector, reference, into: offset, count: count)
                    for (format, coder) in coders.enumerated() {
                        coder.code(offset, of: tile, decoded: mean)
                        sums[task * width + 1 + index * formats.count + format] = kernels.squaredError(offset, mean, count: count)
                    }
                }
            }
        }
        let scale = Double(tensor.count) / max(1, sums[tasks * width])
        return (0..<tasks).map { task in
            GridErrors(
                energy: sums[task * width] * scale, base: sums[tasks * width + 1] * scale,
                errors: shared.indices.map { index in
                    formats.indices.map { sums[task * width + 1 + index * formats.count + $0] * scale }
                })
        }
    }
}

/// A buffer for an offset from the shared vector.
private final class OffsetBuffer {
    let offset = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.tileElements)
    deinit { offset.deallocate() }
}
