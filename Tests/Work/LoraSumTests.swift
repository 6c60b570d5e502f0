import Core
import Operators
import TestSupport
import Testing
import Work

/// Adapters that are folded with weights, from their factors.
@Suite struct LoraSumTests {
    private static let shape = [2, 3]

    private func numbers(_ bytes: [UInt8]) -> [Double] { TestTensor(.f32, Self.shape, bytes: bytes).values }

    /// Updates that are small beside the base's numbers are added up before they are rounded among those.
    @Test func productsAreAddedBeforeTheyAreRounded() throws {
        var bench = SourceBench()
        let base = bench.add(TestTensor([Float](repeating: 1_024, count: 6), shape: Self.shape))
        let a = bench.add(TestTensor([1, 2, 3], shape: [1, 3])), b = bench.add(TestTensor([3e-5, -3e-5], shape: [2, 1]))
        let update = LowRankReference(a: a, b: b, rank: 1, scale: 2, isTransposed: false)
        let adapted = SourceReference.lowRank(.stored(base), update)
        let sources = [.stored(base)] + Array(repeating: adapted, count: 8)
        let found = numbers(try bench.merge(sources, shape: Self.shape, by: "lora_sum", base: 0).output)
        // Eight adapters of scale 2, each with weight 0.5.
        let expected = (0..<6).map { index in
            let product = Float(index % 3 + 1) * (index < 3 ? 3e-5 : -3e-5)
            return Double(Float(1_024 + 8 * Double(product)))
        }
        #expect(found == expected && found != [Double](repeating: 1_024, count: 6))
    }

    /// What is more than one product, and a model that is none of the base with an adapter, counts by its difference.
    @Test func otherSourcesCountByTheirDifference() throws {
        var bench = SourceBench()
        let base = bench.add(TestTensor([1, 2, 3, 4, 5, 6], shape: Self.shape))
        let tuned = bench.add(TestTensor([2, 2, 3, 4, 5, 8], shape: Self.shape))
        let a = bench.add(TestTensor([1, 0, 0], shape: [1, 3])), b = bench.add(TestTensor([1, 1], shape: [2, 1]))
        let update = LowRankReference(a: a, b: b, rank: 1, scale: 1, isTransposed: false)
        let twice = SourceReference.lowRank(.lowRank(.stored(base), update), update)
        let found = try bench.merge([.stored(base), .stored(tuned), twice], shape: Self.shape, by: "lora_sum", base: 0).output
        #expect(numbers(found) == [2.5, 2, 3, 5, 5, 7])
    }
}
