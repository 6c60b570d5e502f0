import Core
import Operators
import Protocol

/// Answers status requests in pages, so that no message grows with the number of jobs, shards or workers.
struct StatusPages {
    private let cluster: ClusterState
    private let now: Duration
    private let peer: PeerIdentity

    /// Rows of a page, however many were asked for.
    static let jobLimit = 200
    static let shardLimit = 1000
    static let workerLimit = 1000
    /// Bytes of text in a page's rows, where rows are unusually long. Rows and their numbers stay far below what a message may
    /// hold.
    static let textLimit = 1 << 20
    /// Bytes of a shard's label.
    private static let labelLimit = 200

    /// - Parameters:
    ///   - now: on the cluster's clock.
    ///   - peer: who asks.
    init(_ cluster: ClusterState, at now: Duration, for peer: PeerIdentity) {
        self.cluster = cluster
        self.now = now
        self.peer = peer
    }

    /// - Returns: `nil` when there is no such job.
    func answer(_ request: StatusRequest) -> Status? {
        if let number = request.workersAfter { return workers(after: number) }
        if let id = request.job { return job(id, request) }
        var status = request.prefix.map { jobs(beginningWith: $0) } ?? jobs(request)
        if request.after == nil, request.prefix == nil { add(workers(after: nil), to: &status) }
        return status
    }

    private func add(_ workers: Status, to status: inout Status) {
        status.workers = workers.workers
        status.nextWorkers = workers.nextWorkers
        let lost = lostWorkers
        if !lost.isEmpty { status.lostWorkers = lost }
    }

    var lostWorkers: [LostWorker] {
        cluster.workers.lost(at: now).map { worker in
            LostWorker(
                name: worker.description.name, address: worker.description.address,
                reason: worker.reason.shortened(to: Self.labelLimit), secondsAgo: (now - worker.since).seconds,
                leases: worker.leases)
        }
    }

    // MARK: Jobs

    private func jobs(_ request: StatusRequest) -> Status {
        var page = Page(limit: min(max(0, request.limit ?? .max), Self.jobLimit))
        var status = Status(jobs: [], workers: [], total: cluster.jobs.count)
        var last: Int?
        let queue = JobQueue(cluster)
        for record in cluster.jobs.jobs(after: request.after) {
            guard let job = summary(of: record, in: queue) else { continue }
            guard page.takes(job.textSize) else {
                status.next = last
                break
            }
            status.jobs.append(job)
            last = record.number
        }
        return status
    }

    /// All jobs whose id begins with `prefix`, without their shards, up to a page of them.
    private func jobs(beginningWith prefix: String) -> Status {
        let found = cluster.jobs.jobs(after: nil).filter { $0.id.description.hasPrefix(prefix.lowercased()) }
        let queue = JobQueue(cluster)
        return Status(
            jobs: found.prefix(Self.jobLimit).compactMap { summary(of: $0, in: queue) }, workers: [], total: found.count)
    }

    private func job(_ id: JobID, _ request: StatusRequest) -> Status? {
        guard let record = cluster.jobs[id], var job = summary(of: record, in: JobQueue(cluster)) else { return nil }
        var status = Status(jobs: [], workers: [], total: job.shards.total)
        let limit = min(max(0, request.limit ?? .max), Self.shardLimit), rows = record.progress.rowCount
        if limit > 0, rows > 0, peer.maySeeJobs(of: record.key.owner) {
            var page = Page(limit: limit), details: [ShardStatus] = []
            let first = min(max(-1, request.after ?? -1), rows - 1) + 1
            // One more than the page takes tells whether another follows.
            let ahead =
                request.running == true
                ? record.progress.runningShards(from: first, limit: limit + 1) : Array(first..<min(rows, first + limit + 1))
            for index in ahead {
                guard let shard = shard(index, of: record), page.takes(shard.textSize) else {
                    status.next = index - 1
                    break
                }
                details.append(shard)
            }
            job.shardDetails = details
        }
        status.jobs = [job]
        if limit > 0, request.after == nil { add(workers(after: nil), to: &status) }
        return status
    }

    // MARK: Changes

    /// - Parameter refreshes: whether jobs that have not ended are wanted as well.
    func jobs(_ changed: Set<JobID>, refreshes: Bool) -> [JobStatus] {
        let records = (refreshes ? changed.union(cluster.jobs.active) : changed).compactMap { cluster.jobs[$0] }
        let queue = JobQueue(cluster)
        return records.sorted { $0.number < $1.number }.compactMap { summary(of: $0, in: queue) }
    }

    /// - Parameter refreshes: whether all are wanted.
    func workers(_ changed: Set<Scheduler.WorkerID>, refreshes: Bool) -> [WorkerStatus] {
        (refreshes ? Set(cluster.workers.members.keys) : changed).sorted().compactMap { worker($0) }
    }

    /// - Parameters:
    ///   - rowsTold: shards that the reader has heard of.
    ///   - namesTold: names of workers that it has heard of.
    /// - Returns: `nil` when there is no such job for the peer, or nothing is kept of its shards.
    func shards(_ shards: [Int], of id: JobID, rowsTold: Int, namesTold: Int) -> ShardNews? {
        guard let record = cluster.jobs[id], peer.maySeeJobs(of: record.key.owner), record.progress.rowCount > 0 else {
            return nil
        }
        let progress = record.progress, new = rowsTold..<max(rowsTold, min(progress.rowCount, (shards.last ?? -1) + 1))
        return ShardNews(
            job: id, total: progress.rowCount, firstNew: rowsTold, new: new.compactMap { progress.shard($0) },
            names: Array(progress.names.dropFirst(namesTold)), traces: shards.compactMap { progress.trace($0) })
    }

    private func shard(_ index: Int, of record: JobRecord) -> ShardStatus? {
        guard var shard = record.progress.row(index) else { return nil }
        shard.label = shard.label.shortened(to: Self.labelLimit)
        return shard
    }

    private func summary(of record: JobRecord, in queue: JobQueue) -> JobStatus? {
        let isIdle = record.isRunning && record.pause == nil
        var status = record.status(at: now, blockedReason: isIdle ? blockedReason(of: record.id) : nil)
        if cluster.workers.members.isEmpty { status?.bytesPerSecond = nil }
        if isIdle, status?.blockedReason == nil, let (first, count) = queue.ahead(of: record) {
            status?.behind = first.id
            let others = count == 1 ? "" : " and \(count - 1) more"
            status?.blockedReason =
                "waits behind the job \(words(for: first))\(others): workers take shards in order of submission"
        }
        return peer.maySeeJobs(of: record.key.owner) ? status : status?.forOthers
    }

    /// As the peer may know the job.
    private func words(for job: JobRecord) -> String {
        let id = job.id.description.prefix(8)
        guard peer.maySeeJobs(of: job.key.owner) else { return String(id) }
        let name = job.name ?? FilePath.components(of: job.output).last ?? job.output
        return "\(id) (\(name.shortened(to: Self.labelLimit)))"
    }

    private func blockedReason(of id: JobID) -> String? {
        if let since = cluster.workers.emptySince, let record = cluster.jobs[id] {
            let seconds = Int((now - max(since, record.startedAt)).seconds)
            return "waits for workers: " + (seconds > 0 ? "none has been connected for \(seconds) s" : "none is connected")
        }
        guard let shard = cluster.scheduler.oversizedShard(of: id) else { return nil }
        func missing(_ worker: WorkerDescription) -> Int {
            shard.memory.byteCount(threads: worker.threads) - worker.tensorMemory
        }
        let workers = cluster.workers.members.values.lazy.map(\.description)
        guard let worker = workers.min(by: { (missing($0), $0.name) < (missing($1), $1.name) }) else { return nil }
        let options = WorkerMemory.options(for: shard.memory, threads: worker.threads, isConnected: true)
        return """
            waits for a worker with more memory: \(shard.label.shortened(to: Self.labelLimit)) is too large for \(worker.name), \
            which has \(Quantity.bytes(worker.memory)) for \(Quantity.threads(worker.threads)); \
            \(options.map { "start one with \($0)" } ?? "no worker could have enough")
            """
    }

    // MARK: Workers

    private func workers(after number: Int?) -> Status {
        var page = Page(limit: Self.workerLimit)
        var status = Status(jobs: [], workers: [])
        for id in cluster.workers.members.keys.filter({ $0 > number ?? 0 }).sorted() {
            guard let worker = worker(id) else { continue }
            guard page.takes(worker.textSize) else {
                status.nextWorkers = status.workers.last?.id
                break
            }
            status.workers.append(worker)
        }
        return status
    }

    private func worker(_ id: Scheduler.WorkerID) -> WorkerStatus? {
        guard let worker = cluster.workers[id] else { return nil }
        let leases = cluster.scheduler.leaseCount(of: id), description = worker.description
        let strikes = cluster.scheduler.strikes(of: id)
        var status = WorkerStatus(
            id: id, name: description.name, address: description.address, build: description.build,
            state: worker.isDraining ? .draining : leases > 0 ? .busy : .idle, threads: description.threads,
            memory: description.memory, leases: leases, shardsDone: worker.shardsDone, bytesDone: worker.bytesDone,
            bytesDirect: worker.bytesDirect, secondsConnected: (now - worker.since).seconds,
            putAside: cluster.workers.distrusted[description.host]?.shortened(to: Self.labelLimit))
        status.bytesPerSecond = worker.throughput.bytesPerSecond(at: now)
        status.secondsSinceHeard = (now - worker.heardAt).seconds
        func isSeen(_ job: JobID) -> Bool { cluster.jobs[job].map { peer.maySeeJobs(of: $0.key.owner) } ?? false }
        if let (job, text) = worker.copyProblem, isSeen(job) { status.copyProblem = text }
        guard strikes.count > 0 else { return status }
        status.failedInARow = strikes.count
        if let (job, error) = worker.lastFailure, isSeen(job) { status.lastError = error }
        status.secondsResting = strikes.restsUntil.map { max(0, ($0 - now).seconds) }
        return status
    }
}

/// The jobs that hold leases, in order of submission: others may wait behind them.
private struct JobQueue {
    private let running: [JobRecord]
    private let all: [Int]

    init(_ cluster: ClusterState) {
        let records = cluster.jobs.active.compactMap { cluster.jobs[$0] }.filter { $0.isRunning && $0.pause == nil }
            .sorted { $0.number < $1.number }
        // Whoever has a slot left would take another job's shard.
        running = cluster.scheduler.free.isEmpty ? records.filter { $0.progress.shards.leased > 0 } : []
        all = records.map(\.number)
    }

    /// - Returns: the first of the jobs that a job without leases waits for, and how many were submitted before it and have not
    ///   ended; `nil` where the job waits for no other.
    func ahead(of job: JobRecord) -> (first: JobRecord, count: Int)? {
        let shards = job.progress.shards
        guard shards.leased == 0, shards.pending > 0, let first = running.first, first.number < job.number else { return nil }
        return (first, all.count { $0 < job.number })
    }
}

/// Counts what a page has taken.
private struct Page {
    private var rows: Int
    private var text = StatusPages.textLimit

    init(limit: Int) { rows = limit }

    /// Whether there is space for a row with that much text. A page that may have rows takes one however long.
    mutating func takes(_ size: Int) -> Bool {
        guard rows > 0, size <= text || text == StatusPages.textLimit else { return false }
        rows -= 1
        text -= size
        return true
    }
}

extension String {
    /// Bytes in JSON, at most.
    fileprivate var jsonSize: Int { utf8.reduce(0) { $0 + ($1 < 0x20 ? 6 : $1 == 0x22 || $1 == 0x5c ? 2 : 1) } }
}

extension JobStatus {
    fileprivate var textSize: Int {
        [owner, name, method, output, blockedReason, error?.problem, error?.file, error?.tensor, error?.advice]
            .reduce(0) { $0 + ($1?.jsonSize ?? 0) }
    }
}

extension ShardStatus {
    fileprivate var textSize: Int {
        let texts = workers + (failures ?? []).flatMap { [$0.worker, $0.address, $0.error.description] }
        return texts.reduce(label.jsonSize) { $0 + $1.jsonSize }
    }
}

extension WorkerStatus {
    fileprivate var textSize: Int {
        name.jsonSize + build.jsonSize + (lastError?.description.jsonSize ?? 0) + (putAside?.jsonSize ?? 0)
            + (copyProblem?.jsonSize ?? 0)
    }
}
