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

    /// A peer may send any text; status messages and logs have to stay bounded.
    private static let textLimit = 128

    package init(name: String, address: String, build: String, threads: Int, memory: Int, tensorMemory: Int) {
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
        var shardsDone = 0
        /// Output bytes of committed shards.
        var bytesDone = 0
        /// Bytes of `bytesDone` that the worker wrote into the output itself.
        var bytesDirect = 0
    }

    private(set) var members: [Scheduler.WorkerID: Member] = [:]
    private var nextID = 1
    /// Addresses of hosts that computed something else than two others, and what that was. They get no shards.
    private(set) var distrusted: [String: String] = [:]

    subscript(id: Scheduler.WorkerID) -> Member? { members[id] }

    func reference(to id: Scheduler.WorkerID) -> WorkerReference {
        WorkerReference(id: id, name: members[id]?.description.name ?? "gone")
    }

    mutating func add(
        _ description: WorkerDescription, at now: Duration, send: @escaping @Sendable (Message) -> Void
    ) -> Scheduler.WorkerID {
        defer { nextID += 1 }
        members[nextID] = Member(description: description, since: now, send: send)
        return nextID
    }

    /// Those that get shards.
    var trusted: [Member] { members.values.filter { !$0.isDraining && distrusted[$0.description.address] == nil } }

    mutating func distrust(_ address: String, because reason: String) { distrusted[address] = reason }

    mutating func drain(_ id: Scheduler.WorkerID) { members[id]?.isDraining = true }

    mutating func remove(_ id: Scheduler.WorkerID) -> Member? { members.removeValue(forKey: id) }

    mutating func apply(_ event: JobEvent) {
        guard case .committed(_, let worker, let byteCount, let delivery) = event else { return }
        members[worker.id]?.shardsDone += 1
        members[worker.id]?.bytesDone += byteCount
        if delivery == .direct { members[worker.id]?.bytesDirect += byteCount }
    }
}
