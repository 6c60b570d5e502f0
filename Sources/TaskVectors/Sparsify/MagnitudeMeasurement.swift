import Operators
import TensorKernels

/// Counts of a tensor's magnitudes, from which a threshold for the whole model is found in two rounds (`MagnitudeHistogram`).
package struct MagnitudeMeasurement: Sendable, Hashable, Codable {
    /// For each task the high bits whose elements are counted by their low bits; `nil` in the first round, and for a task that
    /// keeps all or none.
    package let bins: [UInt32?]
    package let isSecondRound: Bool

    package static func first(tasks: Int) -> MagnitudeMeasurement {
        MagnitudeMeasurement(bins: Array(repeating: nil, count: tasks), isSecondRound: false)
    }

    package static func second(bins: [UInt32?]) -> MagnitudeMeasurement {
        MagnitudeMeasurement(bins: bins, isSecondRound: true)
    }

    /// - Returns: for each task the bins that have elements.
    func measure(_ tensor: TensorPasses) throws -> [[MagnitudeCount]] {
        let empty = bins.map { $0.map(MagnitudeHistogram.fine) ?? .coarse() }
        let histograms = try tensor.fold(empty, partBytes: bins.count * MagnitudeHistogram.byteCount, isLast: true) {
            histograms, tile in
            for task in bins.indices where !isSecondRound || bins[task] != nil {
                histograms[task].add(try tile.taskVector(task + 1), count: tile.count, kernels: tile.kernels)
            }
        } combine: { total, part in
            for index in total.indices { total[index].add(part[index]) }
        }
        return histograms.map { $0.occupied.map { MagnitudeCount(bin: $0.bin, count: $0.count) } }
    }
}
