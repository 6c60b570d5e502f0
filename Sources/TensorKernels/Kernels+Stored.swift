internal import CTensorKernels
package import Checkpoints

/// Elements as they are stored, or as float32 where a source is computed.
package struct StoredVector {
    fileprivate let vector: tk_vector

    /// - Parameter dtype: arithmetic (`DType.isArithmetic`).
    package init(_ data: UnsafeRawPointer, _ dtype: DType) {
        assert(dtype.isArithmetic)
        let type =
            switch dtype {
            case .bf16: TK_BF16
            case .f16: TK_F16
            case .f64: TK_F64
            default: TK_F32
            }
        vector = tk_vector(data: data, type: Int32(type))
    }

    fileprivate func advanced(by elements: Int) -> tk_vector {
        let width =
            switch Int(vector.type) {
            case TK_BF16, TK_F16: 2
            case TK_F64: 8
            default: 4
            }
        return tk_vector(data: vector.data + elements * width, type: vector.type)
    }
}

/// The magnitudes of a task vector that stay, as a range of bit patterns; none when it is empty.
package struct MagnitudeBand: Sendable, Hashable {
    package let from: UInt32
    package let to: UInt32

    package static let all = MagnitudeBand(from: 0, to: 0x7fff_ffff)
    /// Nothing is above every magnitude.
    package static let none = MagnitudeBand(from: 0xffff_ffff, to: 0xffff_ffff)

    package init(from: UInt32, to: UInt32) {
        self.from = from
        self.to = to
    }
}

extension Kernels {
    /// `target = x − y` of stored elements; `x` may lie in `target`.
    package func difference(_ x: StoredVector, _ y: StoredVector, into target: UnsafeMutablePointer<Float>, count: Int) {
        withUnsafePointer(to: x.vector) { x in
            withUnsafePointer(to: y.vector) { y in table.pointee.difference(x, y, target, count) }
        }
    }

    /// The last pass of the methods on trimmed task vectors, in one walk (`TaskVectors` states the maths).
    package struct TrimmedMerge {
        /// More models than this are merged step by step.
        package static let modelLimit = Int(TK_TRIMMED_MODELS)

        private let models: [StoredVector]
        private let base: StoredVector
        private let weights: [Float]
        private let factors: [Float]
        private let combination: tk_combination

        /// - Parameters:
        ///   - isConsensus: by elected sign, else by sum.
        ///   - normalize: of a consensus: divide by the sum of the agreeing weights.
        ///   - divisor: of a sum.
        package init(
            _ models: [StoredVector], base: StoredVector, weights: [Float], factors: [Float], isConsensus: Bool, normalize: Bool,
            divisor: Float, lambda: Float
        ) {
            self.models = models
            self.base = base
            self.weights = weights
            self.factors = factors
            combination = tk_combination(consensus: isConsensus, normalize: normalize, divisor: divisor, lambda: lambda)
        }

        /// Merges the elements of `range`, counted from the vectors' beginning, into `target`, counted likewise.
        package func apply(
            _ range: Range<Int>, bands: [MagnitudeBand], into target: UnsafeMutablePointer<Float>, kernels: Kernels
        ) {
            let parts = models.indices.map { index in
                tk_trimmed(
                    x: models[index].advanced(by: range.lowerBound), from: bands[index].from, to: bands[index].to,
                    factor: factors[index], weight: weights[index])
            }
            withUnsafePointer(to: base.advanced(by: range.lowerBound)) { base in
                withUnsafePointer(to: combination) { how in
                    kernels.table.pointee.merge_trimmed(parts, parts.count, base, how, target + range.lowerBound, range.count)
                }
            }
        }
    }
}
