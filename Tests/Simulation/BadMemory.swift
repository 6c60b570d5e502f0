import Core
import Operators
import TaskVectors
import Work

extension ReferenceWork.Outcome {
    /// What a host with bad memory makes of the shard: a bit of each block is another, and each statistic a number away. Digests
    /// are those of what came out, and everything is in its bounds.
    func spoiled(_ work: ShardWork) throws -> ReferenceWork.Outcome {
        var digests = result.digests
        let blocks = try self.blocks.map { block in
            var bytes = block.bytes
            bytes[bytes.count / 2] ^= 4
            digests[block.tensor][block.offset / work.outputs[block.tensor].blockSize] = try Digest.sha256(of: bytes)
            return ReferenceWork.Block(tensor: block.tensor, offset: block.offset, bytes: bytes)
        }
        let statistics = result.statistics.map { $0.map(\.spoiled) }
        return ReferenceWork.Outcome(result: ShardResult(digests: digests, statistics: statistics), blocks: blocks)
    }
}

extension TensorStatistics {
    fileprivate var spoiled: TensorStatistics {
        switch self {
        case .merge(let merge):
            .merge(
                MergeStatistics(
                    merge.numbers.mapValues { $0.map { $0 + 1 } },
                    counts: merge.counts.mapValues { $0.map { MagnitudeCounts($0.entries.map(\.spoiled)) } }))
        case .encoding(.kept(let counts)): .encoding(.kept(counts.map { max(0, $0 - 1) }))
        case .encoding(.vectors(let base, let tasks)):
            .encoding(
                .vectors(base: base, tasks.map { VectorError(error: $0.error + 1, energy: $0.energy, packed: $0.packed) }))
        case .encoding: self
        }
    }
}

extension MagnitudeCount {
    fileprivate var spoiled: MagnitudeCount { MagnitudeCount(bin: bin, count: max(0, count - 1)) }
}
