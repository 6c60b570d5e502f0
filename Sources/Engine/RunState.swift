import Checkpoints
package import Core
import Glibc
import Journal
import Protocol

/// What `tessera run` keeps beside OUT while it works, so that the same command goes on where an earlier one was interrupted
/// or killed.
package struct RunState: Sendable {
    let journal: SQLiteJournal
    /// The directories above OUT that did not exist, from the outermost on.
    private let made: [String]

    /// Creates `OUT.partial-state` and the directories above it, or takes it up.
    ///
    /// - Throws: `temporary` when another process makes the same output, `cannotCreate` when there is no place for it.
    package init(beside output: String, workingDirectory: String, time: TimeSource = .system) throws(TesseraError) {
        let store = LocalOutputStore(ownFiles: Manifest.files(ofOutput:))
        made = try Self.makeDirectories(above: FilePath.absolute(output, in: workingDirectory))
        do throws(TesseraError) {
            let path = Self.path(beside: try store.resolve(output, workingDirectory: workingDirectory))
            // Whoever can write beside OUT must not choose where this process writes and removes files.
            guard !isLink(path) else {
                throw TesseraError(
                    .notAllowed, "is a link, which may lead to a directory of others", file: path, advice: "remove it")
            }
            journal = try SQLiteJournal(directory: path, build: tesseraVersion, now: time.wallClock())
        } catch {
            Self.removeEmpty(made)
            throw error
        }
    }

    /// The directory that keeps the job.
    static func path(beside output: String) -> String { "\(output).partial-state" }

    private static func makeDirectories(above path: String) throws(TesseraError) -> [String] {
        var missing: [String] = [], directory = FilePath.parent(of: path)
        while directory != "/", access(directory, F_OK) != 0 {
            missing.insert(directory, at: 0)
            directory = FilePath.parent(of: directory)
        }
        for (index, directory) in missing.enumerated() where mkdir(directory, 0o777) != 0 && errno != EEXIST {
            let reason = String(cString: strerror(errno))
            removeEmpty(Array(missing[..<index]))
            throw TesseraError(
                .cannotCreate, "cannot create the directory above the output: \(reason)", file: directory,
                advice: "choose another place, or create the directory")
        }
        return missing
    }

    /// Directories that hold something meanwhile stay.
    private static func removeEmpty(_ directories: [String]) { for directory in directories.reversed() { rmdir(directory) } }

    /// Whether the job's work is there for another process.
    func holds(_ job: JobID) -> Bool { (try? journal.load())?.jobs.contains { $0.id == job } ?? false }

    /// Removes everything, unless it holds a job that may go on.
    func removeIfDone() {
        guard let contents = try? journal.load(), contents.jobs.isEmpty else { return }
        journal.removeDirectory()
        Self.removeEmpty(made)
    }
}
