package import Core
import FoundationEssentials
import GRDB
package import Protocol
import Work

/// A journal in one SQLite database with a write-ahead log, which belongs to one process at a time.
package final class SQLiteJournal: JobJournal {
    private let directory: String
    private let lock: StateLock
    private let database: DatabaseQueue
    /// Which start of a process on this journal this is, from 1.
    package let incarnation: UInt32

    private static let fileName = "journal.sqlite"
    /// Ended jobs that are kept: as many as a coordinator lists.
    private static let endedLimit = 1000

    /// Opens the journal, or creates it with its directory.
    ///
    /// - Parameters:
    ///   - now: seconds since 1970.
    ///   - build: the version that the journal's list of starts names.
    /// - Throws: `temporary` when another process has it, `badData` when it is no journal that this version reads, `io`,
    ///   `cannotCreate`.
    package init(directory: String, build: String, now: Double) throws(TesseraError) {
        self.directory = directory
        lock = try StateLock(directory: directory)
        let path = "\(directory)/\(Self.fileName)"
        for file in [path, "\(path)-wal", "\(path)-shm"] where isLink(file) {
            throw TesseraError(.notAllowed, "is a link, which may lead to a file of others", file: file, advice: "remove it")
        }
        func open() throws -> (DatabaseQueue, UInt32) {
            var configuration = Configuration()
            configuration.journalMode = .wal
            // In a log, less than FULL may lose transactions that were said to be durable.
            configuration.prepareDatabase { try $0.execute(sql: "PRAGMA synchronous = FULL") }
            let database = try DatabaseQueue(path: path, configuration: configuration)
            let migrator = JournalSchema.migrator
            guard try !database.read(migrator.hasBeenSuperseded) else {
                throw TesseraError(
                    .badData, "was written by a newer version of Tessera", file: path, advice: "start that version again")
            }
            try migrator.migrate(database)
            return (database, try database.write { try Self.nextIncarnation($0, build: build, now: now) })
        }
        do throws(TesseraError) {
            (database, incarnation) = try Self.wrapped(path, open)
        } catch {
            if lock.isNew { Self.removeFiles(directory) }
            throw error
        }
    }

    private static func nextIncarnation(_ database: Database, build: String, now: Double) throws -> UInt32 {
        try database.execute(sql: "INSERT INTO incarnation (startedAt, build) VALUES (?, ?)", arguments: [now, build])
        guard let number = UInt32(exactly: database.lastInsertedRowID) else {
            throw TesseraError(.badData, "numbers a start of the coordinator with \(database.lastInsertedRowID)")
        }
        return number
    }

    /// Removes the directory with all that the journal holds. To be called last.
    package func removeDirectory() {
        try? database.close()
        Self.removeFiles(directory)
    }

    private static func removeFiles(_ directory: String) {
        for name in [fileName, "\(fileName)-wal", "\(fileName)-shm", StateLock.fileName] {
            try? FileManager.default.removeItem(atPath: "\(directory)/\(name)")
        }
        // Whatever else lies in the directory is not the journal's.
        if (try? listDirectory(directory))?.isEmpty == true { try? FileManager.default.removeItem(atPath: directory) }
    }

    package var keepsJobs: Bool { true }

    // MARK: Writing

    package func add(_ job: JournaledJob) throws(TesseraError) {
        try write { database in
            try database.execute(
                sql: "INSERT INTO job (id, key, owner, output, submittedAt, submission) VALUES (?, ?, ?, ?, ?, ?)",
                arguments: [
                    job.id.description, job.key, job.owner, job.output, job.submittedAt,
                    try JSONEncoder().encode(job.submission),
                ])
        }
    }

    package func add(_ plan: JournaledPlan, of job: JobID) throws(TesseraError) {
        try write { database in
            try database.execute(
                sql: """
                    INSERT INTO plan (job, stage, digest, method, shardCount, bytesInput, bytesOutput, pinnedFiles)
                    SELECT number, (SELECT count(*) FROM plan WHERE plan.job = job.number), ?, ?, ?, ?, ?, ?
                    FROM job WHERE id = ? AND status IS NULL
                    """,
                arguments: [
                    Data(plan.digest.bytes), plan.method, plan.shardCount, plan.bytesInput, plan.bytesOutput,
                    try JSONEncoder().encode(plan.pinnedFiles), job.description,
                ])
        }
    }

    package func commit(_ shards: [JournaledShard]) throws(TesseraError) {
        try write { database in
            let insert = try database.makeStatement(
                sql: """
                    INSERT OR REPLACE INTO shard (job, number, incarnation, epoch, worker, delivery, result, begun, lasted)
                    SELECT number, ?, ?, ?, ?, ?, ?, ?, ? FROM job WHERE id = ? AND status IS NULL
                    """)
            for shard in shards {
                let attempt = shard.attempt
                try insert.execute(arguments: [
                    attempt.shard, attempt.incarnation, Int64(clamping: attempt.epoch), shard.worker, shard.delivery.rawValue,
                    try ResultCoding.encode(shard.result), shard.time?.begun, shard.time?.lasted, attempt.job.description,
                ])
            }
        }
    }

    package func restart(_ job: JobID) throws(TesseraError) { try write { try Self.forgetWork(of: job, $0) } }

    private static func forgetWork(of job: JobID, _ database: Database) throws {
        for table in ["shard", "plan"] {
            try database.execute(
                sql: "DELETE FROM \(table) WHERE job = (SELECT number FROM job WHERE id = ?)", arguments: [job.description])
        }
    }

    package func end(_ status: JobStatus) throws(TesseraError) {
        try write { database in
            try Self.forgetWork(of: status.id, database)
            try database.execute(
                sql: "UPDATE job SET status = ? WHERE id = ?",
                arguments: [try JSONEncoder().encode(status), status.id.description])
            try database.execute(
                sql: """
                    DELETE FROM job WHERE status IS NOT NULL AND number NOT IN
                        (SELECT number FROM job WHERE status IS NOT NULL ORDER BY number DESC LIMIT ?)
                    """, arguments: [Self.endedLimit])
        }
    }

    package func remove(_ job: JobID) throws(TesseraError) {
        try write { try $0.execute(sql: "DELETE FROM job WHERE id = ?", arguments: [job.description]) }
    }

    /// Bytes that a probe writes: more than the room that a full disk may have left in files.
    private static let probeBytes = 64 << 10

    package func probe() throws(TesseraError) {
        // In two transactions, for pages that are freed in the transaction that made them are never written.
        try write { database in
            try database.execute(sql: "CREATE TABLE IF NOT EXISTS probe (contents BLOB)")
            try database.execute(sql: "INSERT INTO probe VALUES (zeroblob(?))", arguments: [Self.probeBytes])
        }
        try write { try $0.execute(sql: "DROP TABLE probe") }
    }

    // MARK: Reading

    package func load() throws(TesseraError) -> JournalContents {
        try Self.wrapped(database.path) {
            try database.read { database in
                var contents = JournalContents()
                for row in try Row.fetchAll(database, sql: "SELECT * FROM job ORDER BY number") {
                    if (row["status"] as DatabaseValue?)?.isNull == false {
                        let status = try JSONDecoder().decode(JobStatus.self, from: try row.value("status"))
                        contents.ended.append(.init(status: status, key: try row.value("key")))
                    } else {
                        contents.jobs.append(try Self.job(row, database))
                    }
                }
                return contents
            }
        }
    }

    private static func job(_ row: Row, _ database: Database) throws -> JournaledJob {
        let number: Int64 = try row.value("number")
        guard let id = JobID(try row.value("id")) else { throw Row.damaged("id") }
        var job = JournaledJob(
            id: id, key: try row.value("key"), owner: try row.value("owner"),
            submission: try JSONDecoder().decode(Submit.self, from: try row.value("submission")),
            output: try row.value("output"), submittedAt: try row.seconds("submittedAt"))
        job.plans = try Row.fetchAll(database, sql: "SELECT * FROM plan WHERE job = ? ORDER BY stage", arguments: [number])
            .map(plan)
        let rows = try Row.fetchCursor(database, sql: "SELECT * FROM shard WHERE job = ? ORDER BY number", arguments: [number])
        while let row = try rows.next() {
            guard let delivery = Delivery(rawValue: try row.value("delivery")) else { throw Row.damaged("delivery") }
            let attempt = Attempt(
                job: id, shard: try row.count("number"), epoch: UInt64(try row.count("epoch")),
                incarnation: try row.value("incarnation"))
            job.shards.append(
                JournaledShard(
                    attempt: attempt, worker: try row.value("worker"), delivery: delivery,
                    result: try ResultCoding.decode(try row.value("result")), time: try time(row)))
        }
        return job
    }

    private static func time(_ row: Row) throws -> AttemptTime? {
        guard (row["begun"] as DatabaseValue?)?.isNull == false else { return nil }
        return AttemptTime(begun: try row.count("begun"), lasted: try row.count("lasted"))
    }

    private static func plan(_ row: Row) throws -> JournaledPlan {
        guard let digest = Digest(bytes: try row.value("digest") as Data) else { throw Row.damaged("digest") }
        return JournaledPlan(
            digest: digest, method: try row.value("method"), shardCount: try row.count("shardCount"),
            bytesInput: try row.count("bytesInput"), bytesOutput: try row.count("bytesOutput"),
            pinnedFiles: try JSONDecoder().decode([String: PinnedFile].self, from: try row.value("pinnedFiles")))
    }

    // MARK: Errors

    private func write(_ body: (Database) throws -> Void) throws(TesseraError) {
        try Self.wrapped(database.path) { try database.write(body) }
    }

    /// Names the file in every error.
    private static func wrapped<Result>(_ path: String, _ body: () throws -> Result) throws(TesseraError) -> Result {
        do {
            return try body()
        } catch var error as TesseraError {
            error.file = error.file ?? path
            throw error
        } catch let error as DatabaseError {
            switch error.resultCode {
            case .SQLITE_NOTADB, .SQLITE_CORRUPT:
                throw TesseraError(
                    .badData, "is no journal, or a damaged one: \(error.message ?? "unreadable")", file: path,
                    advice: "move it away to begin without the jobs that it held")
            case .SQLITE_FULL:
                throw TesseraError(.io, "the journal cannot grow: the disk is full", file: path, advice: "free some space")
            default:
                throw TesseraError(
                    .io, "the journal cannot be used: \(error.message ?? "\(error.resultCode)")", file: path,
                    advice: "check the disk, and the process limit on file sizes (ulimit -f)")
            }
        } catch {
            throw TesseraError(.badData, "the journal is damaged: \(error.decodingProblem)", file: path)
        }
    }
}

extension Row {
    /// A value that must be there. The subscripts of GRDB end the process where a damaged file holds another type.
    fileprivate func value<Value: DatabaseValueConvertible>(_ column: String) throws(TesseraError) -> Value {
        guard let stored = self[column] as DatabaseValue?, let value = Value.fromDatabaseValue(stored) else {
            throw Self.damaged(column)
        }
        return value
    }

    /// Seconds since 1970 that durations can be computed from.
    fileprivate func seconds(_ column: String) throws(TesseraError) -> Double {
        let seconds: Double = try value(column)
        guard (0...1e11).contains(seconds) else { throw Self.damaged(column) }
        return seconds
    }

    /// A number of things, or of bytes, that sums of some thousand of them cannot overflow.
    fileprivate func count(_ column: String) throws(TesseraError) -> Int {
        let count: Int = try value(column)
        guard (0...Limits.byteCount).contains(count) else { throw Self.damaged(column) }
        return count
    }

    fileprivate static func damaged(_ column: String) -> TesseraError {
        TesseraError(
            .badData, "the journal is damaged: a value of '\(column)' cannot be read",
            advice: "move it away to begin without the jobs that it held")
    }
}
