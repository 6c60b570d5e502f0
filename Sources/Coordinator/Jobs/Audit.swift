import Core
import Protocol
import Work

/// Does a share of a job's shards again on other hosts, once all of them are committed, and finds the host that computes
/// something else, such as one with bad memory.
///
/// An attempt of the audit is an attempt like any other: it writes its bytes, and its result takes the place of the one before.
/// Where the two differ, a third host decides; what it says stays. The shards that the host in the minority has committed are
/// done once more. Shards of analysis stages are not audited: their results are numbers that later plans are made of.
struct Audit: Sendable {
    /// Who computed a result, and what came out.
    struct Vote: Sendable {
        /// Where the worker ran; `nil` for a result that an earlier coordinator committed.
        let host: String?
        /// What people call the worker.
        let worker: String
        let result: ShardResult

        /// For messages.
        var name: String { host.map { "\(worker) on \($0)" } ?? worker }
    }

    /// A shard to be done again.
    struct Item: Sendable, Hashable {
        /// Its position in the plan.
        let shard: Int
        /// Hosts whose word would be worth nothing.
        let avoids: Set<String>
    }

    /// A host that computed something else than two others.
    struct Culprit: Sendable, Hashable {
        let host: String?
        let worker: String
        let problem: String
    }

    enum Step: Sendable {
        case again([Item], culprits: [Culprit])
        case over
        /// There is no telling which of several results is right.
        case stuck(TesseraError)
    }

    private enum Phase { case choosing, comparing, deciding, repairing }

    private let job: JobID
    private let share: Double
    private var phase = Phase.choosing
    /// What was said of each shard in question, by its position.
    private var votes: [Int: [Vote]] = [:]
    /// Everything that was asked for, in order.
    private(set) var items: [Item] = []

    /// - Parameter share: of the shards, 0...1.
    init(_ job: JobID, share: Double) {
        self.job = job
        self.share = share
    }

    /// Whether a shard is in the share: the same answer in each life of the coordinator.
    ///
    /// - Parameter position: in the plan.
    static func chooses(_ position: Int, of job: JobID, share: Double) -> Bool {
        var word = job.high &+ (job.low ^ UInt64(truncatingIfNeeded: position) &* 0x9e37_79b9_7f4a_7c15)
        word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
        return Double((word ^ word >> 31) >> 11) * 0x1p-53 < share
    }

    /// What is to be done once everything that was asked for is committed.
    ///
    /// - Parameters:
    ///   - results: what each shard of the plan has now.
    ///   - hosts: on which workers are there.
    ///   - label: of a shard, for messages.
    mutating func next(_ results: [Vote], hosts: Set<String>, label: (Int) -> String) -> Step {
        switch phase {
        case .choosing: return choose(results, hosts)
        case .comparing: return compare(results, hosts, label)
        case .deciding: return decide(results, label)
        case .repairing: return .over
        }
    }

    private mutating func ask(_ items: [Item], for phase: Phase, culprits: [Culprit] = []) -> Step {
        self.phase = phase
        self.items += items
        return items.isEmpty && culprits.isEmpty ? .over : .again(items, culprits: culprits)
    }

    private mutating func choose(_ results: [Vote], _ hosts: Set<String>) -> Step {
        var items: [Item] = []
        for (position, vote) in results.enumerated() where Self.chooses(position, of: job, share: share) {
            // A host alone could only repeat itself.
            guard hosts.contains(where: { $0 != vote.host }) else { continue }
            votes[position] = [vote]
            items.append(Item(shard: position, avoids: Set([vote.host].compactMap(\.self))))
        }
        return ask(items, for: .comparing)
    }

    private mutating func compare(_ results: [Vote], _ hosts: Set<String>, _ label: (Int) -> String) -> Step {
        var items: [Item] = []
        for (position, earlier) in votes.sorted(by: { $0.key < $1.key }) {
            let both = earlier + [results[position]]
            votes[position] = both
            guard both[0].result != both[1].result else { continue }
            let known = Set(both.compactMap(\.host))
            guard !hosts.isSubset(of: known) else {
                return .stuck(
                    TesseraError(
                        .temporary,
                        "\(label(position)) came out otherwise on \(both[0].name) than on \(both[1].name), and there is no third "
                            + "host that could decide",
                        advice: "test the memory of both, then submit the job again with the one that is sound, and others"))
            }
            items.append(Item(shard: position, avoids: known))
        }
        return ask(items, for: .deciding)
    }

    private mutating func decide(_ results: [Vote], _ label: (Int) -> String) -> Step {
        var culprits: [Culprit] = []
        for (position, earlier) in votes.sorted(by: { $0.key < $1.key }) where earlier[0].result != earlier[1].result {
            let judge = results[position]
            guard let odd = earlier.first(where: { $0.result != judge.result }),
                let other = earlier.first(where: { $0.result == judge.result })
            else {
                let names = (earlier + [judge]).map(\.name).joined(separator: ", ")
                return .stuck(
                    TesseraError(
                        .temporary, "\(label(position)) came out in three ways, on \(names)",
                        advice: "test the memory of these hosts, then submit the job again"))
            }
            let problem =
                "\(label(position)) came out otherwise than on \(other.name) and on \(judge.name): its memory may be bad"
            // One shard is enough to say.
            guard !culprits.contains(where: { $0.host == odd.host && $0.worker == odd.worker }) else { continue }
            culprits.append(Culprit(host: odd.host, worker: odd.worker, problem: problem))
        }
        // What the host in the minority has committed, as far as nobody else has said the same.
        let hosts = Set(culprits.compactMap(\.host)), workers = Set(culprits.map(\.worker))
        let items = results.enumerated().filter { position, vote in
            vote.host.map(hosts.contains) == true || workers.contains(vote.worker)
        }.map { Item(shard: $0.offset, avoids: hosts) }
        return ask(items, for: .repairing, culprits: culprits)
    }
}
