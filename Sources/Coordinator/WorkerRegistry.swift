import Core
import Protocol

/// A worker as the coordinator knows it, however it is connected.
package struct WorkerDescription: Sendable {
    package let name: String
    /// Where the worker connected from, or `local`.
    package let address: String
    package let build: String
    package let threads: Int
    /// Bytes.
    package let memory: Int
    /// Bytes of `memory` for the tensors that the worker works on.
    package let tensorMemory: Int
    /// Tells hosts apart: `Hello.host`, or the address for workers that do not say.
    let host: String
    /// Tells worker processes apart: `Hello.instance`, or name and address for workers that do not say.
    let key: String

    /// A peer may send any text; status messages and logs have to stay bounded.
    private static let textLimit = 128

    package init(
        name: String, address: String, build: String, threads: Int, memory: Int, tensorMemory: Int, host: String? = nil,
        instance: String? = nil
    ) {
        self.host = host ?? address
        key = instance ?? "\(name.shortened(to: Self.textLimit)) at \(address)"
        self.name = name.shortened(to: Self.textLimit)
        self.address = address
        self.build = build.shortened(to: Self.textLimit)
        self.threads = threads
        self.memory = memory
        self.tensorMemory = tensorMemory
    }
}

/// The workers that are attached, and what each has done since it joined.
struct WorkerRegistry {
    struct Member {
        let description: WorkerDescription
        let since: Duration
        /// Takes messages for the worker. Must neither wait nor encode: it is called while all other workers wait.
        let send: @Sendable (Message) -> Void
        var isDraining = false
        /// When the worker last said that it is there.
        var heardAt: Duration
        var throughput = Throughput()
        var shardsDone = 0
        /// Output bytes of committed shards.
        var bytesDone = 0
        /// Bytes of `bytesDone` that the worker wrote into the output itself.
        var bytesDirect = 0
        /// Why its last attempt failed, and of which job it was, if it has finished none since.
        var lastFailure: (job: JobID, error: TesseraError)?
        /// What is wrong with a copy of an input, of which job, that it fetched instead.
        var copyProblem: (job: JobID, text: String)?
    }

    /// A worker that left without a goodbye.
    struct Lost {
        let description: WorkerDescription
        let since: Duration
        let reason: String
        /// Shards that it was working on.
        let leases: Int
    }

    /// Lost workers that are remembered, and how long.
    private static let lostLimit = 100, lostTime = Duration.seconds(3600)

    private(set) var members: [Scheduler.WorkerID: Member] = [:]
    /// The latest last.
    private var lost: [Lost] = []
    /// Since when there are none.
    private(set) var emptySince: Duration? = .zero
    private var nextID = 1
    /// Hosts that computed something else than two others, and what that was. They get no shards.
    private(set) var distrusted: [String: String] = [:]

    subscript(id: Scheduler.WorkerID) -> Member? { members[id] }

    func reference(to id: Scheduler.WorkerID) -> WorkerReference {
        WorkerReference(
            id: id, name: members[id]?.description.name ?? "gone", address: members[id]?.description.address ?? "unknown")
    }

    mutating func add(
        _ description: WorkerDescription, at now: Duration, send: @escaping @Sendable (Message) -> Void
    ) -> Scheduler.WorkerID {
        defer { nextID += 1 }
        members[nextID] = Member(description: description, since: now, send: send, heardAt: now)
        // It has come back, or another process of its name has taken its place.
        lost.removeAll {
            $0.description.key == description.key
                || ($0.description.name == description.name && $0.description.host == description.host)
        }
        emptySince = nil
        return nextID
    }

    /// Those that get shards.
    var trusted: [Member] { members.values.filter { !$0.isDraining && distrusted[$0.description.host] == nil } }

    mutating func distrust(_ host: String, because reason: String) { distrusted[host] = reason }

    mutating func drain(_ id: Scheduler.WorkerID) { members[id]?.isDraining = true }

    mutating func remove(_ id: Scheduler.WorkerID, at now: Duration) -> Member? {
        defer { if members.isEmpty, emptySince == nil { emptySince = now } }
        return members.removeValue(forKey: id)
    }

    /// Keeps a worker in mind that is not a member any more.
    mutating func lost(_ description: WorkerDescription, because reason: String, leases: Int, at now: Duration) {
        lost.append(Lost(description: description, since: now, reason: reason, leases: leases))
        if lost.count > Self.lostLimit { lost.removeFirst() }
    }

    /// The workers that were lost in the last hour, the latest first.
    func lost(at now: Duration) -> [Lost] { lost.reversed().filter { now - $0.since < Self.lostTime } }

    mutating func heard(_ id: Scheduler.WorkerID, at now: Duration) { members[id]?.heardAt = now }

    mutating func apply(_ event: JobEvent, at now: Duration = .zero) {
        if case .leased(_, let worker) = event { members[worker.id]?.throughput.begin(at: now) }
        if case .failed(let attempt, let worker, let error) = event { members[worker.id]?.lastFailure = (attempt.job, error) }
        if case .copyDiffers(let job, let worker, let text) = event { members[worker.id]?.copyProblem = (job, text) }
        guard case .committed(_, let worker, let byteCount, let delivery) = event else { return }
        members[worker.id]?.lastFailure = nil
        members[worker.id]?.shardsDone += 1
        members[worker.id]?.bytesDone += byteCount
        members[worker.id]?.throughput.add(byteCount, at: now)
        if delivery == .direct { members[worker.id]?.bytesDirect += byteCount }
    }
}
