import Core
import Protocol
import TaskVectors
import TensorKernels
import Testing
import Work

/// Conversations, without sockets or clocks.
@Suite struct CoordinatorSessionTests {
    private static let attempt = Attempt(job: JobID(high: 1, low: 1), shard: 0, epoch: 1, incarnation: 1)

    private static func hello(_ role: Hello.Role = .worker, numerics: Int? = nil, threads: Int = 2) -> Hello {
        var hello = Hello(role: role, build: "0.1.0", name: "w", threads: threads, memory: 1)
        if let numerics { hello.numericsVersion = numerics }
        return hello
    }

    private func session() -> CoordinatorSession { CoordinatorSession(number: 4, build: "0.1.0", at: .zero) }

    private func welcomed(_ role: Hello.Role) -> CoordinatorSession {
        var session = session()
        _ = session.received(.hello(Self.hello(role)), at: .zero)
        return session
    }

    private func closes(_ actions: [CoordinatorSession.Action], _ words: String) -> Bool {
        guard case .close(let reason)? = actions.last else { return false }
        return reason.contains(words)
    }

    @Test func aWorkerIsWelcomedAndAdmitted() {
        var session = session()
        let actions = session.received(.hello(Self.hello()), at: .zero)
        #expect(
            actions == [
                .allow(.worker),
                .send(
                    .welcome(
                        Welcome(
                            version: 4, build: "0.1.0", session: 4, heartbeatMilliseconds: 5000,
                            credit: Limits.creditBytes))),
                .admit(Self.hello()),
            ])
    }

    @Test func aClientIsWelcomedAndMayHaveOtherNumerics() {
        var session = session()
        #expect(session.received(.hello(Self.hello(.client, numerics: 99)), at: .zero).first == .allow(.messages))
        let request = Message.statusRequest(StatusRequest())
        #expect(session.received(request, at: .zero) == [.request(request, of: .anyone)])
        #expect(closes(session.received(.drain, at: .zero), "does not say this"))
        #expect(session.received(request, at: .zero) == [])
    }

    @Test func aWorkerOfAnotherBuildIsRefusedWithBothNames() {
        var session = session()
        var hello = Self.hello(numerics: 99)
        hello.build = "0.2.0"
        let actions = session.received(.hello(hello), at: .zero)
        guard case .send(.refusal(let refusal))? = actions.first else {
            Issue.record("\(actions)")
            return
        }
        #expect(refusal.error.code == .protocolMismatch)
        #expect(refusal.error.problem.contains("numerics 99 (build 0.2.0)"))
        #expect(refusal.error.problem.contains("with \(Self.hello().numericsVersion) (build 0.1.0)"))
        #expect(closes(actions, "numerics"))
    }

    private static let version = Int(FrameHeader.protocolVersion)

    @Test(
        arguments: [
            (0, version - 1, false), (version + 1, version + 5, false), (0, version, true), (version, version + 3, true),
        ])
    func versionsHaveToMeet(oldest: Int, newest: Int, isWelcome: Bool) {
        var session = session()
        var hello = Self.hello()
        hello.oldestVersion = oldest
        hello.newestVersion = newest
        let actions = session.received(.hello(hello), at: .zero)
        if isWelcome {
            #expect(actions.count == 3 && !closes(actions, ""))
        } else {
            #expect(closes(actions, "protocol \(oldest) to \(newest)"))
        }
    }

    @Test func aWorkerWithoutThreadsIsRefused() {
        var session = session()
        #expect(closes(session.received(.hello(Self.hello(threads: 0)), at: .zero), "'threads' is 0; it must be from 1 to 16384"))
    }

    @Test(arguments: [Message.drain, .heartbeat(Heartbeat(number: 1, leases: [])), .statusRequest(StatusRequest())])
    func nothingComesBeforeHello(message: Message) {
        var session = session()
        #expect(closes(session.received(message, at: .zero), "expected hello"))
    }

    @Test func aPeerThatSaysNothingIsClosed() {
        var session = session()
        #expect(session.tick(at: .seconds(9), bytesReceived: 0) == [])
        #expect(closes(session.tick(at: .seconds(10), bytesReceived: 0), "no hello in time"))
        #expect(session.tick(at: .seconds(11), bytesReceived: 0) == [])
    }

    @Test func aSilentWorkerIsClosedAndAnyMessageKeepsItAlive() {
        var session = welcomed(.worker)
        #expect(session.tick(at: .seconds(10), bytesReceived: 0) == [])
        #expect(session.tick(at: .seconds(11), bytesReceived: 0) == [.silent], "after two intervals")
        #expect(session.tick(at: .seconds(20), bytesReceived: 0) == [])
        #expect(
            session.received(.heartbeat(Heartbeat(number: 3, leases: [])), at: .seconds(20))
                == [.send(.heartbeatAnswer(HeartbeatAnswer(number: 3))), .renew([], waiting: [])])
        #expect(session.tick(at: .seconds(30), bytesReceived: 0) == [.heard])
        #expect(session.tick(at: .seconds(40), bytesReceived: 0) == [.silent])
        #expect(session.receivedBlock(byteCount: 10, of: Self.attempt, at: .seconds(40)) == [.store])
        #expect(session.tick(at: .seconds(41), bytesReceived: 0) == [.heard])
        #expect(session.tick(at: .seconds(60), bytesReceived: 0) == [.silent])
        #expect(closes(session.tick(at: .seconds(61), bytesReceived: 0), "no sign of life"))
    }

    @Test func aClientMayBeSilentForSomeMinutes() {
        var session = welcomed(.client)
        #expect(session.tick(at: Limits.idleClient, bytesReceived: 0) == [])
        let request = Message.statusRequest(StatusRequest())
        #expect(session.received(request, at: Limits.idleClient) == [.request(request, of: .anyone)])
        #expect(session.tick(at: Limits.idleClient * 2, bytesReceived: 0) == [])
        #expect(closes(session.tick(at: Limits.idleClient * 2 + .seconds(1), bytesReceived: 0), "no request for a long time"))
    }

    @Test func creditIsGivenBackAndMayNotBeOverdrawn() {
        var session = welcomed(.worker)
        let half = Limits.creditBytes / 2
        #expect(session.receivedBlock(byteCount: half, of: Self.attempt, at: .zero) == [.store])
        #expect(session.receivedBlock(byteCount: half, of: Self.attempt, at: .zero) == [.store])
        #expect(session.storedBlock(byteCount: half, of: Self.attempt) == [.send(.credit(Credit(bytes: half)))])
        #expect(session.receivedBlock(byteCount: half, of: Self.attempt, at: .zero) == [.store])
        #expect(closes(session.receivedBlock(byteCount: 1, of: Self.attempt, at: .zero), "credit"))
    }

    @Test func onlyWorkersSendBlocks() {
        var client = welcomed(.client), stranger = session()
        #expect(closes(client.receivedBlock(byteCount: 1, of: Self.attempt, at: .zero), "only workers"))
        #expect(closes(stranger.receivedBlock(byteCount: 1, of: Self.attempt, at: .zero), "only workers"))
    }

    @Test(arguments: [(-1, 5), (0, 0), (0, Limits.fetchBytes + 1), (0, -5), (96, 5), (0, 101), (Int.max, 5), (Int.max - 1, 1)])
    func fetchesBeyondTheLimitsAreAnsweredWithAnError(offset: Int, length: Int) throws {
        var session = welcomed(.worker)
        let digest = try Digest.sha256(of: [])
        let request = FetchRequest(
            request: 6, file: InputFile(path: "f", size: 100, headerDigest: digest), offset: offset, length: length)
        guard case .send(.fetchFailed(let failed))? = session.received(.fetch(request), at: .zero).first else {
            Issue.record("the fetch was taken")
            return
        }
        #expect(failed.request == 6)
    }

    // MARK: Numbers that a peer names

    private static func changed(_ change: (inout Hello) -> Void) -> Hello {
        var hello = hello()
        change(&hello)
        return hello
    }

    @Test(
        arguments: [
            ("threads", changed { $0.threads = .max }), ("threads", changed { $0.threads = 1 << 46 }),
            ("threads", changed { $0.threads = -1 }),
            ("memory", changed { $0.memory = .min }), ("memory", changed { $0.memory = .max }),
            ("tensorMemory", changed { $0.tensorMemory = .min }),
            ("tensorMemory", changed { $0.tensorMemory = 2 }), ("oldestVersion", changed { $0.oldestVersion = .min }),
            ("newestVersion", changed { $0.newestVersion = .max }), ("numericsVersion", changed { $0.numericsVersion = .max }),
            ("name", changed { $0.name = String(repeating: "n", count: 129) }), ("name", changed { $0.name = "\u{1b}[2J" }),
            ("build", changed { $0.build = String(repeating: "ä", count: 65) }),
        ])
    func aHelloOutOfBoundsIsRefused(field: String, hello: Hello) {
        var session = session()
        guard case .send(.refusal(let refusal))? = session.received(.hello(hello), at: .zero).first else {
            Issue.record("the hello was taken")
            return
        }
        #expect(refusal.error.code == .protocolMismatch && refusal.error.problem.contains("'\(field)' "))
    }

    @Test(
        arguments: [
            ("bytesDone", .heartbeat(Heartbeat(number: 1, leases: [LeaseProgress(attempt: attempt, bytesDone: -1)]))),
            ("bytesDone", .heartbeat(Heartbeat(number: 1, leases: [LeaseProgress(attempt: attempt, bytesDone: .max)]))),
            ("shard", .heartbeat(Heartbeat(number: 1, leases: [LeaseProgress(attempt: far, bytesDone: 1)]))),
            ("number", .heartbeat(Heartbeat(number: -1, leases: []))),
            ("shard", .shardFailed(ShardFailed(attempt: far, error: TesseraError(.io, "")))),
            (
                "problem",
                .shardFailed(ShardFailed(attempt: attempt, error: TesseraError(.io, String(repeating: "x", count: 65_537))))
            ),
            (
                "statistics",
                .shardDone(
                    ShardDone(
                        attempt: attempt,
                        result: ShardResult(digests: [], statistics: [.encoding(.grids([GridErrors(energy: 1e300, errors: [])]))])
                    ))
            ),
            ("content", .goodbye(String(repeating: "x", count: 4097))),
        ] as [(String, Message)])
    func aWorkerOutOfBoundsIsClosed(field: String, message: Message) {
        var session = welcomed(.worker)
        let actions = session.received(message, at: .zero)
        #expect(closes(actions, "'\(field)' ") && isViolation(actions))
    }

    /// What counts against the shards that the worker has, and what says nothing of them.
    @Test func violationsAreToldFromOtherEnds() {
        var worker = welcomed(.worker), silent = welcomed(.worker), client = welcomed(.client), stranger = session()
        #expect(isViolation(worker.violated("no message")))
        #expect(worker.violated("no message") == [.close(reason: "no message")], "once")
        #expect(silent.tick(at: .seconds(600), bytesReceived: 0) == [.close(reason: "no sign of life")])
        #expect(client.violated("no message") == [.close(reason: "no message")])
        #expect(stranger.violated("no message") == [.close(reason: "no message")])
    }

    private func isViolation(_ actions: [CoordinatorSession.Action]) -> Bool {
        guard case .violation? = actions.first, case .close? = actions.last else { return false }
        return true
    }

    private static let far = Attempt(job: .none, shard: -1, epoch: 1, incarnation: 1)

    /// A client is told, and may ask for something else.
    @Test(arguments: [
        ("output", Submit(recipe: "", recipeName: "r", workingDirectory: "/", output: "a\0b", options: JobOptions())),
        (
            "workingDirectory",
            Submit(
                recipe: "", recipeName: "r", workingDirectory: String(repeating: "d", count: 4097), output: "o",
                options: JobOptions())
        ),
        (
            "shardBytes",
            Submit(recipe: "", recipeName: "r", workingDirectory: "/", output: "o", options: JobOptions(shardBytes: .max))
        ),
        (
            "maxPartBytes",
            Submit(recipe: "", recipeName: "r", workingDirectory: "/", output: "o", options: JobOptions(maxPartBytes: -1))
        ),
    ])
    func aJobOutOfBoundsIsNotTaken(field: String, submission: Submit) {
        var session = welcomed(.client)
        guard case .send(.failure(let failure))? = session.received(.submit(submission), at: .zero).first else {
            Issue.record("the job was taken")
            return
        }
        #expect(failure.problems.first?.problem.contains("'\(field)' ") == true)
        #expect(
            session.received(.statusRequest(StatusRequest()), at: .zero) == [
                .request(.statusRequest(StatusRequest()), of: .anyone)
            ])
    }

    @Test(
        arguments: [
            ("after", StatusRequest(after: .max)), ("after", StatusRequest(after: -1)), ("limit", StatusRequest(limit: .min)),
            ("workersAfter", StatusRequest(workersAfter: .max)),
            ("waitMilliseconds", StatusRequest(waitMilliseconds: 1001)),
            ("waitMilliseconds", StatusRequest(waitMilliseconds: -1)),
            ("prefix", StatusRequest(prefix: String(repeating: "0", count: 129))),
        ])
    func aStatusRequestOutOfBoundsIsAFailure(field: String, request: StatusRequest) {
        var session = welcomed(.client)
        guard case .send(.failure(let failure))? = session.received(.statusRequest(request), at: .zero).first else {
            Issue.record("the request was taken")
            return
        }
        #expect(failure.problems.first?.problem.contains("'\(field)' ") == true)
    }

    // MARK: Blocks beside everything else

    private static let done = ShardDone(attempt: attempt, result: ShardResult(digests: []))

    @Test func aResultWaitsForItsBlocks() {
        var session = welcomed(.worker)
        let other = Attempt(job: Self.attempt.job, shard: 1, epoch: 1, incarnation: 1)
        for _ in 0..<2 { #expect(session.receivedBlock(byteCount: 10, of: Self.attempt, at: .zero) == [.store]) }
        #expect(session.receivedBlock(byteCount: 10, of: other, at: .zero) == [.store])
        #expect(session.received(.shardDone(Self.done), at: .zero) == [])
        #expect(session.storedBlock(byteCount: 10, of: other) == [.send(.credit(Credit(bytes: 10)))])
        #expect(session.storedBlock(byteCount: 10, of: Self.attempt) == [.send(.credit(Credit(bytes: 10)))])
        #expect(
            session.storedBlock(byteCount: 10, of: Self.attempt) == [.send(.credit(Credit(bytes: 10))), .finished(Self.done)])
        #expect(session.received(.shardDone(Self.done), at: .zero) == [.finished(Self.done)], "nothing to wait for")
    }

    /// The worker has nothing more to do for such a lease and names it no longer.
    @Test func theLeaseOfAHeldResultIsRenewed() {
        var session = welcomed(.worker)
        let progress = LeaseProgress(attempt: Self.attempt, bytesDone: 7)
        _ = session.receivedBlock(byteCount: 10, of: Self.attempt, at: .zero)
        _ = session.received(.heartbeat(Heartbeat(number: 1, leases: [progress])), at: .zero)
        _ = session.received(.shardDone(Self.done), at: .zero)
        for second in stride(from: 5, through: 60, by: 5) {
            let beat = Message.heartbeat(Heartbeat(number: second, leases: []))
            #expect(
                session.received(beat, at: .seconds(second)) == [
                    .send(.heartbeatAnswer(HeartbeatAnswer(number: second))), .renew([progress], waiting: [Self.attempt]),
                ])
            #expect(session.tick(at: .seconds(second), bytesReceived: 0) == [])
        }
        _ = session.storedBlock(byteCount: 10, of: Self.attempt)
        let beat = Message.heartbeat(Heartbeat(number: 99, leases: []))
        #expect(session.received(beat, at: .seconds(61)).last == .renew([], waiting: []))
    }

    /// A drained worker leaves behind its last result, not before it counts.
    @Test func goodbyeWaitsForHeldResults() {
        var session = welcomed(.worker)
        _ = session.receivedBlock(byteCount: 10, of: Self.attempt, at: .zero)
        _ = session.received(.shardDone(Self.done), at: .zero)
        #expect(session.received(.goodbye("drained"), at: .zero) == [])
        #expect(
            session.storedBlock(byteCount: 10, of: Self.attempt) == [
                .send(.credit(Credit(bytes: 10))), .finished(Self.done), .close(reason: "drained"),
            ])
        #expect(session.received(.drain, at: .zero) == [])
    }

    @Test func aFailedShardIsNotFinishedLater() {
        var session = welcomed(.worker)
        _ = session.receivedBlock(byteCount: 10, of: Self.attempt, at: .zero)
        _ = session.received(.shardDone(Self.done), at: .zero)
        let failed = ShardFailed(attempt: Self.attempt, error: TesseraError(.io, "disk"))
        #expect(session.received(.shardFailed(failed), at: .zero) == [.failed(failed)])
        #expect(session.storedBlock(byteCount: 10, of: Self.attempt) == [.send(.credit(Credit(bytes: 10)))])
    }

    @Test func bytesOfAnUnfinishedFrameAreASignOfLife() {
        var session = welcomed(.worker)
        for second in 1...100 { #expect(!closes(session.tick(at: .seconds(second), bytesReceived: second), "")) }
        #expect(session.tick(at: .seconds(120), bytesReceived: 100) == [.silent])
        #expect(closes(session.tick(at: .seconds(121), bytesReceived: 100), "no sign of life"))
    }

    /// Heartbeats wait behind a frame that takes minutes: the coordinator says by itself that it hears the worker.
    @Test func aLargeFrameIsAnsweredWhileItArrives() {
        var session = welcomed(.worker)
        _ = session.received(.heartbeat(Heartbeat(number: 3, leases: [])), at: .seconds(5))
        let answer: [CoordinatorSession.Action] = [.send(.heartbeatAnswer(HeartbeatAnswer(number: 3))), .heard]
        var answers: [Int] = []
        for second in 6...60 {
            let actions = session.tick(at: .seconds(second), bytesReceived: second)
            if actions == answer { answers.append(second) } else { #expect(actions == []) }
        }
        #expect(answers == [13, 21, 29, 37, 45, 53])
    }

    /// A process that stood still heard nothing, which says nothing about its peers.
    @Test func aPauseOfThisProcessIsNoSilence() {
        var worker = welcomed(.worker), client = welcomed(.client), greeting = session()
        for round in 1...3 {
            let now = Duration.seconds(600 * round)
            worker.stoodStill(for: .seconds(599))
            client.stoodStill(for: .seconds(599))
            greeting.stoodStill(for: .seconds(599))
            #expect(worker.tick(at: now, bytesReceived: 0) == [])
            #expect(client.tick(at: now, bytesReceived: 0) == [])
            #expect(greeting.tick(at: now, bytesReceived: 0) == [])
        }
        #expect(closes(greeting.tick(at: .seconds(1810), bytesReceived: 0), "no hello in time"))
        #expect(closes(worker.tick(at: .seconds(1830), bytesReceived: 0), "no sign of life"))
    }

    @Test func fewFetchesAreAnsweredAtOnce() throws {
        var session = welcomed(.worker)
        let file = InputFile(path: "f", size: 100, headerDigest: try Digest.sha256(of: []))
        let requests = (0..<10).map { FetchRequest(request: $0, file: file, offset: 0, length: 1) }
        let actions = requests.flatMap { session.received(.fetch($0), at: .zero) }
        #expect(actions == requests.prefix(8).map { .fetch($0) })
        #expect(session.answeredFetch() == [.fetch(requests[8])])
        #expect(session.answeredFetch() == [.fetch(requests[9])])
        for _ in 0..<8 { #expect(session.answeredFetch() == []) }
        #expect(session.received(.fetch(requests[0]), at: .zero) == [.fetch(requests[0])])
    }
}
