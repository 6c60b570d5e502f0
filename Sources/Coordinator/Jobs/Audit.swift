import Core
import Protocol
import Work

/// Does a share of the shards of each of a job's plans again on other hosts, once all of the plan's are committed, and finds the
/// host that computes something else, such as one with bad memory.
///
/// An attempt of the audit is an attempt like any other: it writes its bytes, and its result takes the place of the one before.
/// Where the two differ, a third host decides; what it says stays. The shards that the host in the minority has committed are
/// done once more. Those of analysis stages are among them: where another result comes out, the plans that followed are wrong.
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
        let place: ShardPlace
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
    /// What was said of each shard in question.
    private var votes: [ShardPlace: [Vote]] = [:]
    /// Everything that was asked for since the plan in hand was begun, in order.
    private(set) var items: [Item] = []

    /// - Parameter share: of the shards, 0...1.
    init(_ job: JobID, share: Double) {
        self.job = job
        self.share = share
    }

    /// Another plan is in hand.
    mutating func begin() { self = Audit(job, share: share) }

    /// Whether a shard is in the share: the same answer in each life of the coordinator.
    ///
    /// - Parameter number: the shard's in the journal.
    static func chooses(_ number: Int, of job: JobID, share: Double) -> Bool {
        var word = job.high &+ (job.low ^ UInt64(truncatingIfNeeded: number) &* 0x9e37_79b9_7f4a_7c15)
        word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
        return Double((word ^ word >> 31) >> 11) * 0x1p-53 < share
    }

    /// What is to be done once everything that was asked for is committed.
    ///
    /// - Parameters:
    ///   - results: what each shard has now, by plan; the last plan is the one in hand.
    ///   - firstShard: the journal's number of the first shard of the plan in hand.
    ///   - hosts: on which workers are there.
    ///   - label: of a shard, for messages.
    mutating func next(
        _ results: [[Vote?]], firstShard: Int, hosts: Set<String>, label: (ShardPlace) -> String
    ) -> Step {
        switch phase {
        case .choosing: choose(results, firstShard, hosts)
        case .comparing: compare(results, hosts, label)
        case .deciding: decide(results, label)
        case .repairing: repaired(results, label)
        }
    }

    private mutating func ask(_ items: [Item], for phase: Phase, culprits: [Culprit] = []) -> Step {
        self.phase = phase
        self.items += items
        return items.isEmpty && culprits.isEmpty ? .over : .again(items, culprits: culprits)
    }

    private mutating func choose(_ results: [[Vote?]], _ firstShard: Int, _ hosts: Set<String>) -> Step {
        var items: [Item] = []
        for (index, vote) in (results.last ?? []).enumerated()
        where Self.chooses(firstShard + index, of: job, share: share) {
            // A host alone could only repeat itself.
            guard let vote, hosts.contains(where: { $0 != vote.host }) else { continue }
            let place = ShardPlace(plan: results.count - 1, index: index)
            votes[place] = [vote]
            items.append(Item(place: place, avoids: Set([vote.host].compactMap(\.self))))
        }
        return ask(items, for: .comparing)
    }

    private mutating func compare(_ results: [[Vote?]], _ hosts: Set<String>, _ label: (ShardPlace) -> String) -> Step {
        var items: [Item] = []
        for (place, earlier) in votes.sorted(by: { $0.key < $1.key }) {
            guard let first = earlier.first, let second = results[place.plan][place.index] else { continue }
            votes[place] = [first, second]
            guard first.result != second.result else { continue }
            let known = Set([first, second].compactMap(\.host))
            guard !hosts.isSubset(of: known) else {
                return .stuck(
                    TesseraError(
                        .temporary,
                        "\(label(place)) came out otherwise on \(first.name) than on \(second.name), and there is no third "
                            + "host that could decide",
                        advice: "test the memory of both, then submit the job again with the one that is sound, and others"))
            }
            items.append(Item(place: place, avoids: known))
        }
        return ask(items, for: .deciding)
    }

    private mutating func decide(_ results: [[Vote?]], _ label: (ShardPlace) -> String) -> Step {
        var culprits: [Culprit] = []
        for (place, earlier) in votes.sorted(by: { $0.key < $1.key }) where earlier.first?.result != earlier.last?.result {
            guard let judge = results[place.plan][place.index] else { continue }
            guard let odd = earlier.first(where: { $0.result != judge.result }),
                let other = earlier.first(where: { $0.result == judge.result })
            else {
                let names = (earlier + [judge]).map(\.name).joined(separator: ", ")
                return .stuck(
                    TesseraError(
                        .temporary, "\(label(place)) came out in three ways, on \(names)",
                        advice: "test the memory of these hosts, then submit the job again"))
            }
            let problem = "\(label(place)) came out otherwise than on \(other.name) and on \(judge.name): its memory may be bad"
            // One shard is enough to say.
            guard !culprits.contains(where: { $0.host == odd.host && $0.worker == odd.worker }) else { continue }
            culprits.append(Culprit(host: odd.host, worker: odd.worker, problem: problem))
        }
        return repair(results, after: culprits)
    }

    /// Does again what the hosts in the minority have committed, as far as nobody else has said the same.
    private mutating func repair(_ results: [[Vote?]], after culprits: [Culprit]) -> Step {
        let hosts = Set(culprits.compactMap(\.host)), workers = Set(culprits.map(\.worker))
        var items: [Item] = []
        votes = [:]
        for (plan, results) in results.enumerated() {
            for (index, vote) in results.enumerated() {
                guard let vote, vote.host.map(hosts.contains) == true || workers.contains(vote.worker) else { continue }
                let place = ShardPlace(plan: plan, index: index)
                votes[place] = [vote]
                items.append(Item(place: place, avoids: hosts))
            }
        }
        return ask(items, for: .repairing, culprits: culprits)
    }

    /// What was planned from a wrong result cannot be mended.
    private mutating func repaired(_ results: [[Vote?]], _ label: (ShardPlace) -> String) -> Step {
        for (place, earlier) in votes.sorted(by: { $0.key < $1.key }) where place.plan < results.count - 1 {
            guard let before = earlier.first, let now = results[place.plan][place.index], before.result != now.result else {
                continue
            }
            return .stuck(
                TesseraError(
                    .temporary,
                    "\(label(place)) came out wrong on \(before.name), which is put aside, and the job's plan was made of that",
                    advice: "submit the job again: that host gets nothing of it"))
        }
        return .over
    }
}
