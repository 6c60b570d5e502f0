package import Core
package import Operators
package import TensorKernels

/// A tensor of a fine-tune, rebuilt as it is read: `b + f·v`. `v` is the task's own vector, the sum of this and the store's
/// shared vector, or the shared vector masked by the task's bitmap (docs/task-vectors.md).
package struct RebuiltTensor: DifferenceSource {
    package var dtype: DType { base.dtype }
    package var count: Int { base.count }

    private let base: any ElementSource
    private let vectors: [PackedVector]
    private let factor: Float
    /// Whether the method takes differences from the same base.
    package let isOnMethodsBase: Bool

    /// - Parameters:
    ///   - vectors: are added up; a mask after the first vector masks it instead. May be empty.
    ///   - factor: the task's rescaler in EMR (arXiv 2405.17461), else 1.
    package init(_ base: any ElementSource, vectors: [PackedVector], factor: Double, isOnMethodsBase: Bool = false) {
        self.base = base
        self.isOnMethodsBase = isOnMethodsBase
        self.vectors = vectors
        self.factor = Float(factor)
    }

    package func load(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        try loadDifference(range, into: target, scratch: scratch, kernels: kernels)
        try withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, range.count)) { buffer in
            guard let own = buffer.baseAddress else { return }
            try base.load(range, into: own, scratch: scratch, kernels: kernels)
            kernels.add(own, to: target, count: range.count)
        }
    }

    package func prefetch(_ range: Range<Int>) {
        base.prefetch(range)
        for vector in vectors { vector.prefetch(range) }
    }

    package func release(_ range: Range<Int>) {
        base.release(range)
        for vector in vectors { vector.release(range) }
    }

    /// `f·v`, which is added to the base.
    package func loadDifference(
        _ range: Range<Int>, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutableRawBufferPointer, kernels: Kernels
    ) throws {
        guard let first = vectors.first else { return target.update(repeating: 0, count: range.count) }
        try first.load(range, into: target, scratch: scratch, kernels: kernels)
        for vector in vectors.dropFirst() {
            if vector.isMask {
                try vector.applyMask(range, to: target, scratch: scratch, kernels: kernels)
            } else {
                try withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, range.count)) { buffer in
                    guard let other = buffer.baseAddress else { return }
                    try vector.load(range, into: other, scratch: scratch, kernels: kernels)
                    kernels.add(other, to: target, count: range.count)
                }
            }
        }
        if factor != 1 { kernels.scale(target, by: factor, into: target, count: range.count) }
    }

    /// The elements, rounded to the base's type.
    package func copyBytes(_ byteRange: Range<Int>, to target: UnsafeMutableRawPointer) throws {
        try copyRounded(byteRange, to: target)
    }
}
