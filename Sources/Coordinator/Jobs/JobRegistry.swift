import Core
import Protocol

/// All jobs that the coordinator knows, in order of submission. Of jobs that have ended, it keeps so many and lets the others go.
struct JobRegistry: Sendable {
    struct Limits: Sendable {
        /// Ended jobs whose summary is kept.
        var endedJobs = 1000
        /// Rows of shards that are kept of ended jobs, all together. A row takes some 64 bytes.
        var endedRows = 250_000
    }

    private let limits: Limits
    private var records: [JobID: JobRecord] = [:]
    /// By number, rising.
    private var order: [(number: Int, id: JobID)] = []
    /// Jobs that have not ended.
    private(set) var active: Set<JobID> = []
    /// From the one that ended first to the last.
    private var ended: [JobID] = []
    private var endedRows = 0
    /// How many of `ended`, from the beginning, have no rows any more.
    private var withoutRows = 0
    private var nextNumber = 0

    init(limits: Limits = Limits()) { self.limits = limits }

    subscript(id: JobID) -> JobRecord? {
        _read { yield records[id] }
        _modify { yield &records[id] }
    }

    var count: Int { order.count }

    /// Records, and rows of their shards.
    var entryCount: Int { records.count + records.values.reduce(0) { $0 + $1.progress.rowCount } }

    mutating func add(_ id: JobID, key: JobKey, output: String, job: Job?, startedAt: Duration, submittedAt: Double) {
        add(
            JobRecord(
                id: id, number: nextNumber, key: key, output: output, job: job, startedAt: startedAt, submittedAt: submittedAt))
    }

    /// Lists a job that an earlier coordinator ended.
    mutating func add(ended status: JobStatus, key: JobKey, at now: Duration) {
        add(JobRecord(ended: status, number: nextNumber, key: key, at: now))
        retire(status.id)
    }

    /// Lists a job that waits to be taken up, or lists it anew.
    ///
    /// - Parameter since: when that first failed; `nil` before the first try.
    mutating func add(delayed status: JobStatus, key: JobKey, since: Duration? = nil, at now: Duration) {
        add(JobRecord(delayed: status, number: nextNumber, key: key, since: since, at: now))
    }

    private mutating func add(_ record: JobRecord) {
        // One that waited to be taken up.
        if records[record.id] != nil { order.removeAll { $0.id == record.id } }
        records[record.id] = record
        order.append((record.number, record.id))
        active.insert(record.id)
        nextNumber += 1
    }

    /// The last job that was submitted with that key, among those that `peer` can mean.
    func last(withKey key: JobKey, of peer: PeerIdentity) -> JobRecord? {
        order.reversed().lazy.compactMap { records[$0.id] }
            .first { $0.key.text == key.text && peer.resubmitsJobs(of: $0.key.owner) }
    }

    mutating func apply(_ event: JobEvent, at now: Duration = .zero) {
        guard let id = event.job else { return }
        records[id]?.apply(event, at: now)
        if case .ended(let id, _, _) = event { retire(id) }
    }

    /// Lets go of the job's plan and results, and of older jobs beyond the limits.
    private mutating func retire(_ id: JobID) {
        guard active.remove(id) != nil else { return }
        records[id]?.job = nil
        ended.append(id)
        endedRows += records[id]?.rowCount ?? 0
        while endedRows > limits.endedRows, withoutRows < ended.count {
            endedRows -= records[ended[withoutRows]]?.rowCount ?? 0
            records[ended[withoutRows]]?.dropRows()
            withoutRows += 1
        }
        guard ended.count > limits.endedJobs, let oldest = ended.first else { return }
        ended.removeFirst()
        withoutRows = max(0, withoutRows - 1)
        guard let record = records.removeValue(forKey: oldest) else { return }
        endedRows -= record.rowCount
        let position = position(after: record.number - 1)
        if order.indices.contains(position), order[position].number == record.number { order.remove(at: position) }
    }

    /// The jobs behind the one with that number, in order of submission.
    func jobs(after number: Int?) -> some Sequence<JobRecord> {
        order[(number.map(position(after:)) ?? 0)...].lazy.compactMap { records[$0.id] }
    }

    /// The first place in `order` behind that number.
    private func position(after number: Int) -> Int {
        var low = 0, high = order.count
        while low < high {
            let middle = (low + high) / 2
            if order[middle].number <= number { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
