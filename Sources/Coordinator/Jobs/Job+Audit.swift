import Planning

extension Job {
    /// Whether another plan follows from the results of the one in hand.
    var isAnalysing: Bool { plan.hasMoreStages }

    /// Whether more stages follow those of the plan in hand.
    var hasMoreStages: Bool { isAnalysing || audit != nil }

    /// What is done again next, once all that is known is committed.
    ///
    /// - Parameters:
    ///   - hosts: on which workers are there.
    ///   - places: the hosts of workers, by their names: all that is known of results of an earlier coordinator.
    mutating func auditNext(hosts: Set<String>, places: [String: String]) -> Audit.Step {
        let shards = shards
        let votes = results.compactMap(\.self).map { vote in
            Audit.Vote(host: vote.host ?? places[vote.worker], worker: vote.worker, result: vote.result)
        }
        return audit?.next(votes, hosts: hosts) { shards[$0].label } ?? .over
    }

    /// How shards that are done again look to the scheduler, and to people.
    func costs(of items: [Audit.Item]) -> (costs: [ShardCost], summary: PlanSummary) {
        let estimates = Array(plan.estimates.joined())
        let costs = items.map { item in
            ShardCost(
                estimates[item.shard], label: label(of: item), byteCount: shards[item.shard].progressByteCount,
                avoids: item.avoids)
        }
        let rows = items.map { ShardSummary(label: label(of: $0), byteCount: shards[$0.shard].progressByteCount) }
        return (
            costs,
            PlanSummary(
                method: plan.method, digest: plan.digest, bytesInput: plan.inputs.reduce(0) { $0 + $1.byteCount },
                bytesOutput: 0, shards: rows)
        )
    }

    private func label(of item: Audit.Item) -> String { "audit of \(shards[item.shard].label)" }
}

extension ShardCost {
    init(_ estimate: ShardEstimate, label: String, byteCount: Int = 0, avoids: Set<String> = []) {
        self.init(
            label: label, cost: Int(min(1e6 * estimate.seconds, 1e15)), byteCount: byteCount, memory: estimate.memory,
            avoids: avoids)
    }
}
