import HeapModule
import Operators

/// The shards of a job that can be leased now.
///
/// Shards with the same need of memory form a group: where a worker is too small for one of them it is too small for all, so the
/// largest of each group decides. A plan has a handful of different needs, however many shards.
struct ReadyShards: Sendable {
    private struct Entry: Comparable {
        let cost: Int
        let shard: Int

        /// Of equal costs the lower number is the larger entry.
        static func < (left: Entry, right: Entry) -> Bool { (left.cost, right.shard) < (right.cost, left.shard) }
    }

    private var groups: [MemoryNeed: Heap<Entry>] = [:]

    var isEmpty: Bool { groups.isEmpty }

    mutating func insert(_ shard: Int, cost: Int, memory: MemoryNeed) {
        groups[memory, default: []].insert(Entry(cost: cost, shard: shard))
    }

    /// The largest shard of each group, the largest first so that none is left to run alone at the end.
    var largest: [(shard: Int, memory: MemoryNeed)] {
        groups.compactMap { memory, heap in heap.max.map { (entry: $0, memory: memory) } }
            .sorted { $0.entry > $1.entry }.map { ($0.entry.shard, $0.memory) }
    }

    /// Takes out the largest shard of a group.
    mutating func removeLargest(of memory: MemoryNeed) {
        _ = groups[memory]?.popMax()
        if groups[memory]?.isEmpty == true { groups[memory] = nil }
    }
}
