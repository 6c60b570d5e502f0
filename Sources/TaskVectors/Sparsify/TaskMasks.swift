import Operators
import TensorKernels

/// Stores one vector for all tasks, and for each task one bit per element.
///
/// TALL-masks (arXiv 2405.07813): the shared vector is `τ = Σ τₜ`; task `t` keeps the elements with `|τₜ| > λₜ · |τ − τₜ|`.
/// EMR (arXiv 2405.17461): the shared vector has at each element the sign of `Σ τₜ` (minus for zero) and the largest magnitude of
/// the `τₜ` that agree with it; task `t` keeps the elements where its own sign agrees, times a factor for the whole model.
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

    func encode(_ tensor: TensorPasses) throws -> [MaskSums] {
        let format = StorageFormat.dense(shared)
        let ranges =
            format.needsRanges
            ? try format.grid.map { grid in
                try ValueRange.find(grid, of: 1, in: tensor) { tile, _ in UnsafePointer(try sharedVector(in: tile)) }
            } : nil
        let coder = FormatCoder(format, ranges: ranges?.first ?? [])
        let writer = FormatWriter(coder, firstOutput: 0, shape: tensor.shape)
        let rates = writer.rates + Array(repeating: ChunkRate(bits: 1), count: taskCount)
        let width = MaskSums.count
        let sums = try tensor.emit(rates, terms: width * taskCount) { tile, buffer, sums in
            let vector = try sharedVector(in: tile), decoded = tile.workspace { MaskBuffer() }.decoded
            writer.write(vector, of: tile, buffer: buffer, decoded: decoded)
            for task in 0..<taskCount {
                let own = try tile.taskVector(task + 1), mask = buffer.place(in: writer.nextOutput + task)
                mark(own, of: vector, task: task, into: mask, in: tile)
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

    /// In `tile.scratch(0)`. Overwrites `tile.scratch(1)`.
    private func sharedVector(in tile: Tile) throws -> UnsafeMutablePointer<Float> {
        let sum = tile.scratch(0), kernels = tile.kernels
        sum.update(repeating: 0, count: tile.count)
        for task in 0..<taskCount { kernels.add(try tile.taskVector(task + 1), to: sum, count: tile.count) }
        guard case .emr = rule else { return sum }
        let unified = tile.scratch(1)
        unified.update(repeating: 0, count: tile.count)
        for task in 0..<taskCount {
            let own = try tile.taskVector(task + 1)
            for index in 0..<tile.count {
                let isPlus = sum[index] > 0
                if isPlus ? own[index] > unified[index] : own[index] < unified[index] { unified[index] = own[index] }
            }
        }
        sum.update(from: unified, count: tile.count)
        return sum
    }

    /// Sets the bits of the elements that the task keeps. Overwrites `tile.scratch(1)`.
    private func mark(
        _ own: UnsafePointer<Float>, of shared: UnsafePointer<Float>, task: Int, into mask: UnsafeMutableRawPointer,
        in tile: Tile
    ) {
        switch rule {
        case .tall(let lambdas):
            let others = tile.scratch(1)
            tile.kernels.subtract(shared, own, into: others, count: tile.count)
            tile.kernels.bits(of: own, above: Float(lambdas[task]), times: others, into: mask, count: tile.count)
        case .emr: tile.kernels.bits(of: own, agreeingWith: shared, into: mask, count: tile.count)
        }
    }
}

private final class MaskBuffer {
    let decoded = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.tileElements)
    deinit { decoded.deallocate() }
}
