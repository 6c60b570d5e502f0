import Core
import Protocol
import TestSupport
import Work

@testable import Coordinator

/// Everything that happened in a simulated world, judged as it happens.
final class History: @unchecked Sendable {
    private typealias ShardKey = SimulatedJournal.ShardKey

    private(set) var violations: [String] = []
    /// What happened, in order, without the ids that differ from run to run.
    private(set) var lines: [String] = []
    private(set) var counts: [String: Int] = [:]
    private let simulation: Simulation
    private let disk: SimulatedDisk
    private let journal: SimulatedJournal
    private var leases: [Attempt: Lease] = [:]
    private var leased: Set<Attempt> = []
    /// The worker whose host computes wrongly.
    var badHost: String?
    /// Shards that came out wrong there at least once: bytes of an attempt that lost may lie over those of one that won.
    private var touched: Set<ShardWork> = []
    /// Whether jobs are audited: numbers of shards change their meaning from start to start.
    var hasAudits = false
    /// Outputs whose audits had no second host for some shard.
    private var unaudited: Set<String> = []
    private var committed: [ShardKey: Attempt] = [:]
    private var outputs: [JobID: String] = [:]
    private var ends: [JobID: (state: JobState, process: SimulatedProcess)] = [:]
    private var published: Set<String> = []
    /// Workers whose present process has worked on something.
    private var welcomed: Set<String> = []
    /// Which recipes were submitted for an output.
    private var recipes: [String: Set<Int>] = [:]
    /// The files of each recipe's output; `nil` while they are found out.
    private let reference: [[String: [UInt8]]]?

    init(_ simulation: Simulation, disk: SimulatedDisk, journal: SimulatedJournal, reference: [[String: [UInt8]]]?) {
        self.simulation = simulation
        self.disk = disk
        self.journal = journal
        self.reference = reference
    }

    func violate(_ rule: String) {
        violations.append("\(simulation.now): \(rule)")
        note("VIOLATION \(rule)")
    }

    func note(_ line: String, count: String? = nil) {
        lines.append("\(simulation.now) \(line)")
        if let count { counts[count, default: 0] += 1 }
    }

    // MARK: Clients

    func submits(recipe: Int, output: String) { recipes[output, default: []].insert(recipe) }

    /// - Parameter id: `nil` when the coordinator did not take the job.
    func answered(_ id: JobID?, _ state: JobState?, _ error: TesseraError?) {
        note("client: \(state.map { "\($0)" } ?? "refused") \(error?.problem ?? "")", count: state.map { "\($0)" } ?? "refused")
        switch state {
        case .done?:
            guard let id, let output = outputs[id] else { return violate("a job is done that nobody has seen") }
            if !published.contains(output) { violate("a job is done whose output is not there") }
        case .failed?, nil: if error?.problem.isEmpty ?? true { violate("a job failed without a reason") }
        default: break
        }
        if let id, let state, let end = ends[id]?.state, end != state { violate("a job ended as \(end) and as \(state)") }
    }

    // MARK: Workers

    func starts(_ worker: String) { welcomed.remove(worker) }

    func began(_ lease: Lease, at worker: SimulatedProcess) {
        guard worker.isAlive else { return }
        welcomed.insert(worker.name)
        if let other = leases.updateValue(lease, forKey: lease.attempt), other.work != lease.work {
            violate("one attempt means two shards")
        }
    }

    func fetched(_ bytes: [UInt8], of file: InputFile, _ range: Range<Int>) {
        note("fetched", count: "fetched")
        let path = try? Roots(everythingIn: ReferenceWork.files).find(file)
        if (try? path.map { try ReferenceWork.files.open($0).bytes(range) }) != bytes {
            violate("what was fetched is not what the file holds")
        }
    }

    func computedWrongly(_ attempt: Attempt) {
        note("wrong \(attempt.shard)", count: "wrong")
        if let work = leases[attempt]?.work { touched.insert(work) }
    }

    /// A worker that was never welcomed may take damaged bytes for another kind of server, and is started again by its host.
    func gaveUp(_ worker: String, _ error: any Error) {
        note("\(worker) gave up: \(error)", count: "gave up")
        if welcomed.contains(worker) { violate("\(worker) gave up although it had been welcomed: \(error)") }
    }

    // MARK: The coordinator

    func happened(_ event: JobEvent, at process: SimulatedProcess) {
        guard process.isAlive else { return }
        switch event {
        case .added(let id, let output, _): outputs[id] = output
        case .leased(let attempt, let worker):
            note("leased \(attempt.shard) epoch \(attempt.epoch).\(attempt.incarnation) to \(worker.name)", count: "leased")
            if !leased.insert(attempt).inserted { violate("one attempt was leased twice: \(attempt)") }
            if ends[attempt.job] != nil { violate("a job that has ended goes on") }
            if !hasAudits, let before = journal.known[key(attempt)] {
                violate("a committed shard is done again: \(before), \(attempt)")
            }
        case .committed(let attempt, _, _, _): committed(attempt)
        case .stale: note("stale", count: "stale")
        case .failed(let attempt, _, let error):
            let isLost = error.problem.contains("ran out")
            note("failed \(attempt.shard): \(error.problem)", count: isLost ? "lost lease" : "attempt failed")
        case .revoked(let attempt, _, let reason, _):
            let isLost = reason.contains("ran out") || reason.contains("left")
            note("revoked \(attempt.shard): \(reason)", count: isLost ? "lost lease" : "revoked")
        case .kept(_, let kept): note("kept \(kept.count)", count: "kept")
        case .paused(_, let error): note("paused: \(error.problem)", count: "paused")
        case .resumed: note("goes on", count: "resumed")
        case .ended(let id, let state, let error):
            note("ended \(state) \(error?.problem ?? "")")
            if let problem = error?.problem,
                problem.contains("no space left") || problem.contains("make the bytes durable")
            {
                violate("a job failed for a disk that may be mended: \(problem)")
            }
            // A coordinator that does not know that its predecessor published the output finds out and says so.
            if let before = ends.updateValue((state, process), forKey: id), before.state != state || before.process === process {
                violate("a job ended as \(before.state) and again as \(state)")
            }
        case .repeated(_, let shards): note("audits \(shards.count)", count: "audited")
        case .unaudited(let id, let shards):
            note("\(shards) unaudited", count: "unaudited")
            if let output = outputs[id] { unaudited.insert(output) }
        case .putAside(_, let host, _, let reason):
            note("put aside \(host): \(reason)", count: "put aside")
            if host != badHost { violate("a sound host is put aside: \(reason)") }
        case .workerLeft(let worker, _, let isOrderly): if isOrderly { note("\(worker.name) left", count: "left") }
        case .planned, .progressed, .reported, .copyDiffers, .workerJoined: break
        }
    }

    private func key(_ attempt: Attempt) -> ShardKey { ShardKey(job: attempt.job, shard: attempt.shard) }

    /// A shard counts when its bytes are durable and the journal says so.
    private func committed(_ attempt: Attempt) {
        note("committed \(attempt.shard) epoch \(attempt.epoch).\(attempt.incarnation)", count: "committed")
        if let before = committed.updateValue(attempt, forKey: key(attempt)), !hasAudits {
            violate("a shard was committed twice: \(before), \(attempt)")
        }
        guard ends[attempt.job] == nil else { return violate("a shard was committed after the end of its job") }
        if !hasAudits, !journal.holds(key(attempt)) { violate("a shard counts that the journal does not have") }
        guard let lease = leases[attempt] else { return violate("a shard was committed that nobody worked on") }
        guard !touched.contains(lease.work) else { return }
        do {
            for block in try ReferenceWork.outcome(of: lease.work).blocks
            where !isDurable(block, of: lease) {
                violate("a shard counts whose bytes are not durable")
            }
        } catch {
            violate("the work of a shard cannot be done: \(error)")
        }
    }

    private func isDurable(_ block: ReferenceWork.Block, of lease: Lease) -> Bool {
        let tensor = lease.work.outputs[block.tensor], first = tensor.offset + block.offset
        guard let output = outputs[lease.attempt.job], let part = lease.output?.parts.first(where: { $0.number == tensor.part }),
            let bytes = disk.durableBytes(in: output, job: "\(lease.attempt.job)", part: part.name),
            first + block.bytes.count <= bytes.count
        else { return false }
        return bytes[first..<first + block.bytes.count].elementsEqual(block.bytes)
    }

    /// The job's output was not there, and it begins anew.
    func restarted(_ id: JobID, losing count: Int) {
        note("restarted", count: "restarted")
        if count > 0 { violate("a job began again and lost \(count) committed shards") }
        committed = committed.filter { $0.key.job != id }
    }

    func published(_ output: String, _ files: [String: [UInt8]]) {
        note("published \(output)", count: "published")
        if !published.insert(output).inserted { violate("an output was published twice") }
        guard let reference else { return }
        let found = files.filter { $0.key != RunReport.fileName }
        let expected = (recipes[output] ?? []).map { reference[$0] }
        guard !expected.contains(where: { $0 == found }), !(badHost != nil && unaudited.contains(output)) else { return }
        // The manifest has what the audit decided. Who compares finds bytes that came late.
        if badHost != nil, expected.contains(where: { Self.besideParts($0) == Self.besideParts(found) }) {
            return note("late bytes", count: "late bytes")
        }
        let names = Set(found.keys).union(expected.flatMap(\.keys)).sorted()
        violate("\(output) is not as it has to be: \(names.filter { name in !expected.contains { $0[name] == found[name] } })")
    }

    private static func besideParts(_ files: [String: [UInt8]]) -> [String: [UInt8]] {
        files.filter { !$0.key.hasSuffix(".safetensors") }
    }
}
