import Foundation
import TensorKernels
import TestSupport
import Testing

/// Against the C library, which is right to less than one unit in the last place.
@Suite struct TrigonometryTests {
    private func isClose(_ found: Double, _ expected: Double) -> Bool { abs(found - expected) <= 8 * max(expected.ulp, 0x1p-54) }

    @Test func sinesAndCosines() {
        var random = SplitMix(seed: 5)
        let angles =
            [0, 1e-300, 1e-8, .pi / 4, .pi / 2, .pi, 2 * .pi]
            + (0..<20_000).map { _ in Double.random(in: -20...20, using: &random) }
        for angle in angles + angles.map({ -$0 }) {
            #expect(isClose(Trigonometry.sine(angle), sin(angle)), "sin \(angle)")
            #expect(isClose(Trigonometry.cosine(angle), cos(angle)), "cos \(angle)")
        }
        #expect(Trigonometry.sine(.infinity).isNaN && Trigonometry.cosine(.nan).isNaN && Trigonometry.sine(1e300).isNaN)
    }

    @Test func arcCosines() {
        var random = SplitMix(seed: 6)
        let near = (1...60).map { 1 - pow(2, -Double($0)) }
        let values = [0, 1, 0.5, 0.9995] + near + (0..<20_000).map { _ in Double.random(in: 0...1, using: &random) }
        for value in values + values.map({ -$0 }) {
            #expect(isClose(Trigonometry.arcCosine(value), acos(value)), "acos \(value)")
        }
        #expect(Trigonometry.arcCosine(1) == 0)
        #expect(Trigonometry.arcCosine(.nan).isNaN)
    }
}
