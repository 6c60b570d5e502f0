import Checkpoints
import Core
import Planning
import Protocol
import TaskVectors
import Work

/// Where a shard stands among the plans of its job.
struct ShardPlace: Sendable, Hashable, Comparable {
    /// Counts the plans that the job keeps.
    let plan: Int
    /// The shard's position in the plan.
    let index: Int

    static func < (left: ShardPlace, right: ShardPlace) -> Bool { (left.plan, left.index) < (right.plan, right.index) }
}

/// A plan of a job, and what came out of its shards so far.
struct JobPlan: Sendable {
    let plan: Plan
    /// The shards of all stages in one row.
    let shards: [PlannedShard]
    /// The journal's number of the first shard.
    let first: Int
    /// What came out of each committed shard, and who has done it.
    var results: [Audit.Vote?]

    init(_ stages: PlannedStages, first: Int) {
        plan = stages.plan
        shards = stages.shards
        self.first = first
        results = Array(repeating: nil, count: shards.count)
    }

    /// The blocks of the output by part and position in the part, once every shard is committed.
    ///
    /// - Throws: `internal` when a result is missing.
    func blocksByPart() throws(TesseraError) -> [[TensorBlocks]] {
        var parts = plan.layout.parts.map { Array(repeating: TensorBlocks?.none, count: $0.tensors.count) }
        let positions = plan.layout.parts.map { part in
            // An empty tensor begins where the next one does, and has no blocks.
            Dictionary(
                uniqueKeysWithValues: part.tensors.enumerated().filter { $1.byteCount > 0 }.map { ($1.range.lowerBound, $0) })
        }
        for (shard, result) in zip(shards, try committedResults()) {
            for (output, digests) in zip(shard.outputs, result.digests) where output.byteCount > 0 {
                guard let position = positions[output.part][output.offset] else { continue }
                parts[output.part][position] = TensorBlocks(size: output.blockSize, digests: digests)
            }
        }
        return parts.map { $0.map { $0 ?? TensorBlocks(digests: []) } }
    }

    /// The statistics of each tensor, by the models' name for it, once every shard is committed.
    ///
    /// - Throws: `internal` when a result is missing.
    func statistics() throws(TesseraError) -> [ExactText: TensorStatistics] {
        try Self.statistics(of: shards, Array(zip(shards.indices, try committedResults())))
    }

    /// The statistics of each tensor of some shards, whose results are given with their positions.
    ///
    /// - Throws: `internal` when a result is missing.
    static func statistics(
        of shards: [PlannedShard], _ results: [(index: Int, result: ShardResult)]
    ) throws(TesseraError) -> [ExactText: TensorStatistics] {
        var statistics: [ExactText: TensorStatistics] = [:]
        guard results.map(\.index) == Array(shards.indices) else {
            throw TesseraError(.internal, "\(results.count) of \(shards.count) shards have a result")
        }
        for (shard, entry) in zip(shards, results) {
            try shard.check(entry.result)
            for (tensor, found) in zip(shard.tensors, entry.result.statistics) { statistics[ExactText(tensor.name)] = found }
        }
        return statistics
    }

    private func committedResults() throws(TesseraError) -> [ShardResult] {
        var found: [ShardResult] = []
        for (shard, result) in zip(shards, results) {
            guard let result else { throw TesseraError(.internal, "the shard \(shard.label) has no result") }
            found.append(result.result)
        }
        return found
    }
}

extension PlannedShard {
    /// Checks that digests and statistics can be those of the shard.
    ///
    /// - Throws: `protocolMismatch` for a result that does not fit the plan, `badData` for values that the method does not
    ///   accept.
    func check(_ result: ShardResult) throws(TesseraError) {
        guard result.digests.map(\.count) == outputs.map(\.blockCount) else {
            throw TesseraError(.protocolMismatch, "the result for \(label) has digests for other blocks than the plan's")
        }
        let count = result.statistics.count, expected = tensors.count
        guard count == 0 || count == expected else {
            throw TesseraError(
                .protocolMismatch, "the result for \(label) has statistics for \(count) tensors, not for \(expected)")
        }
        for (index, tensor) in tensors.enumerated() {
            try tensor.check(result.statistics.isEmpty ? nil : result.statistics[index])
        }
    }
}
