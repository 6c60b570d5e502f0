import Synchronization

/// What a merge method found out about a tensor besides its values: numbers by name, such as the cosines of the task vectors.
package struct MergeStatistics: Sendable, Hashable, Codable {
    package var numbers: [String: [Double]]

    package init(_ numbers: [String: [Double]]) { self.numbers = numbers }
}

/// What a method has reported so far.
final class ReportedStatistics: Sendable {
    private let numbers = Mutex<[String: [Double]]>([:])

    func report(_ name: String, _ numbers: [Double]) { self.numbers.withLock { $0[name] = numbers } }

    var statistics: MergeStatistics? { numbers.withLock { $0.isEmpty ? nil : MergeStatistics($0) } }
}

extension TensorPasses {
    /// Hands on what the method found out about the tensor, for later stages and reports. Numbers of a name replace earlier ones.
    package func report(_ name: String, _ numbers: [Double]) { reported.report(name, numbers) }

    /// What the method reported, if anything.
    package var statistics: MergeStatistics? { reported.statistics }
}
