import Core
import Operators
import Recipes
import TaskVectors
import Work

/// Cuts a job layer-wise into shards.
///
/// Shards are in the order of people, `layers.2` before `layers.10`. A shard is whole tensors of one layer, up to `targetBytes`
/// of output; a tensor above that is a shard alone. What belongs to no layer (embeddings, heads, final norms) makes shards of its
/// own.
struct ShardCutter {
    /// Large enough that a lease costs nothing beside it, small enough that losing one loses little.
    static let defaultTargetBytes = 64 << 20

    /// Sources and outputs of one shard at most, so that a lease stays a small message.
    private static let partLimit = 8192

    /// Bytes of histograms and of packed vectors that workers report for one shard at most, so that a result stays a small
    /// message.
    private static let statisticsLimit = 3 << 20

    let targetBytes: Int

    func cut(_ tensors: [TensorWork]) -> [PlannedShard] {
        // Of a tensor's work that is compared, nothing but the name is copied.
        let names = tensors.map(\.name)
        var groups: [(layer: TensorName.Layer?, tensors: [Int])] = []
        var positions: [TensorName.Layer?: Int] = [:]
        for index in tensors.indices {
            let layer = TensorName(names[index]).layer
            if let position = positions[layer] {
                groups[position].tensors.append(index)
            } else {
                positions[layer] = groups.count
                groups.append((layer, [index]))
            }
        }
        // The names of one layer are few, and begin alike: sorting layer by layer compares less.
        for group in groups.indices { groups[group].tensors.sort { names[$0].precedesNaturally(names[$1]) } }
        groups.sort { names[$0.tensors[0]].precedesNaturally(names[$1.tensors[0]]) }
        return groups.flatMap { group in cut(group.tensors.map { tensors[$0] }, layer: group.layer) }
    }

    private func cut(_ tensors: [TensorWork], layer: TensorName.Layer?) -> [PlannedShard] {
        var runs: [[TensorWork]] = []
        var bytes = 0, parts = 0, statistics = 0
        for tensor in tensors {
            bytes += tensor.measure
            parts += tensor.partCount
            statistics += tensor.statisticsBytes
            if !runs.isEmpty, bytes <= targetBytes, parts <= Self.partLimit, statistics <= Self.statisticsLimit {
                runs[runs.count - 1].append(tensor)
            } else {
                runs.append([tensor])
                bytes = tensor.measure
                parts = tensor.partCount
                statistics = tensor.statisticsBytes
            }
        }
        return runs.enumerated().map { index, run in
            let name = layer.map { "\($0.prefix).\($0.index)" } ?? (run.count == 1 ? run[0].name : "outside layers")
            return PlannedShard(label: runs.count == 1 ? name : "\(name) (\(index + 1)/\(runs.count))", tensors: run)
        }
    }
}

extension TensorWork {
    /// What a lease lists of the tensor.
    fileprivate var partCount: Int { sources.count + given.count + outputs.count }

    /// Bytes of the output, or of one source where that is more, as it is where task vectors are packed.
    fileprivate var measure: Int {
        switch operation {
        case .merge, .factor: byteCount
        case .encode, .measure: max(byteCount, sourceByteCount / max(1, sources.count))
        }
    }

    /// Bytes of the histograms that a look at the tensor reports, or of the vectors that are packed, in base64.
    fileprivate var statisticsBytes: Int {
        let histograms: Int
        let bins: Int
        switch operation {
        case .measure(_, let stage): (histograms, bins) = (stage.histogramCount, 1 << stage.width)
        case .encode(.measureMagnitudes(let measurement)):
            (histograms, bins) = (measurement.bins.count, MagnitudeCounts.binLimit)
        case .encode(.quantize(let quantizer)):
            return quantizer.tasks.reduce(0) { $0 + (quantizer.packedByteCount(of: $1, shape: shape) ?? 0) * 4 / 3 }
        case .encode, .merge, .factor: return 0
        }
        return histograms * min(elementCount, bins) * MagnitudeCounts.bytesPerBin
    }
}
