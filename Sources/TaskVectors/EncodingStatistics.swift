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
        case .vectors(_, let tasks): tasks.flatMap { [$0.error, $0.energy] }
        case .masks(_, let tasks):
            tasks.flatMap { [$0.error, $0.energy, $0.product, $0.masked, $0.magnitudes, $0.maskedMagnitudes] }
        case .comparison: []
        case .grids(let tasks): tasks.flatMap { [$0.energy] + $0.errors.joined() }
        case .magnitudes(let tasks): tasks.flatMap(\.entries).map { Double($0.count) }
        case .kept(let counts): counts.map(Double.init)
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

    package init(error: Double, energy: Double) {
        self.error = error
        self.energy = energy
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
    /// `Σ(τ − τ̂)²`, indexed by shared format, then by format.
    package let errors: [[Double]]

    package init(energy: Double, errors: [[Double]]) {
        self.energy = energy
        self.errors = errors
    }
}
