/// Sine, cosine and arc cosine, the same bits on every machine.
///
/// The C library's own are as exact, but it chooses between versions with and without fused multiply-add by the processor, and
/// their last bits differ. These are made of additions, multiplications, divisions and square roots, each of which IEEE 754
/// fixes.
package enum Trigonometry {
    /// π/2 as a sum of two numbers, the first of which has so few bits that its multiples are exact.
    private static let halfPi = (high: 0x1.921fb54400000p0, low: 0x1.0b4611a626331p-34)

    package static func sine(_ x: Double) -> Double { value(x, quarterTurns: 0) }

    package static func cosine(_ x: Double) -> Double { value(x, quarterTurns: 1) }

    /// - Parameter cosine: −1...1.
    package static func arcCosine(_ cosine: Double) -> Double {
        // acos c = 2 asin √((1 − c)/2), and for negative c from the other end, where that is small.
        if cosine < 0 { return 2 * (halfPi.high + halfPi.low) - arcCosine(-cosine) }
        let half = ((1 - cosine) / 2).squareRoot()
        return 2 * arcTangent(half / ((1 + cosine) / 2).squareRoot())
    }

    /// `sin(x + n·π/2)`, for |x| up to some thousand turns.
    private static func value(_ x: Double, quarterTurns: Int) -> Double {
        let turns = (x / (halfPi.high + halfPi.low)).rounded()
        guard let whole = Int(exactly: turns) else { return .nan }
        let rest = (x - turns * halfPi.high) - turns * halfPi.low
        let quadrant = (whole % 4 + quarterTurns + 4) % 4
        let magnitude = quadrant % 2 == 0 ? series(rest, first: 1) * rest : series(rest, first: 0)
        return quadrant < 2 ? magnitude : -magnitude
    }

    /// `1 − x²/((f+1)(f+2)) + …`: the sine's series divided by `x` for `f = 1`, the cosine's for `f = 0`; |x| ≤ π/4.
    private static func series(_ x: Double, first: Int) -> Double {
        let square = x * x
        return stride(from: 16, through: 0, by: -2).reduce(1.0) { sum, step in
            let factor = Double((first + step + 1) * (first + step + 2))
            return 1 - square / factor * sum
        }
    }

    /// For 0...1.
    private static func arcTangent(_ x: Double) -> Double {
        // Halving the angle twice brings the argument below 0.2.
        var small = x
        for _ in 0..<2 { small = small / (1 + (1 + small * small).squareRoot()) }
        let square = small * small
        let sum = stride(from: 25, through: 1, by: -2).reduce(0.0) { sum, power in 1 / Double(power) - square * sum }
        return 4 * small * sum
    }
}
