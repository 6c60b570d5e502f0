import Synchronization

/// What a merge method reports about a tensor besides its values: numbers by name, such as the cosines between task vectors.
package struct MergeStatistics: Sendable, Hashable, Codable {
    package var numbers: [String: [Double]]

    package init(_ numbers: [String: [Double]]) { self.numbers = numbers }
}

/// The numbers that a method has reported so far.
final class ReportedStatistics: Sendable {
    private let numbers = Mutex<[String: [Double]]>([:])

    func report(_ name: String, _ numbers: [Double]) { self.numbers.withLock { $0[name] = numbers } }

    var statistics: MergeStatistics? { numbers.withLock { $0.isEmpty ? nil : MergeStatistics($0) } }
}

extension TensorPasses {
    /// Reports numbers about the tensor, for later stages and for the job's report. They replace earlier numbers of the same
    /// name.
    package func report(_ name: String, _ numbers: [Double]) { reported.report(name, numbers) }

    /// What the method has reported; `nil` for nothing.
    package var statistics: MergeStatistics? { reported.statistics }
}
