import Operators
import TensorKernels

/// Counts a tensor's magnitudes, in two rounds from which a threshold for the whole model follows (`MagnitudeHistogram`).
package struct MagnitudeMeasurement: Sendable, Hashable, Codable {
    /// In the second round, for each task the bin whose elements are counted by their low bits; `nil` for a task that keeps
    /// everything or nothing.
    package let bins: [UInt32?]
    package let isSecondRound: Bool

    package static func first(tasks: Int) -> MagnitudeMeasurement {
        MagnitudeMeasurement(bins: Array(repeating: nil, count: tasks), isSecondRound: false)
    }

    package static func second(bins: [UInt32?]) -> MagnitudeMeasurement {
        MagnitudeMeasurement(bins: bins, isSecondRound: true)
    }

    /// - Returns: for each task, the bins that are not empty.
    func measure(_ tensor: TensorPasses) throws -> [MagnitudeCounts] {
        let empty = bins.map { $0.map(MagnitudeHistogram.fine) ?? .coarse() }
        let histograms = try tensor.fold(empty, partBytes: bins.count * MagnitudeHistogram.byteCount, isLast: true) {
            histograms, tile in
            for task in bins.indices where !isSecondRound || bins[task] != nil {
                histograms[task].add(try tile.taskVector(task + 1), count: tile.count, kernels: tile.kernels)
            }
        } combine: { total, part in
            for index in total.indices { total[index].add(part[index]) }
        }
        return histograms.map { MagnitudeCounts($0.occupied.map { MagnitudeCount(bin: $0.bin, count: $0.count) }) }
    }
}
