import Operators
import TensorKernels

/// Stores one vector for all tasks, and for each task one bit per element (`SharedVector`). EMR has also a factor for each task
/// and the whole model.
package struct TaskMasks: Sendable, Hashable, Codable {
    package enum Rule: Sendable, Hashable, Codable {
        /// `λₜ` of each task.
        case tall([Double])
        case emr
    }

    package let rule: Rule
    package let shared: ValueFormat
    package let taskCount: Int

    package init(rule: Rule, shared: ValueFormat, taskCount: Int) {
        self.rule = rule
        self.shared = shared
        self.taskCount = taskCount
    }

    /// The shared vector first.
    var formats: [StorageFormat] { [.dense(shared)] + Array(repeating: .mask, count: taskCount) }

    var passes: Int { StorageFormat.dense(shared).needsRanges ? 1 : 0 }

    /// - Parameter digest: of the base, computed on the way.
    func encode(_ tensor: TensorPasses, computing digest: SourceDigest?) throws -> [MaskSums] {
        let format = StorageFormat.dense(shared)
        let ranges =
            format.needsRanges
            ? try format.grid.map { grid in
                try ValueRange.find(grid, of: 1, in: tensor) { tile, _ in UnsafePointer(try sharedVector.vector(in: tile)) }
            } : nil
        let coder = FormatCoder(format, ranges: ranges?.first ?? [])
        let writer = FormatWriter(coder, firstOutput: 0, shape: tensor.shape)
        let rates = writer.rates + Array(repeating: ChunkRate(bits: 1), count: taskCount)
        let width = MaskSums.count
        let sums = try tensor.emit(rates, terms: width * taskCount, computing: digest) { tile, buffer, sums in
            let vector = try sharedVector.vector(in: tile), decoded = tile.workspace { MaskBuffer() }.decoded
            writer.write(vector, of: tile, buffer: buffer, decoded: decoded)
            for task in 0..<taskCount {
                let own = try tile.taskVector(task + 1), mask = buffer.place(in: writer.nextOutput + task)
                sharedVector.mark(own, of: vector, lambda: lambda(task), into: mask, in: tile)
                let masked = tile.scratch(1), kernels = tile.kernels, count = tile.count
                masked.update(from: decoded, count: count)
                kernels.apply(mask, first: 0, to: masked, count: count)
                // In the order of `MaskSums`.
                let numbers: [Double] = [
                    kernels.squaredError(own, masked, count: count), kernels.dot(own, own, count: count),
                    kernels.dot(own, masked, count: count), kernels.dot(masked, masked, count: count),
                    kernels.sumOfMagnitudes(own, count: count), kernels.sumOfMagnitudes(masked, count: count),
                ]
                guard numbers[1].isFinite else { throw NotFinite.error }
                for (index, number) in numbers.enumerated() { sums[task * width + index] = number }
            }
        }
        try writer.writeKnown(of: tensor)
        return (0..<taskCount).map { MaskSums(sums[$0 * width..<($0 + 1) * width]) }
    }

    private var sharedVector: SharedVector {
        let rule: SharedVector.Rule = if case .tall = self.rule { .tall } else { .emr }
        return SharedVector(rule, of: (0..<taskCount).map { $0 + 1 })
    }

    /// `λₜ` of a task; 0 where the rule has none.
    private func lambda(_ task: Int) -> Double { if case .tall(let lambdas) = rule { lambdas[task] } else { 0 } }
}

private final class MaskBuffer {
    let decoded = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.tileElements)
    deinit { decoded.deallocate() }
}
