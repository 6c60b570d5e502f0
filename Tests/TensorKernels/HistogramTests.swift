import TensorKernels
import TestSupport
import Testing

@Suite(.serialized) struct HistogramTests {
    /// The k-th largest magnitude of two rounds of counting is that of a sort, whatever the values.
    @Test(arguments: Kernels.available, ["spread", "narrow", "few values", "any bits"])
    func findsWhatSortingFinds(kernels: Kernels, kind: String) {
        var random = SplitMix(seed: 11)
        let values = (0..<5_000).map { _ -> Float in
            switch kind {
            case "spread": Float.random(in: -1...1, using: &random) * (Bool.random(using: &random) ? 1e-20 : 1e10)
            case "narrow": 1 + Float.random(in: 0...1e-4, using: &random)
            case "few values": [0, 0.5, -0.5, 1].randomElement(using: &random) ?? 0
            default: Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
            }
        }
        let sorted = values.map(\.magnitude.bitPattern).sorted(by: >)
        var coarse = MagnitudeHistogram.coarse(), half = MagnitudeHistogram.coarse()
        coarse.add(Array(values[..<1_234]), count: 1_234, kernels: kernels)
        half.add(Array(values[1_234...]), count: values.count - 1_234, kernels: kernels)
        coarse.add(half)
        for rank in [1, 2, 17, 2_500, 4_999, 5_000] {
            guard let high = coarse.place(ofLargest: rank) else {
                Issue.record("no place for rank \(rank)")
                continue
            }
            var fine = MagnitudeHistogram.fine(inBin: high.bin)
            fine.add(values, count: values.count, kernels: kernels)
            let low = fine.place(ofLargest: rank - high.above)
            let pattern = sorted[rank - 1]
            #expect(low.map { high.bin << 16 | $0.bin } == pattern)
            #expect(low?.inside == sorted.count { $0 == pattern })
            #expect(low.map { high.above + $0.above } == sorted.count { $0 > pattern })
        }
        #expect(coarse.place(ofLargest: 5_001) == nil)
    }
}
