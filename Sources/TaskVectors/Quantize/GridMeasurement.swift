import Operators
import TensorKernels

/// How well each of several forms would hold the task vectors of a tensor: what a bit budget is shared out by.
package struct GridMeasurement: Sendable, Hashable, Codable {
    /// For RTVQ the forms that a shared vector may take; `zero` for none.
    package let shared: [VectorForm]
    /// Whether offsets are taken from a vector that is there already: then the last source is the base with that vector added.
    package let sharedIsFrozen: Bool
    /// Forms without ranges to be known: runs, and numbers as they are.
    package let forms: [VectorForm]

    package init(shared: [VectorForm], sharedIsFrozen: Bool = false, forms: [VectorForm]) {
        self.shared = shared
        self.sharedIsFrozen = sharedIsFrozen
        self.forms = forms
    }

    /// Of a large tensor, so many of its grains are measured, spread evenly.
    private static let grainLimit = 256

    /// - Returns: for each task `Στ²`, and then, for each shared form and under it for each form, `Σ(τ − τ̂)²`; of a large tensor an estimate.
    func measure(_ tensor: TensorPasses) throws -> [[Double]] {
        let tasks = tensor.taskCount - (sharedIsFrozen ? 1 : 0), width = 1 + shared.count * forms.count
        let sharedCoders = shared.map { FormCoder($0, ranges: []) }, coders = forms.map { FormCoder($0, ranges: []) }
        let stride = (tensor.grainCount + Self.grainLimit - 1) / Self.grainLimit
        let sums = try tensor.sums(tasks * width + 1) { grain, sums in
            guard stride <= 1 || grain.range.lowerBound / FixedTree.blockElements % stride == stride / 2 else { return }
            sums[tasks * width] = Double(grain.count)
            let kernels = grain.kernels, count = grain.count
            for (index, coder) in sharedCoders.enumerated() {
                let mean = grain.scratch(0), reference = grain.scratch(1)
                if sharedIsFrozen {
                    reference.update(from: try grain.taskVector(tasks + 1), count: count)
                } else if case .zero = coder.form {
                    reference.update(repeating: 0, count: count)
                } else {
                    mean.update(repeating: 0, count: count)
                    for task in 0..<tasks { kernels.add(try grain.taskVector(task + 1), to: mean, count: count) }
                    kernels.scale(mean, by: 1 / Float(tasks), into: mean, count: count)
                    coder.code(mean, of: grain, decoded: reference)
                }
                let offset = grain.workspace { OffsetRoom() }.offset
                for task in 0..<tasks {
                    let vector = try grain.taskVector(task + 1)
                    if index == 0 {
                        sums[task * width] = kernels.dot(vector, vector, count: count)
                        guard sums[task * width].isFinite else { throw NotFinite.error }
                    }
                    kernels.subtract(vector, reference, into: offset, count: count)
                    for (form, coder) in coders.enumerated() {
                        coder.code(offset, of: grain, decoded: mean)
                        sums[task * width + 1 + index * forms.count + form] = kernels.squaredError(offset, mean, count: count)
                    }
                }
            }
        }
        let scale = Double(tensor.count) / max(1, sums[tasks * width])
        return (0..<tasks).map { sums[$0 * width..<($0 + 1) * width].map { $0 * scale } }
    }
}

/// Room for an offset from the shared vector.
private final class OffsetRoom {
    let offset = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.blockElements)
    deinit { offset.deallocate() }
}
