/// The smallest and the largest of a set of numbers.
package struct ValueRange: Sendable, Hashable {
    package let lowest: Float
    package let highest: Float

    package init(lowest: Float, highest: Float) {
        self.lowest = lowest
        self.highest = highest
    }

    /// The range of no numbers.
    package static let none = ValueRange(lowest: .infinity, highest: -.infinity)

    package func union(_ other: ValueRange) -> ValueRange {
        ValueRange(lowest: min(lowest, other.lowest), highest: max(highest, other.highest))
    }

    package mutating func formUnion(_ other: ValueRange) { self = union(other) }
}

/// The scale and zero point of a grid: `x = (code − zero) · scale`.
package struct GridPoint: Sendable, Hashable {
    package let scale: Float
    package let zero: Double
    /// The factor of numbers before they are rounded. Not always `1 / scale`, because both are rounded.
    let multiplier: Float
    /// Added to the product. 0 if all codes are 0.
    let offset: Double

    /// The paper's grid over a range: `s = largest / (max − min)`, `z = −round(s · min)`, both float32. If all numbers are equal,
    /// they are one scale away from zero (arXiv 2503.06921; docs/task-vectors.md).
    package static func published(_ range: ValueRange, largestCode: Int) -> GridPoint {
        let span = range.highest - range.lowest, top = Float(largestCode)
        guard span > 0 else {
            let value = range.lowest.isFinite ? range.lowest : 0
            return GridPoint(
                scale: value == 0 ? 1 : value.magnitude, zero: value == 0 ? 0 : value < 0 ? 1 : -1, multiplier: 0, offset: 0)
        }
        let multiplier = min(top / span, Float.greatestFiniteMagnitude)
        var zero = -Double((multiplier * range.lowest).rounded(.toNearestOrEven))
        // Far from zero, float32 cannot represent the fraction of a scale.
        if !(zero.magnitude < 0x1p20) { zero = -(Double(multiplier) * Double(range.lowest)).rounded(.toNearestOrEven) }
        return GridPoint(scale: span / top, zero: zero, multiplier: multiplier, offset: zero)
    }

    /// A grid over a range and zero, with a bfloat16 scale.
    package static func spanning(_ range: ValueRange, largestCode: Int) -> GridPoint {
        let low = min(0, range.lowest), top = Float(largestCode)
        let span = max(0, range.highest) - low
        let above = ((span / top).bitPattern + 0xffff) & 0xffff_0000
        let scale = Float(bitPattern: min(above, 0x7f7f_0000))
        guard span.isFinite, scale > 0, (1 / scale).isFinite else {
            return GridPoint(scale: 0, zero: 0, multiplier: 0, offset: 0)
        }
        let zero = Double(min(top, (-low / scale).rounded(.toNearestOrEven)))
        return GridPoint(scale: scale, zero: zero, multiplier: 1 / scale, offset: zero)
    }
}
