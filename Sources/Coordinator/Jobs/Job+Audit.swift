import Core
import Planning
import Protocol

extension Job {
    /// Whether another plan follows from the results of the one in hand.
    var isAnalysing: Bool { plan.hasMoreStages }

    /// Whether more stages follow those of the plan in hand.
    var hasMoreStages: Bool { isAnalysing || audit != nil }

    /// What is done again next, once all that is known is committed.
    ///
    /// - Parameters:
    ///   - hosts: on which workers are there.
    ///   - distrusted: hosts that get nothing.
    ///   - places: the hosts of workers, by their names: all that is known of results of an earlier coordinator.
    mutating func auditNext(hosts: Set<String>, distrusted: Set<String>, places: [String: String]) -> Audit.Step {
        guard var audit else { return .over(unaudited: 0) }
        defer { self.audit = audit }
        let votes = votes.map { results in
            results.map { vote in
                vote.map { Audit.Vote(host: $0.host ?? places[$0.worker], worker: $0.worker, result: $0.result) }
            }
        }
        let job = self
        return audit.next(
            Audit.Knowledge(results: votes, firstShard: firstShard, hosts: hosts, distrusted: distrusted) {
                job.shard(at: $0).label
            })
    }

    /// How shards that are done again look to the scheduler, and to people.
    func costs(of items: [Audit.Item]) -> [(cost: ShardCost, summary: ShardSummary)] {
        let estimates = estimates
        return items.map { item in
            let shard = shard(at: item.place), label = "audit of \(shard.label)", bytes = shard.progressByteCount
            let estimate = estimates[item.place.plan][item.place.index]
            return (
                ShardCost(estimate, label: label, byteCount: bytes, avoids: item.avoids),
                ShardSummary(label: label, byteCount: bytes, tensorCount: shard.tensors.count)
            )
        }
    }
}

extension ShardCost {
    init(_ estimate: ShardEstimate, label: String, byteCount: Int = 0, avoids: Set<String> = []) {
        self.init(
            label: label, cost: Int(min(1e6 * estimate.seconds, 1e15)), byteCount: byteCount, memory: estimate.memory,
            avoids: avoids)
    }
}
