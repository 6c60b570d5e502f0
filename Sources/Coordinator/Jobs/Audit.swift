import Core
import Protocol
import Work

/// Does a share of the shards of each of a job's plans again on other hosts, once all of the plan's are committed, and finds the
/// host that computes something else, such as one with bad memory.
///
/// An attempt of the audit is an attempt like any other: it writes its bytes, and its result takes the place of the one before.
/// Where the two differ, a third host decides; what it says stays. The shards that the host in the minority has committed are
/// done once more, and looked at like those before. Those of analysis stages are among them: where another result comes out,
/// the plans that followed are wrong. In the end two hosts have said the same of each shard in the share, or the audit says of
/// how many they have not.
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

        /// The host, as far as it is known.
        var place: String { host ?? worker }

        func isOfSameHost(as other: Vote) -> Bool { place == other.place || worker == other.worker }
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
        /// - Parameter unaudited: how many shards of the share no second host has done.
        case over(unaudited: Int)
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
    /// How often the phase has asked: a shard may come back from the very host that it was to avoid, when that is alone for a
    /// while.
    private var rounds = 0
    private static let roundLimit = 10
    private var unaudited = 0

    /// What is known when the audit is asked to go on.
    struct Knowledge {
        /// What each shard has now, by plan; the last plan is the one in hand.
        let results: [[Vote?]]
        /// The journal's number of the first shard of the plan in hand.
        let firstShard: Int
        /// Hosts that are there, and those that have committed something of the job and may come back.
        let places: Set<String>
        /// A shard's name, for messages.
        let label: (ShardPlace) -> String

        /// - Parameter hosts: on which workers are there.
        init(
            results: [[Vote?]], firstShard: Int, hosts: Set<String>, distrusted: Set<String>,
            label: @escaping (ShardPlace) -> String
        ) {
            self.results = results
            self.firstShard = firstShard
            self.label = label
            places = hosts.union(results.joined().lazy.compactMap { $0?.place }).subtracting(distrusted)
        }

        func result(_ place: ShardPlace) -> Vote? { results[place.plan][place.index] }

        /// Whether anybody else could do what these have done.
        func hasOthers(than votes: [Vote]) -> Bool { !places.isSubset(of: votes.map(\.place)) }
    }

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
    mutating func next(_ known: Knowledge) -> Step {
        switch phase {
        case .choosing: choose(known.results[known.results.count - 1].indices, known)
        case .comparing: compare(known)
        case .deciding: decide(known)
        case .repairing: repaired(known)
        }
    }

    private mutating func ask(_ items: [Item], for phase: Phase, culprits: [Culprit] = []) -> Step {
        rounds = phase == self.phase ? rounds + 1 : 0
        self.phase = phase
        self.items += items
        return items.isEmpty && culprits.isEmpty ? .over(unaudited: unaudited) : .again(items, culprits: culprits)
    }

    /// - Parameter indices: of the shards of the plan in hand that may be in the share.
    private mutating func choose(_ indices: some Sequence<Int>, _ known: Knowledge) -> Step {
        var items: [Item] = []
        votes = [:]
        for index in indices where Self.chooses(known.firstShard + index, of: job, share: share) {
            let place = ShardPlace(plan: known.results.count - 1, index: index)
            guard let vote = known.result(place) else { continue }
            // A host alone could only repeat itself.
            guard known.hasOthers(than: [vote]) else {
                unaudited += 1
                continue
            }
            votes[place] = [vote]
            items.append(Item(place: place, avoids: Set([vote.host].compactMap(\.self))))
        }
        return ask(items, for: .comparing)
    }

    private mutating func compare(_ known: Knowledge) -> Step {
        var again: [Item] = [], disputed: [Item] = []
        for (place, earlier) in votes.sorted(by: { $0.key < $1.key }) {
            guard let first = earlier.first, let second = earlier.dropFirst().first ?? known.result(place) else { continue }
            let hosts = Set([first, second].compactMap(\.host))
            if first.isOfSameHost(as: second), rounds < Self.roundLimit, known.hasOthers(than: [first, second]) {
                again.append(Item(place: place, avoids: hosts))
                continue
            }
            if first.isOfSameHost(as: second), first.result == second.result { unaudited += earlier.count == 1 ? 1 : 0 }
            votes[place] = [first, second]
            guard first.result != second.result else { continue }
            guard known.hasOthers(than: [first, second]) else { return .stuck(Self.undecided(place, [first, second], known)) }
            disputed.append(Item(place: place, avoids: hosts))
        }
        return again.isEmpty ? ask(disputed, for: .deciding) : ask(again, for: .comparing)
    }

    private static func undecided(_ place: ShardPlace, _ votes: [Vote], _ known: Knowledge) -> TesseraError {
        let names = votes.map(\.name).joined(separator: " than on ")
        return TesseraError(
            .temporary,
            "\(known.label(place)) came out otherwise on \(names), and there is no third host that could decide",
            advice: "test the memory of both, then submit the job again with the one that is sound, and others")
    }

    private mutating func decide(_ known: Knowledge) -> Step {
        var again: [Item] = [], culprits: [Culprit] = []
        for (place, earlier) in votes.sorted(by: { $0.key < $1.key }) where earlier[0].result != earlier[1].result {
            let both = Array(earlier.prefix(2))
            guard let judge = earlier.dropFirst(2).first ?? known.result(place) else { continue }
            guard !both.contains(where: judge.isOfSameHost) else {
                // Nobody decides about itself.
                guard rounds < Self.roundLimit, known.hasOthers(than: both) else {
                    return .stuck(Self.undecided(place, both, known))
                }
                again.append(Item(place: place, avoids: Set(both.compactMap(\.host))))
                continue
            }
            votes[place] = both + [judge]
            guard let odd = both.first(where: { $0.result != judge.result }),
                let other = both.first(where: { $0.result == judge.result })
            else {
                let names = votes[place, default: []].map(\.name).joined(separator: ", ")
                return .stuck(
                    TesseraError(
                        .temporary, "\(known.label(place)) came out in three ways, on \(names)",
                        advice: "test the memory of these hosts, then submit the job again"))
            }
            let problem =
                "\(known.label(place)) came out otherwise than on \(other.name) and on \(judge.name): its memory may be bad"
            // One shard is enough to say.
            guard !culprits.contains(where: { $0.host == odd.host && $0.worker == odd.worker }) else { continue }
            culprits.append(Culprit(host: odd.host, worker: odd.worker, problem: problem))
        }
        return again.isEmpty ? repair(after: culprits, known) : ask(again, for: .deciding)
    }

    /// Does again what the hosts in the minority have committed, as far as nobody else has said the same.
    private mutating func repair(after culprits: [Culprit], _ known: Knowledge) -> Step {
        let hosts = Set(culprits.compactMap(\.host)), workers = Set(culprits.map(\.worker))
        var items: [Item] = []
        votes = [:]
        for (plan, results) in known.results.enumerated() {
            for (index, vote) in results.enumerated() {
                guard let vote, vote.host.map(hosts.contains) == true || workers.contains(vote.worker) else { continue }
                let place = ShardPlace(plan: plan, index: index)
                votes[place] = [vote]
                items.append(Item(place: place, avoids: hosts))
            }
        }
        return ask(items, for: .repairing, culprits: culprits)
    }

    private mutating func repaired(_ known: Knowledge) -> Step {
        let last = known.results.count - 1
        for (place, earlier) in votes.sorted(by: { $0.key < $1.key }) where place.plan < last {
            guard let before = earlier.first, let now = known.result(place), before.result != now.result else { continue }
            // What was planned from a wrong result cannot be mended.
            let problem = "\(known.label(place)) came out wrong on \(before.name), which is put aside"
            return .stuck(
                TesseraError(
                    .temporary, "\(problem), and the job's plan was made of that",
                    advice: "submit the job again: that host gets nothing of it"))
        }
        return choose(votes.keys.filter { $0.plan == last }.map(\.index).sorted(), known)
    }
}
