package import Core
package import Journal
package import Protocol
import Synchronization

/// A journal in memory, which outlives the coordinators of a test. It can be told to fail and to be slow.
package final class MemoryJournal: JobJournal {
    private struct State {
        var jobs: [JournaledJob] = []
        var ended: [JournalContents.EndedJob] = []
        var commits = 0
        var failure: TesseraError?
        var failsProbes = true
        var hook: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    package init() {}

    package var keepsJobs: Bool { true }

    /// Every later commit throws `error`, or none where `error` is `nil`.
    ///
    /// - Parameter failsProbes: whether probes throw it as well; a probe may find room where a commit finds none.
    package func failCommits(with error: TesseraError?, failsProbes: Bool = true) {
        state.withLock { ($0.failure, $0.failsProbes) = (error, failsProbes) }
    }

    /// Called at the beginning of every later commit, outside of any lock: a hook that waits makes the journal slow.
    package func beforeCommits(_ hook: @escaping @Sendable () -> Void) { state.withLock { $0.hook = hook } }

    /// How many transactions have committed shards.
    package var commits: Int { state.withLock { $0.commits } }

    package var contents: JournalContents {
        state.withLock { state in
            var contents = JournalContents()
            contents.jobs = state.jobs
            contents.ended = state.ended
            return contents
        }
    }

    package func load() throws(TesseraError) -> JournalContents { contents }

    package func add(_ job: JournaledJob) throws(TesseraError) { state.withLock { $0.jobs.append(job) } }

    package func add(_ plan: JournaledPlan, of job: JobID) throws(TesseraError) { change(job) { $0.plans.append(plan) } }

    package func commit(_ shards: [JournaledShard]) throws(TesseraError) {
        state.withLock { $0.hook }?()
        if let failure = state.withLock({ $0.failure }) { throw failure }
        for shard in shards {
            change(shard.attempt.job) { job in
                job.shards.append(shard)
                // As `SQLiteJournal` reads them, whichever was committed first.
                job.shards.sort { $0.attempt.shard < $1.attempt.shard }
            }
        }
        state.withLock { $0.commits += 1 }
    }

    package func restart(_ job: JobID) throws(TesseraError) {
        change(job) { job in
            job.plans = []
            job.shards = []
        }
    }

    package func end(_ status: JobStatus) throws(TesseraError) {
        state.withLock { state in
            guard let index = state.jobs.firstIndex(where: { $0.id == status.id }) else { return }
            state.ended.append(.init(status: status, key: state.jobs.remove(at: index).key))
        }
    }

    package func remove(_ job: JobID) throws(TesseraError) { state.withLock { $0.jobs.removeAll { $0.id == job } } }

    package func probe() throws(TesseraError) {
        if let failure = state.withLock({ $0.failsProbes ? $0.failure : nil }) { throw failure }
    }

    private func change(_ id: JobID, _ body: (inout JournaledJob) -> Void) {
        state.withLock { state in
            guard let index = state.jobs.firstIndex(where: { $0.id == id }) else { return }
            body(&state.jobs[index])
        }
    }
}
