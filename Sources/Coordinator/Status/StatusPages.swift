import Core
import Operators
import Protocol

/// Answers status requests in pages, so that no message grows with the number of jobs, shards or workers.
struct StatusPages {
    private let cluster: ClusterState
    private let now: Duration
    private let peer: PeerIdentity
    private let waits: JobWaits

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
        waits = JobWaits(cluster)
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
        for record in cluster.jobs.jobs(after: request.after) {
            guard let job = summary(of: record) else { continue }
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
        return Status(jobs: found.prefix(Self.jobLimit).compactMap { summary(of: $0) }, workers: [], total: found.count)
    }

    private func job(_ id: JobID, _ request: StatusRequest) -> Status? {
        guard let record = cluster.jobs[id], var job = summary(of: record) else { return nil }
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
        return records.sorted { $0.number < $1.number }.compactMap { summary(of: $0) }
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

    private func summary(of record: JobRecord) -> JobStatus? {
        let wait = waits.wait(of: record)
        var status = record.status(at: now, blockedReason: wait.flatMap(reason))
        status?.activity = wait?.activity
        if wait != nil { status?.bytesPerSecond = nil }
        if case .queue(let first, _)? = wait { status?.behind = first.id }
        if status?.state == .running, wait == nil { status?.note = note(on: record) }
        return peer.maySeeJobs(of: record.key.owner) ? status : status?.forOthers
    }

    /// `nil` for a job that is planned again: its record says so.
    private func reason(_ wait: JobWaits.Wait) -> String? {
        switch wait {
        case .takeUp: return nil
        case .workers(let since):
            let seconds = Int((now - since).seconds)
            return "waits for workers: " + (seconds > 0 ? "none has been connected for \(seconds) s" : "none is connected")
        case .refusal:
            return "waits for workers: those that are connected are leaving or put aside, and take no shards; start others"
        case .memory(let group): return "waits for a worker with more memory" + shortage(of: group)
        case .queue(let first, let count):
            let others = count == 1 ? "" : " and \(count - 1) more"
            return "waits behind the job \(words(for: first))\(others): workers take shards in order of submission"
        }
    }

    /// What keeps some of the job's shards waiting while others are worked on.
    private func note(on record: JobRecord) -> String? {
        let oversized = waits.oversized(of: record), count = oversized.reduce(0) { $0 + $1.count }
        guard let largest = oversized.first else { return nil }
        return (count == 1 ? "1 shard waits" : "\(count) shards wait") + " for a worker with more memory" + shortage(of: largest)
    }

    /// As the peer may know the job.
    private func words(for job: JobRecord) -> String {
        let id = job.id.description.prefix(8)
        guard peer.maySeeJobs(of: job.key.owner) else { return String(id) }
        let name = job.name ?? FilePath.components(of: job.output).last ?? job.output
        return "\(id) (\(name.shortened(to: Self.labelLimit)))"
    }

    /// What the worker that comes closest lacks for such a shard.
    private func shortage(of shard: JobWaits.Group) -> String {
        func missing(_ worker: WorkerDescription) -> Int {
            shard.memory.byteCount(threads: worker.threads) - worker.tensorMemory
        }
        let workers = cluster.workers.members.values.lazy.map(\.description)
        guard let worker = workers.min(by: { (missing($0), $0.name) < (missing($1), $1.name) }) else { return "" }
        let options = WorkerMemory.options(for: shard.memory, threads: worker.threads, isConnected: true)
        return """
            : \(shard.label.shortened(to: Self.labelLimit)) is too large for \(worker.name), \
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

    private func idleReason(of id: Scheduler.WorkerID) -> String? {
        guard let size = cluster.scheduler.size(of: id), let count = waits.shardsTooLarge(for: size) else { return nil }
        return (count == 1 ? "the shard that waits needs" : "the \(count) shards that wait need") + " more memory than it has"
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
        if status.state == .idle, strikes.restsUntil == nil { status.idleReason = idleReason(of: id) }
        guard strikes.count > 0 else { return status }
        status.failedInARow = strikes.count
        if let (job, error) = worker.lastFailure, isSeen(job) { status.lastError = error }
        status.secondsResting = strikes.restsUntil.map { max(0, ($0 - now).seconds) }
        return status
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
        [owner, name, method, output, blockedReason, note, error?.problem, error?.file, error?.tensor, error?.advice]
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
