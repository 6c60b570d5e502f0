/// The median of the latest values of a series.
struct MedianSample: Sendable {
    private static let limit = 99

    private var latest: [Double] = []
    private var sorted: [Double] = []
    private var next = 0

    var count: Int { latest.count }

    mutating func add(_ value: Double) {
        if latest.count < Self.limit {
            latest.append(value)
        } else {
            sorted.remove(at: position(of: latest[next]))
            latest[next] = value
            next = (next + 1) % Self.limit
        }
        sorted.insert(value, at: position(of: value))
    }

    /// The upper one of two; `nil` without values.
    var median: Double? { sorted.isEmpty ? nil : sorted[sorted.count / 2] }

    /// The lower one of two; `nil` without values.
    var lowerMedian: Double? { sorted.isEmpty ? nil : sorted[(sorted.count - 1) / 2] }

    /// Where the first value that is not less than `value` stands.
    private func position(of value: Double) -> Int {
        var low = 0, high = sorted.count
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
