import Core
package import FoundationEssentials
package import Operators

/// What an encoding reports about one tensor. Lists have one entry per task, in order.
package enum EncodingStatistics: Sendable, Hashable, Codable {
    /// Each task's vector was stored.
    case vectors(base: BaseIdentity, [VectorError])
    /// A shared vector and masks were stored.
    case masks(base: BaseIdentity, [MaskSums])
    /// Whether the tensor, which has a type without arithmetic, differs from the base's.
    case comparison(base: BaseIdentity, [Bool])
    case grids([GridErrors])
    case magnitudes([MagnitudeCounts])
    /// The number of entries that were selected and are not zero.
    case kept([Int])

    /// Identifies the base's tensor; `nil` for measurements.
    package var base: BaseIdentity? {
        switch self {
        case .vectors(let base, _), .masks(let base, _), .comparison(let base, _): base
        case .grids, .magnitudes, .kept: nil
        }
    }

    /// Every number that a worker names in the statistics, to be bounded.
    package var numbers: [Double] {
        switch self {
        case .vectors(_, let tasks): tasks.flatMap { [$0.error, $0.energy, $0.product ?? 0] }
        case .masks(_, let tasks):
            tasks.flatMap { [$0.error, $0.energy, $0.product, $0.masked, $0.magnitudes, $0.maskedMagnitudes] }
        case .comparison: []
        case .grids(let tasks): tasks.flatMap { [$0.energy, $0.base ?? 0, $0.changed ?? 0] + $0.errors.joined() }
        case .magnitudes(let tasks): tasks.flatMap(\.entries).map { Double($0.count) }
        case .kept(let counts): counts.map(Double.init)
        }
    }

    /// Whether they can be what `encoding` reports of a tensor with that shape and so many sources: of its kind, with an entry
    /// for each task, and with numbers in their ranges.
    package func canBe(of encoding: Encoding, shape: [Int], sources: Int) -> Bool {
        let elements = Shape.count(shape)
        func areSums(_ numbers: Double...) -> Bool { numbers.allSatisfy { $0.isFinite && $0 >= 0 } }
        switch (encoding, self) {
        case (.quantize(let quantizer), .vectors(_, let tasks)):
            return tasks.count == quantizer.tasks.count
                && zip(tasks, quantizer.tasks).allSatisfy { task, format in
                    areSums(task.error, task.energy) && (task.product ?? 0).isFinite
                        && task.packed?.count == quantizer.packedByteCount(of: format, shape: shape)
                }
        case (.sparsify(let encoder), .vectors(_, let tasks)):
            return tasks.count == encoder.kept.count && tasks.allSatisfy { areSums($0.error, $0.energy) }
        case (.mask(let masks), .masks(_, let tasks)):
            return tasks.count == masks.taskCount
                && tasks.allSatisfy {
                    areSums($0.error, $0.energy, $0.masked, $0.magnitudes, $0.maskedMagnitudes) && $0.product.isFinite
                }
        case (.compare, .comparison(_, let tasks)): return tasks.count == sources - 1
        case (.measureGrids(let measurement), .grids(let tasks)):
            let lengths = measurement.shared.map { _ in measurement.formats.count }
            return tasks.count == sources - (measurement.sharedIsFrozen ? 2 : 1)
                && tasks.allSatisfy { task in
                    areSums(task.energy, task.base ?? 0, task.changed ?? 0) && task.errors.map(\.count) == lengths
                        && task.errors.allSatisfy { $0.allSatisfy { areSums($0) } }
                }
        case (.measureMagnitudes(let measurement), .magnitudes(let tasks)):
            return tasks.count == measurement.bins.count
                && zip(tasks, measurement.bins).allSatisfy { counts, bin in
                    let isMeasured = !measurement.isSecondRound || bin != nil
                    return counts.fit(isMeasured ? elements : 0)
                }
        case (.countKept(let encoder), .kept(let counts)):
            return counts.count == encoder.kept.count && counts.allSatisfy { (0...elements).contains($0) }
        default: return false
        }
    }

    package var taskCount: Int {
        switch self {
        case .vectors(_, let tasks): tasks.count
        case .masks(_, let tasks): tasks.count
        case .comparison(_, let tasks): tasks.count
        case .grids(let tasks): tasks.count
        case .magnitudes(let tasks): tasks.count
        case .kept(let tasks): tasks.count
        }
    }
}

/// The error of a stored vector `τ̂` against the task vector `τ`.
package struct VectorError: Sendable, Hashable, Codable {
    /// `Σ(τ − τ̂)²`
    package let error: Double
    /// `Στ²`
    package let energy: Double
    /// `Σττ̂`, of a vector that a budget on everything stored asked for; else `nil`.
    package let product: Double?
    /// The bytes of a small vector that is packed with others; `nil` for one that was written to outputs of its own.
    package let packed: Data?

    package init(error: Double, energy: Double, product: Double? = nil, packed: Data? = nil) {
        self.error = error
        self.energy = energy
        self.product = product
        self.packed = packed
    }
}

/// Sums over a task vector `τ` and the masked shared vector `u` as stored.
package struct MaskSums: Sendable, Hashable, Codable {
    /// `Σ(τ − u)²`
    package let error: Double
    /// `Στ²`
    package let energy: Double
    /// `Στu`
    package let product: Double
    /// `Σu²`
    package let masked: Double
    /// `Σ|τ|`
    package let magnitudes: Double
    /// `Σ|u|`
    package let maskedMagnitudes: Double

    static let count = 6

    /// - Parameter sums: `count` of them, in the order of the properties.
    init(_ sums: ArraySlice<Double>) {
        let first = sums.startIndex
        error = sums[first]
        energy = sums[first + 1]
        product = sums[first + 2]
        masked = sums[first + 3]
        magnitudes = sums[first + 4]
        maskedMagnitudes = sums[first + 5]
    }
}

/// The errors that a task vector `τ` would have in several formats. Estimates for a large tensor.
package struct GridErrors: Sendable, Hashable, Codable {
    /// `Στ²`
    package let energy: Double
    /// `Σθ₀²` of the base where the vector is not zero (`GridMeasurement.runLength`); `nil` for signs.
    package let base: Double?
    /// The number of these elements; `nil` for signs.
    package let changed: Double?
    /// `Σ(τ − τ̂)²`, indexed by shared format, then by format.
    package let errors: [[Double]]

    package init(energy: Double, base: Double? = nil, changed: Double? = nil, errors: [[Double]]) {
        self.energy = energy
        self.base = base
        self.changed = changed
        self.errors = errors
    }
}
