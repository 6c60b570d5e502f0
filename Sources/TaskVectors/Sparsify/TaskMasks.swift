import Operators
import TensorKernels

/// One vector for all tasks, and for each task one bit for every element.
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
    package let shared: ValueForm
    package let taskCount: Int

    package init(rule: Rule, shared: ValueForm, taskCount: Int) {
        self.rule = rule
        self.shared = shared
        self.taskCount = taskCount
    }

    /// The shared vector first.
    var forms: [VectorForm] { [.dense(shared)] + Array(repeating: .mask, count: taskCount) }

    var reads: Int { VectorForm.dense(shared).needsRanges ? 1 : 0 }

    /// What `encode` returns of each task, with `u` its masked part of the shared vector as it is read: `Σ(τ − u)²`, `Στ²`, `Στu`, `Σu²`,
    /// `Σ|τ|`, `Σ|u|`.
    package enum Number: Int, CaseIterable {
        case error, energy, product, masked, magnitudes, maskedMagnitudes
    }

    /// - Returns: for each task the numbers of `Number`.
    func encode(_ tensor: TensorPasses) throws -> [[Double]] {
        let form = VectorForm.dense(shared)
        let ranges =
            form.needsRanges
            ? try form.grid.map { grid in
                try ValueRange.find(grid, of: 1, in: tensor) { grain, _ in UnsafePointer(try sharedVector(in: grain)) }
            } : nil
        let coder = FormCoder(form, ranges: ranges?.first ?? [])
        let writer = FormWriter(coder, firstOutput: 0, shape: tensor.shape)
        let rates = writer.rates + Array(repeating: StretchRate(bits: 1), count: taskCount)
        let width = Number.allCases.count
        let sums = try tensor.emit(rates, terms: width * taskCount) { grain, room, sums in
            let vector = try sharedVector(in: grain), decoded = grain.workspace { MaskRoom() }.decoded
            writer.write(vector, of: grain, room: room, decoded: decoded)
            for task in 0..<taskCount {
                let own = try grain.taskVector(task + 1), mask = room.place(in: writer.nextOutput + task)
                mark(own, of: vector, task: task, into: mask, in: grain)
                let masked = grain.scratch(1), kernels = grain.kernels, count = grain.count
                masked.update(from: decoded, count: count)
                kernels.apply(mask, first: 0, to: masked, count: count)
                let numbers: [Double] = [
                    kernels.squaredError(own, masked, count: count), kernels.dot(own, own, count: count),
                    kernels.dot(own, masked, count: count), kernels.dot(masked, masked, count: count),
                    kernels.sumOfMagnitudes(own, count: count), kernels.sumOfMagnitudes(masked, count: count),
                ]
                guard numbers[Number.energy.rawValue].isFinite else { throw NotFinite.error }
                for (index, number) in numbers.enumerated() { sums[task * width + index] = number }
            }
        }
        try writer.writeKnown(of: tensor)
        return (0..<taskCount).map { Array(sums[$0 * width..<($0 + 1) * width]) }
    }

    /// In the grain's first room. Overwrites the second.
    private func sharedVector(in grain: Grain) throws -> UnsafeMutablePointer<Float> {
        let sum = grain.scratch(0), kernels = grain.kernels
        sum.update(repeating: 0, count: grain.count)
        for task in 0..<taskCount { kernels.add(try grain.taskVector(task + 1), to: sum, count: grain.count) }
        guard case .emr = rule else { return sum }
        let unified = grain.scratch(1)
        unified.update(repeating: 0, count: grain.count)
        for task in 0..<taskCount {
            let own = try grain.taskVector(task + 1)
            for index in 0..<grain.count {
                let isPlus = sum[index] > 0
                if isPlus ? own[index] > unified[index] : own[index] < unified[index] { unified[index] = own[index] }
            }
        }
        sum.update(from: unified, count: grain.count)
        return sum
    }

    /// Sets the bits of what the task keeps. Overwrites the grain's second room.
    private func mark(
        _ own: UnsafePointer<Float>, of shared: UnsafePointer<Float>, task: Int, into mask: UnsafeMutableRawPointer,
        in grain: Grain
    ) {
        switch rule {
        case .tall(let lambdas):
            let others = grain.scratch(1)
            grain.kernels.subtract(shared, own, into: others, count: grain.count)
            grain.kernels.bits(of: own, above: Float(lambdas[task]), times: others, into: mask, count: grain.count)
        case .emr: grain.kernels.bits(of: own, agreeingWith: shared, into: mask, count: grain.count)
        }
    }
}

private final class MaskRoom {
    let decoded = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.blockElements)
    deinit { decoded.deallocate() }
}
