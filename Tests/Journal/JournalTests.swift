import Core
import Foundation
import Journal
import Operators
import Protocol
import TaskVectors
import TestSupport
import Testing
import Work

/// The journal on a real disk: what one process writes, the next one reads.
@Suite struct JournalTests {
    private let directory: TemporaryDirectory
    private let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = "\(directory.path)/state"
    }

    private func open() throws -> SQLiteJournal { try SQLiteJournal(directory: path, build: "1.0", now: 1e9) }

    /// SQLite would make and write what a link leads to.
    @Test(arguments: ["journal.sqlite", "journal.sqlite-wal"])
    func aLinkedJournalIsRefused(name: String) throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: "\(path)/\(name)", withDestinationPath: "\(directory.path)/elsewhere")
        let error = #expect(throws: TesseraError.self) { try open() }
        #expect(error?.code == .notAllowed && error?.file == "\(path)/\(name)", "\(String(describing: error))")
        #expect(!directory.names.contains("elsewhere"))
    }

    // MARK: Contents

    private static let id = JobID(high: 0xabcd, low: 7)

    private static func digest(_ number: Int) throws -> Digest { try .sha256(of: [UInt8(number)]) }

    private static func job(_ id: JobID = id, submittedAt: Double = 1_234_567_890.125) -> JournaledJob {
        JournaledJob(
            id: id, key: "key \(id.low)", owner: "o\(id.low)",
            submission: Submit(
                recipe: "merge_method: linear\n", recipeName: "r.yml", workingDirectory: "/w", output: "out\u{301}",
                options: JobOptions(sha256Sums: true, maxPartBytes: 1 << 40, seed: .max), idempotencyKey: "k"),
            output: "/w/out\u{301}", submittedAt: submittedAt)
    }

    private static func anyPin() throws -> PinnedFile { PinnedFile(identity: "2-3.4", sample: try digest(5)) }

    private static func plan(_ number: Int, _ pinned: PinnedFile? = nil) throws -> JournaledPlan {
        JournaledPlan(
            digest: try digest(100 + number), method: "ties", shardCount: 3, bytesInput: 1 << 40, bytesOutput: 12,
            pinnedFiles: ["/m/model.safetensors": try pinned ?? anyPin()])
    }

    private static func shard(_ number: Int, of id: JobID = id, isTimed: Bool = true) throws -> JournaledShard {
        let statistics: [TensorStatistics?] =
            number == 1 ? [.encoding(.kept([5, 1 << 40])), nil, .merge(MergeStatistics(["share": [0.1, 1e-300]]))] : []
        return JournaledShard(
            attempt: Attempt(job: id, shard: number, epoch: UInt64(number) + 2, incarnation: .max), worker: "w\(number)",
            delivery: number == 0 ? .relayed : .direct,
            result: ShardResult(
                digests: try (0..<number + 1).map { tensor in try (0..<tensor * 2).map { try digest($0 + number) } },
                statistics: statistics), time: isTimed ? AttemptTime(begun: number << 33, lasted: 7) : nil)
    }

    private static func ended(_ id: JobID) throws -> JobStatus {
        JobStatus(
            id: id, state: .failed, method: "ties", output: "/w/other", plan: try digest(9),
            shards: .init(total: 3, pending: 2, leased: 0, committed: 1), bytesDone: 4, bytesTotal: 12, bytesOutput: 12,
            bytesInput: 99, attempts: 4, submittedAt: 1e9, seconds: 2.5,
            error: TesseraError(.io, "the disk is broken", file: "/w", advice: "replace it"), shardDetails: nil)
    }

    /// One job in the middle, one at its beginning, one that has ended.
    private static func fill(_ journal: SQLiteJournal) throws {
        try journal.add(job(JobID(high: 1, low: 1)))
        try journal.add(job())
        try journal.add(job(JobID(high: 2, low: 2)))
        try journal.add(plan(0), of: id)
        try journal.commit([shard(2), shard(0)])
        try journal.add(plan(1), of: id)
        try journal.commit([shard(1)])
        try journal.end(ended(JobID(high: 1, low: 1)))
    }

    private static func expectFilled(
        _ contents: JournalContents, owners: [String] = ["o7", "o2"], pinned: PinnedFile? = nil, isTimed: Bool = true
    ) throws {
        #expect(contents.ended.map(\.status) == [try ended(JobID(high: 1, low: 1))] && contents.ended.map(\.key) == ["key 1"])
        try #require(contents.jobs.map(\.id) == [id, JobID(high: 2, low: 2)])
        #expect(contents.jobs.map(\.owner) == owners)
        let found = contents.jobs[0], expected = job()
        #expect(found.submission == expected.submission && found.output == expected.output && found.key == expected.key)
        #expect(found.submittedAt == expected.submittedAt)
        #expect(found.plans == [try plan(0, pinned), try plan(1, pinned)])
        #expect(try found.shards == (0..<3).map { try shard($0, isTimed: isTimed) })
        #expect(contents.jobs[1].plans.isEmpty && contents.jobs[1].shards.isEmpty)
    }

    @Test(arguments: [-1e300, -1, 1e12, .infinity])
    func timesThatNoJobHas(seconds: Double) throws {
        let journal = try open()
        try journal.add(Self.job(submittedAt: seconds))
        let error = #expect(throws: TesseraError.self) { try journal.load() }
        #expect(error?.code == .badData && error?.problem.contains("'submittedAt'") == true && error?.advice != nil)
    }

    @Test func whatOneProcessWritesTheNextReads() throws {
        do {
            let journal = try open()
            #expect(journal.incarnation == 1 && journal.keepsJobs)
            #expect(try journal.load().jobs.isEmpty)
            try Self.fill(journal)
        }
        let journal = try open()
        #expect(journal.incarnation == 2)
        try Self.expectFilled(try journal.load())
    }

    /// A journal of an earlier version opens in every later one. `TESSERA_RECORD=1` writes the file of a new schema.
    @Test func aJournalOfTheFirstSchemaOpens() throws {
        let golden = "\(Repository.root)/Tests/Journal/Fixtures/journal-1.sqlite"
        if ProcessInfo.processInfo.environment["TESSERA_RECORD"] != nil {
            do { try Self.fill(try open()) }
            try? FileManager.default.removeItem(atPath: golden)
            try FileManager.default.moveItem(atPath: "\(path)/journal.sqlite", toPath: golden)
            try? FileManager.default.removeItem(atPath: path)
        }
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: golden, toPath: "\(path)/journal.sqlite")
        let journal = try open()
        #expect(journal.incarnation == 2)
        // That version knew no owners and no times of attempts, and told files apart by device, inode and time.
        try Self.expectFilled(
            try journal.load(), owners: [PeerIdentity.unknownOwner, PeerIdentity.unknownOwner],
            pinned: PinnedFile(identity: "1-2-3.4"), isTimed: false)
        try journal.commit([try Self.shard(0)])
    }

    @Test func jobsAreForgottenWithAllTheyHave() throws {
        let journal = try open()
        try Self.fill(journal)
        try journal.restart(Self.id)
        var contents = try journal.load()
        #expect(contents.jobs.map(\.plans.count) == [0, 0] && contents.jobs.map(\.shards.count) == [0, 0])
        try journal.remove(Self.id)
        // A result of a job that is gone, or has ended, is no error.
        try journal.commit([try Self.shard(0), try Self.shard(0, of: JobID(high: 1, low: 1))])
        contents = try journal.load()
        #expect(contents.jobs.map(\.id) == [JobID(high: 2, low: 2)] && contents.ended.count == 1)
        // The same id may come again, and starts with nothing.
        try journal.add(Self.job())
        #expect(try journal.load().jobs.last?.shards == [])
    }

    @Test func ofEndedJobsTheLastThousandAreKept() throws {
        let journal = try open()
        for number in 0..<1005 {
            let id = JobID(high: 3, low: UInt64(number))
            try journal.add(Self.job(id))
            try journal.end(Self.ended(id))
        }
        let ended = try journal.load().ended
        #expect(ended.count == 1000 && ended.first?.status.id.low == 5 && ended.last?.status.id.low == 1004)
    }

    // MARK: One process at a time

    @Test func twoProcessesNeverShareAJournal() throws {
        do {
            let journal = try open()
            let error = #expect(throws: TesseraError.self) { try open() }
            #expect(error?.code == .temporary && error?.file == path)
            #expect(error?.problem.contains("in use by process \(ProcessInfo.processInfo.processIdentifier) on ") == true)
            #expect(journal.incarnation == 1)
        }
        #expect(try open().incarnation == 2)
    }

    @Test func aJournalGoesWithItsDirectory() throws {
        try open().removeDirectory()
        #expect(directory.names == [])
        let journal = try open()
        try directory.write("mine", to: "state/note")
        journal.removeDirectory()
        #expect(try FileManager.default.contentsOfDirectory(atPath: path) == ["note"])
    }

    // MARK: Damage

    @Test func filesThatAreNoJournalAreNamed() throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        try directory.write(String(repeating: "not a database", count: 100), to: "state/journal.sqlite")
        let error = #expect(throws: TesseraError.self) { try open() }
        #expect(error?.code == .badData && error?.file == "\(path)/journal.sqlite")
        let elsewhere = #expect(throws: TesseraError.self) {
            try SQLiteJournal(directory: "\(directory.path)/no/such", build: "", now: 0)
        }
        #expect(elsewhere?.code == .cannotCreate)
    }

    /// Every byte of the file may be wrong: there is an error or another value, and the process lives.
    @Test func damagedFilesAreSurvived() throws {
        do { try Self.fill(try open()) }
        let file = URL(fileURLWithPath: "\(path)/journal.sqlite"), whole = try Data(contentsOf: file)
        var random = SplitMix(seed: 5), refused = 0
        for _ in 0..<150 {
            var bytes = whole
            for _ in 0..<8 { bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next()) }
            try bytes.write(to: file)
            do {
                _ = try open().load()
            } catch let error as TesseraError {
                refused += 1
                #expect([.badData, .io].contains(error.code) && error.file != nil, "\(error)")
            }
        }
        #expect(refused > 0)
    }

    /// A probe needs more room than a full disk leaves, and leaves nothing behind.
    @Test func aProbeWritesAndLeavesNothing() throws {
        let journal = try open()
        try journal.add(Self.job())
        for _ in 0..<3 { try journal.probe() }
        #expect(try journal.load().jobs.map(\.id) == [Self.id])
        let size = try FileManager.default.attributesOfItem(atPath: "\(path)/journal.sqlite-wal")[.size] as? Int
        #expect(try #require(size) > 64 << 10)
        try journal.commit([Self.shard(0)])
    }
}
