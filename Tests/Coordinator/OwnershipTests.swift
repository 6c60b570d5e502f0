import Core
import Logging
import Protocol
import TestSupport
import Testing
import Transport
import Work

@testable import Coordinator

/// Whose jobs are whose.
@Suite struct OwnershipTests {
    private let jobs: TestJobs
    private let manager: JobManager
    private let store = MemoryOutputStore()
    private let journal = MemoryJournal()

    private static let alice = PeerIdentity(name: "alice", roles: [.submitter], owner: "alice")
    private static let bob = PeerIdentity(name: "bob", roles: [.submitter], owner: "bob")
    private static let viewer = PeerIdentity(name: "eve", roles: [.viewer], owner: "eve")
    private static let chief = PeerIdentity(name: "chief", roles: [.operator], owner: "chief")

    init() throws {
        jobs = try TestJobs()
        manager = Self.manager(store, journal)
    }

    private static func manager(_ store: MemoryOutputStore, _ journal: MemoryJournal) -> JobManager {
        JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "test", incarnation: 1), log: .silent, outputs: store,
            journal: journal)
    }

    private func submit(by peer: PeerIdentity, output: String = "/out", key: String? = nil) async throws -> Submitted {
        var submission = jobs.submission(output: output)
        if let key {
            submission = Submit(
                recipe: submission.recipe, recipeName: submission.recipeName, workingDirectory: submission.workingDirectory,
                output: output, options: submission.options, idempotencyKey: key)
        }
        return try await manager.submit(submission, by: peer)
    }

    private func status(_ id: JobID, for peer: PeerIdentity) async throws -> JobStatus {
        try #require(await manager.status(StatusRequest(job: id), for: peer)?.jobs.first)
    }

    @Test func onlyTheOwnerAndOperatorsCancel() async throws {
        let id = try await submit(by: Self.alice).job
        for stranger in [Self.bob, Self.viewer] {
            let error = await #expect(throws: TesseraError.self) {
                try await manager.cancel(id, reason: "mischief", by: stranger)
            }
            #expect(error?.code == .notAllowed && error?.advice?.contains("owner or an operator") == true)
            #expect(error?.problem == "the job \(id) belongs to 'alice', and \(stranger.title) may not cancel it")
        }
        #expect(try await status(id, for: Self.alice).state == .running)
        try await manager.cancel(id, reason: "enough", by: Self.alice)
        let other = try await submit(by: Self.alice, output: "/other").job
        try await manager.cancel(other, reason: "maintenance", by: Self.chief)
        for (id, words) in [(id, "cancelled by 'alice'"), (other, "cancelled by 'chief'")] {
            let status = try await status(id, for: Self.alice)
            #expect(status.state == .cancelled && status.error?.problem == words)
        }
    }

    /// The log says once who cancels, by the name alone. A second cancel has nothing to do, and is not refused.
    @Test func cancelsAreLoggedOnce() async throws {
        let lines = RecordedLog()
        let manager = JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "test", incarnation: 1), log: lines.logger, outputs: store)
        let id = try await manager.submit(jobs.submission(), by: Self.alice).job
        for _ in 0..<2 { try await manager.cancel(id, reason: "maintenance", by: Self.chief) }
        let cancels = lines.all.filter { $0.message.contains("cancel") }
        #expect(cancels.map(\.message) == ["job to be cancelled", "the job was cancelled before"])
        #expect(cancels.allSatisfy { $0.metadata["by"] == "chief" && $0.metadata["job"] == "\(id)" })
    }

    @Test func othersSeeThatThereIsAJobAndNotWhatItIs() async throws {
        let id = try await submit(by: Self.alice).job
        for peer in [Self.alice, Self.viewer, Self.chief, .local] {
            let seen = try await status(id, for: peer)
            #expect(seen.owner == "alice" && seen.output == "/out" && seen.shardDetails?.count == 3, "\(peer.name)")
        }
        await manager.abandon(id, error: TesseraError(.badData, "secret words", file: "/secret"))
        for seen in [
            try await status(id, for: Self.bob),
            try #require(await manager.status(StatusRequest(), for: Self.bob)?.jobs.first),
            try #require(await manager.status(StatusRequest(prefix: "\(id)"), for: Self.bob)?.jobs.first),
        ] {
            #expect(seen.owner == "alice" && seen.shards.total == 3 && seen.id == id)
            #expect(seen.output == "" && seen.plan == .none && seen.shardDetails == nil)
            #expect(seen.error?.problem.contains("secret") != true && seen.error?.file == nil)
        }
    }

    /// The same key, or the same plan and output, of another owner is another job, which cannot have the same output.
    @Test(arguments: [nil, "nightly"])
    func jobsOfTwoOwnersAreNeverTheSame(key: String?) async throws {
        let first = try await submit(by: Self.alice, key: key).job
        #expect(try await submit(by: Self.alice, key: key).job == first)
        let error = await #expect(throws: TesseraError.self) { try await submit(by: Self.bob, key: key) }
        #expect(error?.code == .temporary && error?.problem == "the job \(first) makes this output already")
        #expect(try await submit(by: Self.bob, output: "/other", key: key).job != first)
    }

    /// One owner cannot take the places of all, nor all together the memory of the process.
    @Test func unfinishedJobsAreBounded() async throws {
        var settings = JobManager.Settings(inputRoots: .wholeMachine, build: "test", incarnation: 1)
        settings.limits.jobs = 4
        settings.limits.jobsOfOwner = 3
        let manager = JobManager(settings: settings, log: .silent, outputs: store)
        func submit(_ number: Int, by peer: PeerIdentity) async throws -> JobID {
            try await manager.submit(jobs.submission(output: "/\(peer.owner)\(number)"), by: peer).job
        }
        var ids: [JobID] = []
        for number in 0..<3 { ids.append(try await submit(number, by: Self.alice)) }
        let own = await #expect(throws: TesseraError.self) { _ = try await submit(3, by: Self.alice) }
        #expect(own?.code == .temporary && own?.problem.contains("'alice' has 3 jobs") == true)
        _ = try await submit(0, by: Self.bob)
        let all = await #expect(throws: TesseraError.self) { _ = try await submit(1, by: Self.bob) }
        #expect(all?.code == .temporary && all?.problem.contains("of 4 in all") == true)
        // The same job again is not another one, and an ended job makes room.
        #expect(try await submit(0, by: Self.alice) == ids[0])
        try await manager.cancel(ids[0], reason: "x", by: Self.alice)
        _ = try await submit(1, by: Self.bob)
    }

    @Test func waitingSubmissionsAreBounded() async throws {
        var settings = JobManager.Settings(inputRoots: .wholeMachine, build: "test", incarnation: 1)
        settings.limits.submissionsOfOwner = 0
        let manager = JobManager(settings: settings, log: .silent, outputs: store)
        let error = await #expect(throws: TesseraError.self) { try await manager.submit(jobs.submission(), by: Self.alice) }
        #expect(error?.code == .temporary && error?.problem.contains("are being planned") == true)
    }

    @Test func planningHasADeadline() async throws {
        var settings = JobManager.Settings(inputRoots: .wholeMachine, build: "test", incarnation: 1)
        settings.planningLimit = .seconds(-1)
        let manager = JobManager(settings: settings, log: .silent, outputs: store)
        let error = await #expect(throws: Problems.self) { try await manager.submit(jobs.submission(), by: Self.alice) }
        #expect(error?.all.contains { $0.problem.contains("planning takes too long") } == true)
    }

    @Test func aPlanThatNobodyWaitsForIsGivenUp() async throws {
        let error = await #expect(throws: Problems.self) {
            try await manager.submit(jobs.submission(), by: Self.alice) { false }
        }
        #expect(error?.all.contains { $0.problem.contains("was given up") } == true)
    }

    @Test(arguments: [(1 << 20, 4096), (1024, 512), (256, 128), (1, 1)])
    func connectionsLeaveDescriptorsForJobs(descriptors: Int, connections: Int) {
        #expect(JobServer.limits(descriptors: descriptors).total == connections)
    }

    /// A restart forgets nobody's rights; jobs of a version without owners belong to operators.
    @Test func ownersOutliveTheCoordinator() async throws {
        let running = try await submit(by: Self.alice).job
        let ended = try await submit(by: Self.bob, output: "/b").job
        try await manager.cancel(ended, reason: "x", by: Self.bob)
        let next = Self.manager(store, journal)
        try await next.resume()
        let error = await #expect(throws: TesseraError.self) { try await next.cancel(running, reason: "x", by: Self.bob) }
        #expect(error?.code == .notAllowed)
        let seen = try #require(await next.status(StatusRequest(), for: Self.bob))
        #expect(seen.jobs.map(\.owner).sorted { $0 ?? "" < $1 ?? "" } == ["alice", "bob"])
        #expect(seen.jobs.map { $0.output.isEmpty } == seen.jobs.map { $0.owner != "bob" })
        try await next.cancel(running, reason: "x", by: Self.alice)
    }
}
