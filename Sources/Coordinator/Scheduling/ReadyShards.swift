import HeapModule
import Operators

/// What decides which workers may be given a shard: alike shards form a group.
struct ShardNeed: Sendable, Hashable {
    let memory: MemoryNeed
    /// `Scheduler.Worker.key` of the workers that failed the shard, or went away with it.
    var avoids: Set<String> = []
    /// Hosts that must not do it, as long as there are others.
    var avoidedHosts: Set<String> = []

    var isChoosy: Bool { !avoids.isEmpty || !avoidedHosts.isEmpty }
}

/// The shards of a job that can be leased now.
///
/// Shards with the same need form a group: where a worker is no choice for one of them it is none for all, so the largest of each
/// group decides. A plan has a handful of different needs of memory, however many shards, and few workers fail.
struct ReadyShards: Sendable {
    private struct Entry: Comparable {
        let cost: Int
        let shard: Int

        /// Of equal costs the lower number is the larger entry.
        static func < (left: Entry, right: Entry) -> Bool { (left.cost, right.shard) < (right.cost, left.shard) }
    }

    private var groups: [ShardNeed: Heap<Entry>] = [:]

    var isEmpty: Bool { groups.isEmpty }

    mutating func insert(_ shard: Int, cost: Int, need: ShardNeed) {
        groups[need, default: []].insert(Entry(cost: cost, shard: shard))
    }

    /// The largest shard of each group. First those that failed before, so that a job that cannot be done ends soon; then the
    /// largest, so that none is left to run alone at the end.
    var largest: [(shard: Int, need: ShardNeed)] {
        groups.compactMap { need, heap in heap.max.map { (entry: $0, need: need) } }
            .sorted {
                let (left, right) = (!$0.need.avoids.isEmpty, !$1.need.avoids.isEmpty)
                return left == right ? $0.entry > $1.entry : left
            }
            .map { ($0.entry.shard, $0.need) }
    }

    /// The groups by their need of memory alone: the largest shard of each, and how many shards there are.
    var byMemory: [(shard: Int, memory: MemoryNeed, count: Int)] {
        var found: [MemoryNeed: (largest: Entry, count: Int)] = [:]
        for (need, heap) in groups {
            guard let largest = heap.max else { continue }
            let known = found[need.memory]
            found[need.memory] = (max(known?.largest ?? largest, largest), (known?.count ?? 0) + heap.count)
        }
        return found.sorted { $0.value.largest > $1.value.largest }.map { ($0.value.largest.shard, $0.key, $0.value.count) }
    }

    /// Takes out the largest shard of a group.
    mutating func removeLargest(of need: ShardNeed) {
        _ = groups[need]?.popMax()
        if groups[need]?.isEmpty == true { groups[need] = nil }
    }
}
