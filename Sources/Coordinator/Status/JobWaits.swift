import Operators
import Protocol

/// Why running jobs are not worked on, and why workers have nothing to do, at one moment.
struct JobWaits {
    /// What keeps a running job waiting while no worker has a shard of it.
    enum Wait {
        /// The coordinator was restarted and has not planned the job again yet.
        case takeUp
        /// No worker is connected.
        case workers(since: Duration)
        /// Workers are connected, and none of them takes shards any more.
        case refusal
        /// Every shard that is left is too large for every worker. The group is that of the largest.
        case memory(Group)
        /// Workers take the shards of other jobs first: the first of these, and how many there are before this one.
        case queue(first: JobRecord, count: Int)

        var activity: JobActivity { if case .queue = self { .queued } else { .waiting } }
    }

    /// Shards of a job that wait for a worker and need the same memory.
    typealias Group = (label: String, memory: MemoryNeed, count: Int)

    private let emptySince: Duration?
    /// Of the workers that take shards, and of those that have a slot for one.
    private let serving: Set<Scheduler.WorkerSize>, free: Set<Scheduler.WorkerSize>
    private let ready: [JobID: [Group]]
    /// Jobs that hold leases, in order of submission.
    private let working: [JobRecord]
    private let numbers: [Int]

    init(_ cluster: ClusterState) {
        let records = cluster.jobs.active.compactMap { cluster.jobs[$0] }.filter { $0.isRunning && $0.pause == nil }
            .sorted { $0.number < $1.number }
        emptySince = cluster.workers.emptySince
        serving = cluster.scheduler.servingSizes
        free = cluster.scheduler.freeSizes
        ready = Dictionary(uniqueKeysWithValues: records.map { ($0.id, cluster.scheduler.readyShards(of: $0.id)) })
        working = records.filter { $0.progress.shards.leased > 0 }
        numbers = records.map(\.number)
    }

    /// - Returns: `nil` for a job that workers are at, or that has no shard to do now.
    func wait(of job: JobRecord) -> Wait? {
        guard job.state == .running, job.isRunning else { return nil }
        if job.awaitsTakeUp { return .takeUp }
        let shards = job.progress.shards
        guard shards.leased == 0, shards.pending > 0 else { return nil }
        if let emptySince { return .workers(since: max(emptySince, job.startedAt)) }
        guard !serving.isEmpty else { return .refusal }
        let oversized = oversized(of: job)
        if let first = oversized.first, oversized.count == ready[job.id]?.count { return .memory(first) }
        guard !canBegin(job), let first = working.first, first.number < job.number else { return nil }
        return .queue(first: first, count: numbers.count { $0 < job.number })
    }

    /// The job's shards that are too large for every worker, those that need most memory first.
    func oversized(of job: JobRecord) -> [Group] {
        (ready[job.id] ?? []).filter { group in serving.allSatisfy { !$0.holds(group.memory) } }
            .sorted { $0.memory.byteCount(threads: 1) > $1.memory.byteCount(threads: 1) }
    }

    /// How many shards wait, if all of them are too large for a worker of this size and others could do some of them; else `nil`.
    func shardsTooLarge(for size: Scheduler.WorkerSize) -> Int? {
        let left = ready.values.joined()
        guard left.allSatisfy({ !size.holds($0.memory) }) else { return nil }
        let count = left.reduce(0) { count, group in
            count + (serving.contains { $0.holds(group.memory) } ? group.count : 0)
        }
        return count > 0 ? count : nil
    }

    /// Whether a free slot would take a shard of the job: then nobody stands in its way.
    private func canBegin(_ job: JobRecord) -> Bool {
        guard let groups = ready[job.id], !groups.isEmpty else { return !free.isEmpty }
        return groups.contains { group in free.contains { $0.holds(group.memory) } }
    }
}
