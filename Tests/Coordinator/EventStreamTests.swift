import Core
import Foundation
import Journal
import NIOCore
import Protocol
import Synchronization
import TestSupport
import Testing
import Work

@testable import Coordinator

@Suite struct EventStreamTests {
    private static let id = JobID(high: 1, low: 1), other = JobID(high: 2, low: 2)
    private static let worker = WorkerReference(id: 7, name: "w", address: "h")

    private static func attempt(_ shard: Int, of job: JobID = id) -> Attempt {
        Attempt(job: job, shard: shard, epoch: 1, incarnation: 0)
    }

    // MARK: What has changed

    @Test func changesAreKeptUntilTheyAreTaken() {
        var changes = FeedChanges(watched: Self.id)
        #expect(changes.take().isFresh)
        #expect(changes.isEmpty && !changes.take().isFresh)
        changes.note(.leased(Self.attempt(3), Self.worker))
        for bytes in 0..<1000 { changes.note(.progressed(Self.attempt(3), bytesDone: bytes)) }
        changes.note(.progressed(Self.attempt(4, of: Self.other), bytesDone: 1))
        changes.note(.workerLeft(WorkerReference(id: 8, name: "v", address: "h"), reason: "x", isOrderly: true))
        let news = changes.take()
        #expect(news.shards == [3] && news.jobs == [Self.id, Self.other] && news.workers == [7] && news.leftWorkers == [8])
        #expect(!news.changesAllShards && changes.isEmpty)
    }

    @Test func aNewStageAndAnEndChangeAllShards() throws {
        for event in [JobEvent.planned(Self.id, try JobProgressTests.summary([1])), .ended(Self.id, .done, nil)] {
            var changes = FeedChanges(watched: Self.id), others = FeedChanges(watched: Self.other)
            _ = (changes.take(), others.take())
            changes.note(event)
            others.note(event)
            #expect(changes.take().changesAllShards && !others.take().changesAllShards)
        }
    }

    /// A worker that joins and leaves between two messages is told as gone.
    @Test func whoeverLeftIsNotThere() {
        var changes = FeedChanges(watched: nil)
        changes.note(.workerJoined(Self.worker))
        changes.note(.workerLeft(Self.worker, reason: "x", isOrderly: true))
        #expect(changes.workers.isEmpty && changes.leftWorkers == [7])
    }

    // MARK: Shards as numbers

    @Test func shardsAreToldInNumbers() throws {
        var progress = JobProgress(startedAt: .seconds(10))
        progress.apply(.planned(Self.id, try JobProgressTests.summary([10, 20, 30])))
        progress.apply(.leased(Self.attempt(0), Self.worker), at: .seconds(11))
        progress.apply(.failed(Self.attempt(0), Self.worker, TesseraError(.io, "x")), at: .seconds(11.5))
        let second = Attempt(job: Self.id, shard: 0, epoch: 2, incarnation: 0)
        let faster = WorkerReference(id: 9, name: "\"v\"\n", address: "h")
        progress.apply(.leased(second, faster), at: .seconds(12))
        progress.apply(.committed(second, faster, byteCount: 10, .direct), at: .seconds(14))
        progress.apply(.leased(Self.attempt(1), Self.worker), at: .seconds(13))
        progress.apply(.progressed(Self.attempt(1), bytesDone: 5), at: .seconds(13))
        let news = ShardNews(
            job: Self.id, total: 3, firstNew: 0, new: (0..<3).compactMap { progress.shard($0) }, names: progress.names,
            traces: (0..<4).compactMap { progress.trace($0) })
        struct Message: Decodable {
            let job: JobID
            let total, first: Int
            let labels, workers: [String]
            let bytes, tensors: [Int]
            let rows: [[Int]]
        }
        let message = try JSONDecoder().decode(Message.self, from: Data(news.json))
        #expect(message.job == Self.id && message.total == 3 && message.first == 0)
        #expect(message.labels == ["s0", "s1", "s2"] && message.bytes == [10, 20, 30] && message.tensors == [1, 1, 1])
        #expect(message.workers == ["w", "\"v\"\n"] && !news.json.contains(UInt8(ascii: "\n")))
        #expect(
            message.rows == [
                [0, 2, 2, 10, 0, 1000, 500, 2, 1, 2000, 2000, 1], [1, 1, 1, 5, 0, 3000, -1, 0], [2, 0, 0, 0],
            ])
        let row = try #require(progress.row(0))
        #expect(row.begunAfter == 2 && row.seconds == 2 && row.tensors == 1)
    }

    /// Shards that an earlier coordinator committed have the times that the journal knows.
    @Test func keptShardsHaveTheTimesOfTheJournal() throws {
        var progress = JobProgress()
        progress.apply(.planned(Self.id, try JobProgressTests.summary([10, 10])))
        let time = AttemptTime(begun: 2000, lasted: 500)
        progress.apply(
            .kept(Self.id, [KeptShard(shard: 0, worker: "w"), KeptShard(shard: 1, worker: "v", time: time)]), at: .seconds(5))
        #expect(progress.trace(0)?.runs == [ShardRun(worker: 0, begun: nil, lasted: nil, outcome: .committed)])
        #expect(progress.trace(1)?.runs == [ShardRun(worker: 1, begun: 2000, lasted: 500, outcome: .committed)])
        #expect(progress.row(0)?.seconds == nil && progress.row(1)?.seconds == 0.5)
        #expect(progress.bytesPerSecond(at: .seconds(9)) == nil)
    }

    /// Attempts of workers that are gone, and those that were taken back, stay visible, a few of each shard.
    @Test func attemptsThatBroughtNothingAreTold() throws {
        var progress = JobProgress()
        progress.apply(.planned(Self.id, try JobProgressTests.summary([10])))
        for epoch in 1...9 {
            let attempt = Attempt(job: Self.id, shard: 0, epoch: UInt64(epoch), incarnation: 0)
            progress.apply(.leased(attempt, Self.worker), at: .seconds(epoch))
            progress.apply(
                .revoked(attempt, Self.worker, reason: "x", isLost: epoch == 9), at: .seconds(epoch) + .milliseconds(500))
        }
        let runs = try #require(progress.trace(0)?.runs)
        #expect(runs.map(\.begun) == [6000, 7000, 8000, 9000] && runs.map(\.lasted) == [500, 500, 500, 500])
        #expect(runs.map(\.outcome) == [.revoked, .revoked, .revoked, .lost])
        #expect(progress.row(0)?.state == .pending && progress.row(0)?.failures == nil)
    }

    // MARK: The stream

    private struct Reader {
        var messages: AsyncStream<ByteBuffer>.AsyncIterator

        init(_ manager: JobManager, for peer: PeerIdentity, job: JobID? = nil) throws {
            let place = try #require(EventReaders().place())
            messages = EventStream(manager: manager, peer: peer, watched: job, place: place).messages.makeAsyncIterator()
        }

        /// The next message that contains a text; others are passed over.
        mutating func message(with text: String) async throws -> String {
            while let buffer = await messages.next(isolation: #isolation) {
                let message = String(buffer: buffer)
                #expect(message.hasSuffix("\n\n"))
                if message.contains(text) { return message }
            }
            throw TesseraError(.internal, "the stream ended before '\(text)'")
        }
    }

    private static func manager() -> JobManager {
        JobManager(
            settings: .init(inputRoots: .wholeMachine, build: "1.2.3", incarnation: 1), log: .silent, outputs: MemoryOutputStore()
        )
    }

    @Test func everythingIsToldAndThenWhatChanges() async throws {
        let jobs = try TestJobs(), manager = Self.manager()
        let id = try await manager.submit(jobs.submission()).job
        var reader = try Reader(manager, for: .local, job: id)
        #expect(try await reader.message(with: "event: snapshot").contains("1.2.3"))
        #expect(try await reader.message(with: "event: status").contains("\"output\":\"/out\""))
        let shards = try await reader.message(with: "event: shards")
        #expect(shards.contains("\"labels\":[\"layers.0\",\"layers.1\",\"layers.2\"]") && shards.contains("[2,0,0,0]"))
        let worker = await manager.attach(.test("newcomer", threads: 1)) { _ in }
        #expect(try await reader.message(with: "event: status").contains("newcomer"))
        let leased = try await reader.message(with: "event: shards")
        #expect(leased.contains("\"labels\":[]") && leased.contains("\"workers\":[\"newcomer\"]"))
        await manager.detach(worker, reason: "gone")
        #expect(try await reader.message(with: "\"left\":[1]").contains("event: status"))
        try await manager.cancel(id, reason: "enough")
        #expect(try await reader.message(with: "\"state\":\"cancelled\"").contains("\"endedAt\""))
    }

    /// The job port may open later, on one address or on all.
    @Test(arguments: [("10.0.0.3", "10.0.0.3"), ("0.0.0.0", nil), ("::", nil), ("head", "head"), ("::1", "::1")])
    func theJobPortIsTold(listen: String, host: String?) async throws {
        struct Message: Decodable {
            struct JobPort: Decodable {
                let host: String?
                let port: Int
                let isEncrypted: Bool
            }
            let version: String
            let jobPort: JobPort?
        }
        func decode(_ text: String) throws -> Message {
            try JSONDecoder().decode(Message.self, from: Data(text.split(separator: "data: ")[1].utf8))
        }
        let manager = Self.manager()
        var reader = try Reader(manager, for: .local)
        #expect(try decode(try await reader.message(with: "event: snapshot")).jobPort == nil)
        manager.jobPort.withLock { $0 = JobPort(HostPort(host: listen, port: 7), isEncrypted: true) }
        let told = try decode(try await reader.message(with: "event: coordinator"))
        #expect(told.version == "1.2.3" && told.jobPort?.host == host && told.jobPort?.port == 7)
        #expect(told.jobPort?.isEncrypted == true)
        var next = try Reader(manager, for: .local)
        #expect(try decode(try await next.message(with: "event: snapshot")).jobPort?.port == 7)
    }

    /// Of the jobs of others a submitter hears that they are there.
    @Test func othersHearNoDetails() async throws {
        let jobs = try TestJobs(), manager = Self.manager()
        let id = try await manager.submit(jobs.submission(), by: .anyone).job
        let peer = PeerIdentity(name: "x", roles: [.submitter], owner: "x")
        var reader = try Reader(manager, for: peer, job: id)
        let status = try await reader.message(with: "event: status")
        #expect(status.contains("\(id)") && !status.contains("/out"))
        _ = await manager.attach(.test("newcomer", threads: 1)) { _ in }
        var seen = ""
        repeat { seen = try await reader.message(with: "event: ") } while !seen.contains("newcomer") && !seen.contains("shards")
        #expect(!seen.contains("event: shards"))
    }

    /// A reader whose token is removed reads no further.
    @Test func theStreamEndsWithItsReadersToken() async throws {
        let isAdmitted = Mutex(true)
        let stream = EventStream(
            manager: Self.manager(), peer: .local, isAdmitted: { isAdmitted.withLock { $0 } }, watched: nil,
            place: try #require(EventReaders().place()))
        var messages = stream.messages.makeAsyncIterator()
        #expect(await messages.next(isolation: #isolation) != nil)
        isAdmitted.withLock { $0 = false }
        var left = 0
        while await messages.next(isolation: #isolation) != nil { left += 1 }
        #expect(left <= 2)
    }

    @Test func readersAreBounded() {
        let readers = EventReaders()
        var places = (0..<EventReaders.limit).map { _ in readers.place() }
        #expect(places.allSatisfy { $0 != nil } && readers.place() == nil)
        places.removeLast()
        #expect(readers.place() != nil)
    }

    /// A listener that is let go hears nothing more.
    @Test func listenersComeAndGo() {
        let stream = JobEventStream(), heard = Mutex(0)
        do {
            let listener = stream.listen { _ in heard.withLock { $0 += 1 } }
            stream.send(.resumed(Self.id))
            withExtendedLifetime(listener) {}
        }
        stream.send(.resumed(Self.id))
        #expect(heard.withLock { $0 } == 1)
    }

    // MARK: The page

    @Test func thePageMayDoNothingButWhatItIsMadeOf() throws {
        let page = "<style>a{}</style><script>1</script>"
        // openssl dgst -sha256 -binary | base64
        #expect(
            try StatusPage.policy(of: page) == """
                default-src 'none'; script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='; \
                style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='; connect-src 'self'; img-src data:; \
                base-uri 'none'; form-action 'none'; frame-ancestors 'none'
                """)
        #expect(try StatusPage.policy(of: "no elements").contains("script-src 'none'; style-src 'none'"))
    }
}
