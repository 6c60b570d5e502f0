import Checkpoints
package import Core
import Journal
import Protocol

/// What `tessera run` keeps beside OUT while it works, so that the same command goes on where an earlier one was killed.
package struct RunState: Sendable {
    let journal: SQLiteJournal

    /// Creates `OUT.partial-state`, or takes it up.
    ///
    /// - Throws: `temporary` when another process makes the same output, `cannotCreate` when there is no place for it.
    package init(beside output: String, workingDirectory: String, time: TimeSource = .system) throws(TesseraError) {
        let store = LocalOutputStore(ownFiles: Manifest.files(ofOutput:))
        let path = try store.resolve(output, workingDirectory: workingDirectory)
        journal = try SQLiteJournal(directory: "\(path).partial-state", build: tesseraVersion, now: time.wallClock())
    }

    /// Whether the job's work is there for another process.
    func holds(_ job: JobID) -> Bool { (try? journal.load())?.jobs.contains { $0.id == job } ?? false }

    /// Removes everything, unless it holds a job that may go on.
    func removeIfDone() {
        if let contents = try? journal.load(), contents.jobs.isEmpty { journal.removeDirectory() }
    }
}
