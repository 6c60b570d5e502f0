import CTensorKernels
package import Core

/// Elements of a source in memory, as they are stored, or as float32 if the source is computed.
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
            case .f8E4M3: TK_E4M3
            case .f8E5M2: TK_E5M2
            default: TK_F32
            }
        vector = tk_vector(data: data, type: Int32(type))
    }

    private init(_ vector: tk_vector) { self.vector = vector }

    /// The same vector without the first elements.
    package func advanced(by elements: Int) -> StoredVector {
        let width =
            switch Int(vector.type) {
            case TK_E4M3, TK_E5M2: 1
            case TK_BF16, TK_F16: 2
            case TK_F64: 8
            default: 4
            }
        return StoredVector(tk_vector(data: vector.data + elements * width, type: vector.type))
    }
}

/// The magnitudes that are kept of a task vector, as a range of bit patterns, which may be empty.
package struct MagnitudeBand: Sendable, Hashable {
    package let from: UInt32
    package let to: UInt32

    package static let all = MagnitudeBand(from: 0, to: 0x7fff_ffff)
    /// Every magnitude.
    package static let none = MagnitudeBand(from: 0xffff_ffff, to: 0xffff_ffff)

    package init(from: UInt32, to: UInt32) {
        self.from = from
        self.to = to
    }

    package func contains(_ value: Float) -> Bool {
        let magnitude = value.magnitude.bitPattern
        return from <= magnitude && magnitude <= to
    }
}

extension Kernels {
    /// `target = x − y` of stored elements; `x` may lie in `target`.
    package func difference(_ x: StoredVector, _ y: StoredVector, into target: UnsafeMutablePointer<Float>, count: Int) {
        withVectors(x, y) { table.pointee.difference($0, $1, target, count) }
    }

    /// `target = Σ weightᵢ · xᵢ / divisor` of stored elements: in order, each step rounded to float32.
    package func weightedSum(
        _ x: [StoredVector], weights: [Float], divisor: Float = 1, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        assert(x.count == weights.count)
        table.pointee.weighted_sum(x.map(\.vector), weights, x.count, divisor, target, count)
    }

    // MARK: arcee_fusion

    /// The largest element, and `Σ exp(x − largest)` in float64.
    package func softmaxParts(_ x: StoredVector, count: Int) -> (maximum: Double, sum: Double) {
        var maximum = 0.0, sum = 0.0
        withUnsafePointer(to: x.vector) { table.pointee.softmax_parts($0, count, &maximum, &sum) }
        return (maximum, sum)
    }

    /// `Σ p log(p/q)` in float64, `p` and `q` being the softmax of `x` and `y` plus 1e-8.
    ///
    /// - Parameter softmax: four numbers: the maximum of `x` and the inverse of its sum of exponentials, then the same of `y`.
    package func divergence(_ x: StoredVector, _ y: StoredVector, softmax: UnsafePointer<Double>, count: Int) -> Double {
        withVectors(x, y) { table.pointee.divergence($0, $1, softmax, count) }
    }

    /// The divergence with the softmax of these elements themselves, the same to the last bit.
    ///
    /// - Parameter exponentials: room for `2 · count` numbers, `count` being rounded up to a multiple of eight.
    package func rowDivergence(
        _ x: StoredVector, _ y: StoredVector, exponentials: UnsafeMutablePointer<Double>, count: Int
    ) -> Double {
        withVectors(x, y) { table.pointee.row_divergence($0, $1, exponentials, count) }
    }

    /// `target = |x − y| · factor`.
    package func importance(
        _ x: StoredVector, _ y: StoredVector, factor: Float, into target: UnsafeMutablePointer<Float>, count: Int
    ) {
        withVectors(x, y) { table.pointee.importance(factor, $0, $1, target, count) }
    }

    /// `y + (x − y)` where the importance `|x − y| · factor` reaches the threshold, else `y`.
    package func swapImportant(
        _ x: StoredVector, for y: StoredVector, factor: Float, threshold: Float, into target: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        withVectors(x, y) { table.pointee.swap_important(factor, threshold, $0, $1, target, count) }
    }

    private func withVectors<Result>(
        _ x: StoredVector, _ y: StoredVector, _ body: (UnsafePointer<tk_vector>, UnsafePointer<tk_vector>) -> Result
    ) -> Result {
        withUnsafePointer(to: x.vector) { x in withUnsafePointer(to: y.vector) { y in body(x, y) } }
    }

    // MARK: Task vectors

    /// A task vector, `x − base` or `x` itself, of which a part is kept.
    package struct TaskVector {
        private let x: StoredVector
        private let base: StoredVector
        private let isDifference: Bool
        /// One per element, 0 for those that are not kept; `nil` if the band alone decides.
        private let flags: UnsafePointer<UInt8>?

        /// - Parameter isDifference: whether `x` is the task vector.
        package init(
            _ x: StoredVector, base: StoredVector, isDifference: Bool = false, flags: UnsafePointer<UInt8>? = nil
        ) {
            self.x = x
            self.base = base
            self.isDifference = isDifference
            self.flags = flags
        }

        fileprivate func part(from start: Int, _ band: MagnitudeBand, factor: Float = 1, weight: Float = 1) -> tk_trimmed {
            tk_trimmed(
                x: x.advanced(by: start).vector, is_difference: isDifference, from: band.from, to: band.to,
                keep: flags.map { $0 + start }, factor: factor,
                weight: weight)
        }

        /// Adds the magnitudes of the elements of `range`, and of the kept ones among them, to sums over the vector.
        package func addMagnitudes(_ range: Range<Int>, _ band: MagnitudeBand, to sums: inout MagnitudeSums, kernels: Kernels) {
            withUnsafePointer(to: part(from: range.lowerBound, band)) { part in
                withUnsafePointer(to: base.advanced(by: range.lowerBound).vector) { base in
                    kernels.table.pointee.add_magnitudes(
                        part, base, range.lowerBound % MagnitudeSums.laneCount, &sums.lanes, range.count)
                }
            }
        }
    }

    /// `Σ|d|` over a task vector, and over its kept elements, in float64.
    package struct MagnitudeSums: Sendable {
        fileprivate static let laneCount = 8
        fileprivate var lanes = Array(repeating: 0.0, count: 2 * laneCount)

        package init() {}

        package var all: Double { Kernels.sum(ofLanes: lanes, from: 0) }
        package var kept: Double { Kernels.sum(ofLanes: lanes, from: Self.laneCount) }
    }

    /// The last pass of the methods on task vectors, in one walk (`TaskVectors` states the maths).
    package struct TaskVectorMerge {
        private let weights: [Float]
        private let factors: [Float]
        private let combination: tk_combination

        /// - Parameters:
        ///   - isConsensus: by elected sign, else by sum.
        ///   - normalize: of a consensus: divide by the sum of the agreeing weights.
        ///   - divisor: of a sum.
        ///   - lambda: `nil` for what is merged alone, without the base.
        package init(
            weights: [Float], factors: [Float], isConsensus: Bool, normalize: Bool, divisor: Float, lambda: Float?
        ) {
            self.weights = weights
            self.factors = factors
            combination = tk_combination(
                consensus: isConsensus, normalize: normalize, divisor: divisor, lambda: lambda ?? 1, unscaled: lambda == nil)
        }

        /// Merges the elements of `range`, counted from the vectors' beginning, into `target`, counted likewise.
        package func apply(
            _ range: Range<Int>, of vectors: [TaskVector], base: StoredVector, bands: [MagnitudeBand],
            into target: UnsafeMutablePointer<Float>, kernels: Kernels
        ) {
            let parts = vectors.indices.map { index in
                vectors[index].part(from: range.lowerBound, bands[index], factor: factors[index], weight: weights[index])
            }
            withTiles(parts.count) { buffer in
                withUnsafePointer(to: base.advanced(by: range.lowerBound).vector) { base in
                    withUnsafePointer(to: combination) { how in
                        kernels.table.pointee.merge_trimmed(
                            parts, parts.count, base, how, buffer, target + range.lowerBound, range.count)
                    }
                }
            }
        }
    }

    /// Task vectors on one base, whose entries are chosen by their variance over the models (SCE).
    package struct VaryingEntries {
        private let parts: [tk_trimmed]
        private let base: StoredVector
        private let count: Int
        private let kernels: Kernels

        /// - Parameters:
        ///   - weights: of the models in `fuse`.
        ///   - range: the elements in question, counted from the vectors' beginning.
        package init(
            of vectors: [TaskVector], base: StoredVector, weights: [Float]? = nil, range: Range<Int>, kernels: Kernels
        ) {
            parts = vectors.enumerated().map { index, vector in
                vector.part(from: range.lowerBound, .all, weight: weights?[index] ?? 1)
            }
            self.base = base.advanced(by: range.lowerBound)
            count = range.count
            self.kernels = kernels
        }

        /// The population variance of each element over the models.
        package func variances(into target: UnsafeMutablePointer<Float>) {
            withArguments { base, buffer in
                kernels.table.pointee.variances(parts, parts.count, base, buffer, target, count)
            }
        }

        /// For each model, `Σ d²` in float64 over the entries whose variance has at least the bit pattern `from`.
        package func squares(from: UInt32) -> [Double] {
            var lanes = [Double](repeating: 0, count: MagnitudeSums.laneCount * parts.count)
            withArguments { base, buffer in
                kernels.table.pointee.varying_squares(parts, parts.count, base, from, buffer, &lanes, count)
            }
            return parts.indices.map { Kernels.sum(ofLanes: lanes, from: MagnitudeSums.laneCount * $0) }
        }

        /// `b` plus the weighted mean of those chosen entries that have the sign of the sum of all chosen entries. A sum of zero
        /// counts as positive, an entry of zero never agrees, and the divisor is at least `floor`.
        package func fuse(from: UInt32, floor: Float, into target: UnsafeMutablePointer<Float>) {
            withArguments { base, buffer in
                kernels.table.pointee.fuse_varying(parts, parts.count, base, from, floor, buffer, target, count)
            }
        }

        private func withArguments(_ body: (UnsafePointer<tk_vector>, UnsafeMutablePointer<Float>) -> Void) {
            withUnsafePointer(to: base.vector) { base in withTiles(parts.count) { body(base, $0) } }
        }
    }

    /// In the order of all sums over lanes.
    fileprivate static func sum(ofLanes lanes: [Double], from first: Int) -> Double {
        let even = (lanes[first] + lanes[first + 4]) + (lanes[first + 2] + lanes[first + 6])
        let odd = (lanes[first + 1] + lanes[first + 5]) + (lanes[first + 3] + lanes[first + 7])
        return even + odd
    }
}

/// Calls `body` with `TK_TILE` elements per model, aligned like the kernels' own tiles.
private func withTiles(_ models: Int, _ body: (UnsafeMutablePointer<Float>) -> Void) {
    let byteCount = max(1, models) * Int(TK_TILE) * MemoryLayout<Float>.stride
    withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 64) { buffer in
        if let start = buffer.bindMemory(to: Float.self).baseAddress { body(start) }
    }
}
