/// Exponential and logarithm of single float64 numbers, the same bits on every machine (see `Trigonometry`).
package enum Exponential {
    /// ln 2 as a sum of two numbers, the first of which has so few bits that its multiples are exact.
    private static let ln2 = (high: 0x1.62e42feep-1, low: 0x1.a39ef35793c76p-33)

    /// `1 − e⁻ˣ` for `x ≥ 0`, exact to some last bits for small `x` too.
    package static func saturation(_ x: Double) -> Double {
        guard x >= 0.25 else {
            return (1...14).reversed().reduce(1.0) { sum, step in 1 - x / Double(step + 1) * sum } * x
        }
        return x < 40 ? 1 - decay(x) : 1
    }

    /// `e⁻ˣ` for `x ≥ 0`.
    package static func decay(_ x: Double) -> Double {
        guard x < 745 else { return 0 }
        let halvings = (x / (ln2.high + ln2.low)).rounded()
        let rest = (x - halvings * ln2.high) - halvings * ln2.low
        // e⁻ˣ = 2⁻ⁿ · e⁻ʳ with |r| at most ln 2 / 2.
        let power = (1...16).reversed().reduce(1.0) { sum, step in 1 - rest / Double(step) * sum }
        return Double(sign: .plus, exponent: -Int(halvings), significand: power)
    }

    /// Exact to some last bits for small `x` too.
    package static func hyperbolicTangent(_ x: Double) -> Double {
        let size = x.magnitude, square = x * x
        if size < 0x1p-6 {
            return x * (1 - square * (1 / 3.0 - square * (2 / 15.0 - square * (17 / 315.0 - square * (62 / 2835.0)))))
        }
        let part = saturation(2 * size), value = part / (2 - part)
        return x < 0 ? -value : value
    }

    /// The natural logarithm of a positive, finite number.
    package static func logarithm(_ x: Double) -> Double {
        var exponent = Double(x.exponent), part = x.significand
        if part > 1.4142135623730951 {
            part /= 2
            exponent += 1
        }
        // ln m = 2 artanh((m − 1)/(m + 1))
        let ratio = (part - 1) / (part + 1), square = ratio * ratio
        let sum = stride(from: 23, through: 1, by: -2).reduce(0.0) { sum, power in 1 / Double(power) + square * sum }
        return exponent * ln2.high + (exponent * ln2.low + 2 * ratio * sum)
    }
}
