import Synchronization

/// What a merge method reports about a tensor besides its values: numbers by name, such as the cosines between task vectors, and
/// histograms of magnitudes by name and source.
package struct MergeStatistics: Sendable, Hashable, Codable {
    package var numbers: [String: [Double]]
    package var counts: [String: [MagnitudeCounts]]

    package init(_ numbers: [String: [Double]], counts: [String: [MagnitudeCounts]] = [:]) {
        self.numbers = numbers
        self.counts = counts
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        numbers = try container.decode([String: [Double]].self, forKey: .numbers)
        // A journal of the first version has none.
        counts = try container.decodeIfPresent([String: [MagnitudeCounts]].self, forKey: .counts) ?? [:]
    }

    /// Every number that a worker names in the statistics, to be bounded.
    package var all: [Double] {
        numbers.values.joined() + counts.values.joined().flatMap(\.entries).map { Double($0.count) }
    }
}

/// What a method has reported so far.
final class ReportedStatistics: Sendable {
    private let reported = Mutex(MergeStatistics([:]))

    func report(_ change: (inout MergeStatistics) -> Void) { reported.withLock { change(&$0) } }

    var statistics: MergeStatistics? {
        reported.withLock { $0.numbers.isEmpty && $0.counts.isEmpty ? nil : $0 }
    }
}

extension TensorPasses {
    /// Reports numbers about the tensor, for later stages and for the job's report. They replace earlier numbers of the same
    /// name.
    package func report(_ name: String, _ numbers: [Double]) { reported.report { $0.numbers[name] = numbers } }

    /// Reports histograms, by the statistic's name and source.
    func report(_ counts: [String: [MagnitudeCounts]]) { reported.report { $0.counts = counts } }

    /// What the method has reported; `nil` for nothing.
    package var statistics: MergeStatistics? { reported.statistics }
}
