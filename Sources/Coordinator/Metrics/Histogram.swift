/// How often a number was observed below each of some bounds, as Prometheus counts it.
struct Histogram: Sendable {
    /// Rising. What is above the last one is counted as well.
    let bounds: [Double]
    /// Observations up to each bound and above those before it, and those above all.
    private var counts: [Int]
    private(set) var sum = 0.0

    init(bounds: [Double]) {
        self.bounds = bounds
        counts = Array(repeating: 0, count: bounds.count + 1)
    }

    mutating func observe(_ value: Double) {
        counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
        sum += value
    }

    var count: Int { counts.reduce(0, +) }

    /// Observations up to each bound.
    var cumulative: [Int] {
        var total = 0
        return counts.dropLast().map { count in
            total += count
            return total
        }
    }
}
