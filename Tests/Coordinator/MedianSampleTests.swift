import TestSupport
import Testing

@testable import Coordinator

@Suite struct MedianSampleTests {
    @Test func theMedianIsOfTheLatestValues() {
        var random = SplitMix(seed: 1)
        var sample = MedianSample(), values: [Double] = []
        #expect(sample.median == nil)
        for _ in 0..<500 {
            // Few different values, so that equal ones are taken out too.
            let value = Double(Int.random(in: 0..<40, using: &random))
            sample.add(value)
            values = Array((values + [value]).suffix(99))
            #expect(sample.median == values.sorted()[values.count / 2] && sample.count == values.count)
        }
    }
}
