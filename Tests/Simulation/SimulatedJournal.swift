import Core
import Journal
import Protocol

/// A journal that outlives the processes that write it. What a call has been told stays; a process that ends during a call leaves
/// all of it or nothing.
final class SimulatedJournal: @unchecked Sendable {
    fileprivate let simulation: Simulation
    fileprivate var jobs: [JournaledJob] = []
    fileprivate var ended: [JournalContents.EndedJob] = []
    fileprivate var incarnation: UInt32 = 0
    /// Whether commits take effect some time after they are said to be done (`Mutation`).
    fileprivate let writesLate: Bool
    /// Whether each start of a process gets the same number (`Mutation`).
    private let countsStarts: Bool
    fileprivate var fault: Fault?
    /// Called when a job is begun again, with the number of its commits that are lost by that.
    var whenRestarted: (JobID, Int) -> Void = { _, _ in }
    /// Commits whose process was told that they are done, or that were there when a process began.
    fileprivate(set) var known: [ShardKey: Attempt] = [:]

    struct ShardKey: Hashable {
        let job: JobID
        let shard: Int
    }

    enum Fault: CaseIterable {
        /// A commit fails and leaves nothing.
        case fails
        /// A commit takes effect and is said to have failed.
        case lies
    }

    init(_ simulation: Simulation, writesLate: Bool, countsStarts: Bool) {
        self.simulation = simulation
        self.writesLate = writesLate
        self.countsStarts = countsStarts
    }

    /// The number of the next start.
    func nextIncarnation() -> UInt32 {
        if countsStarts || incarnation == 0 { incarnation += 1 }
        return incarnation
    }

    func holds(_ key: ShardKey) -> Bool {
        jobs.contains { job in job.id == key.job && job.shards.contains { $0.attempt.shard == key.shard } }
    }

    /// Jobs that have not ended.
    var unfinished: [JobID] { jobs.map(\.id) }

    func fail(_ fault: Fault, for duration: Duration) {
        self.fault = fault
        simulation.after(duration) { self.fault = nil }
    }

    fileprivate func change(_ id: JobID, _ body: (inout JournaledJob) -> Void) {
        if let index = jobs.firstIndex(where: { $0.id == id }) { body(&jobs[index]) }
    }

    fileprivate func write(_ shards: [JournaledShard]) {
        for shard in shards {
            change(shard.attempt.job) { job in
                job.shards.removeAll { $0.attempt.shard == shard.attempt.shard }
                job.shards.append(shard)
            }
        }
    }

    fileprivate func forget(_ id: JobID) { known = known.filter { $0.key.job != id } }

    /// The journal as one process has it.
    func journal(of process: SimulatedProcess) -> any JobJournal { View(journal: self, process: process) }

    private struct View: JobJournal {
        let journal: SimulatedJournal
        let process: SimulatedProcess

        var keepsJobs: Bool { true }

        func load() throws(TesseraError) -> JournalContents {
            try process.crashPoint()
            var contents = JournalContents()
            contents.jobs = journal.jobs.map { job in
                var job = job
                job.shards.sort { $0.attempt.shard < $1.attempt.shard }
                return job
            }
            contents.ended = journal.ended
            for shard in contents.jobs.flatMap(\.shards) {
                journal.known[ShardKey(job: shard.attempt.job, shard: shard.attempt.shard)] = shard.attempt
            }
            return contents
        }

        private func write(_ body: () -> Void) throws(TesseraError) {
            try process.crashPoint()
            body()
            try process.crashPoint()
        }

        func add(_ job: JournaledJob) throws(TesseraError) { try write { journal.jobs.append(job) } }

        func add(_ plan: JournaledPlan, of job: JobID) throws(TesseraError) {
            try write { journal.change(job) { $0.plans.append(plan) } }
        }

        func commit(_ shards: [JournaledShard]) throws(TesseraError) {
            if journal.fault == .fails { throw TesseraError(.io, "the journal could not be written") }
            if journal.writesLate {
                try process.crashPoint()
                journal.simulation.after(.seconds(2)) { if process.isAlive { journal.write(shards) } }
            } else {
                try write { journal.write(shards) }
            }
            if journal.fault == .lies { throw TesseraError(.io, "the journal was written, and says that it was not") }
            for shard in shards {
                journal.known[ShardKey(job: shard.attempt.job, shard: shard.attempt.shard)] = shard.attempt
            }
        }

        func restart(_ job: JobID) throws(TesseraError) {
            try write {
                journal.whenRestarted(job, journal.known.keys.count { $0.job == job })
                journal.forget(job)
                journal.change(job) { job in
                    job.plans = []
                    job.shards = []
                }
            }
        }

        func end(_ status: JobStatus) throws(TesseraError) {
            try write {
                guard let index = journal.jobs.firstIndex(where: { $0.id == status.id }) else { return }
                journal.ended.append(.init(status: status, key: journal.jobs.remove(at: index).key))
                journal.forget(status.id)
            }
        }

        func probe() throws(TesseraError) {
            try process.crashPoint()
            if journal.fault != nil { throw TesseraError(.io, "the journal could not be written") }
        }

        func remove(_ job: JobID) throws(TesseraError) { try write { journal.jobs.removeAll { $0.id == job } } }
    }
}
