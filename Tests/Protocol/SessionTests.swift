import Core
import Protocol
import TensorKernels
import Testing
import Work

/// Conversations, without sockets or clocks.
@Suite struct CoordinatorSessionTests {
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
                .send(
                    .welcome(
                        Welcome(version: 2, build: "0.1.0", session: 4, heartbeatMilliseconds: 5000, credit: Limits.creditBytes))),
                .admit(Self.hello()),
            ])
    }

    @Test func aClientIsWelcomedAndMayHaveOtherNumerics() {
        var session = session()
        #expect(session.received(.hello(Self.hello(.client, numerics: 99)), at: .zero).count == 1)
        let request = Message.statusRequest(StatusRequest())
        #expect(session.received(request, at: .zero) == [.request(request)])
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

    @Test(arguments: [(0, 1, false), (3, 9, false), (0, 2, true), (2, 5, true)])
    func versionsHaveToMeet(oldest: Int, newest: Int, isWelcome: Bool) {
        var session = session()
        var hello = Self.hello()
        hello.oldestVersion = oldest
        hello.newestVersion = newest
        let actions = session.received(.hello(hello), at: .zero)
        if isWelcome {
            #expect(actions.count == 2 && !closes(actions, ""))
        } else {
            #expect(closes(actions, "protocol \(oldest) to \(newest)"))
        }
    }

    @Test func aWorkerWithoutThreadsIsRefused() {
        var session = session()
        #expect(closes(session.received(.hello(Self.hello(threads: 0)), at: .zero), "at least one thread"))
    }

    @Test(arguments: [Message.drain, .heartbeat(Heartbeat(number: 1, leases: [])), .statusRequest(StatusRequest())])
    func nothingComesBeforeHello(message: Message) {
        var session = session()
        #expect(closes(session.received(message, at: .zero), "expected hello"))
    }

    @Test func aPeerThatSaysNothingIsClosed() {
        var session = session()
        #expect(session.tick(at: .seconds(9)) == [])
        #expect(closes(session.tick(at: .seconds(10)), "no hello in time"))
        #expect(session.tick(at: .seconds(11)) == [])
    }

    @Test func aSilentWorkerIsClosedAndAnyMessageKeepsItAlive() {
        var session = welcomed(.worker)
        #expect(session.tick(at: .seconds(20)) == [])
        #expect(
            session.received(.heartbeat(Heartbeat(number: 3, leases: [])), at: .seconds(20))
                == [.send(.heartbeatAnswer(HeartbeatAnswer(number: 3))), .renew([])])
        #expect(session.tick(at: .seconds(40)) == [])
        #expect(session.receivedBlock(byteCount: 10, at: .seconds(40)) == [])
        #expect(session.tick(at: .seconds(60)) == [])
        #expect(closes(session.tick(at: .seconds(61)), "no sign of life"))
    }

    @Test func aSilentClientIsLeftAlone() {
        var session = welcomed(.client)
        #expect(session.tick(at: .seconds(100_000)) == [])
    }

    @Test func creditIsGivenBackAndMayNotBeOverdrawn() {
        var session = welcomed(.worker)
        let half = Limits.creditBytes / 2
        #expect(session.receivedBlock(byteCount: half, at: .zero) == [])
        #expect(session.receivedBlock(byteCount: half, at: .zero) == [])
        #expect(session.storedBlock(byteCount: half) == [.send(.credit(Credit(bytes: half)))])
        #expect(session.receivedBlock(byteCount: half, at: .zero) == [])
        #expect(closes(session.receivedBlock(byteCount: 1, at: .zero), "credit"))
    }

    @Test func onlyWorkersSendBlocks() {
        var client = welcomed(.client), stranger = session()
        #expect(closes(client.receivedBlock(byteCount: 1, at: .zero), "only workers"))
        #expect(closes(stranger.receivedBlock(byteCount: 1, at: .zero), "only workers"))
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
}

@Suite struct WorkerSessionTests {
    private static let attempt = Attempt(job: JobID(high: 1, low: 1), shard: 0, epoch: 1, incarnation: 1)
    private static let lease = Lease(attempt: attempt, milliseconds: 30_000, work: ShardWork(label: "s", files: [], tensors: []))

    private func working() -> WorkerSession {
        var session = WorkerSession(at: .zero)
        _ = session.received(
            .welcome(Welcome(version: 2, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: 10)), at: .zero)
        return session
    }

    private func closing(_ actions: [WorkerSession.Action]) -> TesseraError? {
        guard case .close(let error)? = actions.last else { return nil }
        return error
    }

    @Test func aRefusalIsFinal() {
        var session = WorkerSession(at: .zero)
        let error = TesseraError(.protocolMismatch, "another build")
        #expect(session.received(.refusal(Refusal(error)), at: .zero) == [.close(error)])
        #expect(session.received(.lease(Self.lease), at: .zero) == [])
    }

    @Test func theCoordinatorHasToAnswerInTime() {
        var session = WorkerSession(at: .zero)
        #expect(session.tick(at: .seconds(9), progress: []) == [])
        #expect(closing(session.tick(at: .seconds(10), progress: []))?.code == .unreachable)
    }

    @Test func heartbeatsAreSentOnTimeAndNameTheLeases() {
        var session = working()
        #expect(session.received(.lease(Self.lease), at: .seconds(1)) == [.start(Self.lease)])
        let progress = LeaseProgress(attempt: Self.attempt, bytesDone: 7)
        #expect(session.tick(at: .seconds(4), progress: [progress]) == [])
        #expect(
            session.tick(at: .seconds(5), progress: [progress]) == [.send(.heartbeat(Heartbeat(number: 1, leases: [progress])))])
        #expect(session.tick(at: .seconds(6), progress: [progress]) == [])
        #expect(session.ended(Self.attempt) == [])
        #expect(session.tick(at: .seconds(10), progress: [progress]) == [.send(.heartbeat(Heartbeat(number: 2, leases: [])))])
    }

    /// A worker stops by itself when its lease is over, so that nobody else can be given the shard while it still works.
    @Test func aLeaseThatNobodyConfirmsEndsByItself() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let progress = [LeaseProgress(attempt: Self.attempt, bytesDone: 0)]
        // The coordinator goes on sending, so it is not silent, but confirms no heartbeat.
        for second in 1..<30 {
            _ = session.received(.credit(Credit(bytes: 1)), at: .seconds(second))
            #expect(!session.tick(at: .seconds(second), progress: progress).contains(.stop(Self.attempt)))
        }
        #expect(session.tick(at: .seconds(30), progress: progress).contains(.stop(Self.attempt)))
    }

    @Test func aConfirmedHeartbeatRenewsFromWhenItWasSent() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let progress = [LeaseProgress(attempt: Self.attempt, bytesDone: 0)]
        _ = session.tick(at: .seconds(5), progress: progress)
        // The answer takes twelve seconds; the lease counts from the question.
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 1)), at: .seconds(17))
        _ = session.received(.credit(Credit(bytes: 1)), at: .seconds(34))
        #expect(!session.tick(at: .seconds(34), progress: progress).contains(.stop(Self.attempt)))
        #expect(session.tick(at: .seconds(35), progress: progress).contains(.stop(Self.attempt)))
    }

    /// Answers may lag by more than an interval: each renews from when its own question was sent.
    @Test func lateAnswersRenewToo() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        for second in [5, 10, 15] { _ = session.tick(at: .seconds(second), progress: []) }
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 2)), at: .seconds(22))
        #expect(!session.tick(at: .seconds(39), progress: []).contains(.stop(Self.attempt)))
        // An older answer takes nothing back.
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 1)), at: .seconds(39))
        #expect(session.tick(at: .seconds(40), progress: []).contains(.stop(Self.attempt)))
    }

    /// Also one that waits to begin, or whose result is still in the queue: until `ended`, the coordinator must not think it lost.
    @Test func heartbeatsNameEveryLeaseThatHasNotEnded() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let lease = { LeaseProgress(attempt: Self.attempt, bytesDone: $0) }
        #expect(session.tick(at: .seconds(5), progress: []) == [.send(.heartbeat(Heartbeat(number: 1, leases: [lease(0)])))])
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 1)), at: .seconds(5))
        #expect(
            session.tick(at: .seconds(10), progress: [lease(7)]) == [.send(.heartbeat(Heartbeat(number: 2, leases: [lease(7)])))])
        #expect(session.tick(at: .seconds(15), progress: []) == [.send(.heartbeat(Heartbeat(number: 3, leases: [lease(7)])))])
    }

    @Test func revokedLeasesStopOnce() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let revoke = Message.revoke(Revoke(attempt: Self.attempt, reason: "late"))
        #expect(session.received(revoke, at: .zero) == [.stop(Self.attempt)])
        #expect(session.received(revoke, at: .zero) == [])
    }

    /// A lease may be on its way while the worker asks to leave: it counts until the coordinator has confirmed that it was the last.
    @Test func aDrainingWorkerLeavesAfterItsLastLease() {
        var session = working()
        #expect(session.drain() == [.send(.drain)])
        #expect(session.received(.lease(Self.lease), at: .zero) == [.start(Self.lease)])
        #expect(session.received(.drain, at: .zero) == [])
        #expect(session.ended(Self.attempt) == [.drained])
        #expect(session.tick(at: .seconds(1), progress: []) == [], "once")
    }

    @Test func aDrainingWorkerWithoutLeasesLeavesWhenConfirmed() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        _ = session.drain()
        #expect(session.ended(Self.attempt) == [], "another lease may be on its way")
        #expect(session.received(.drain, at: .zero) == [.drained])
        var revoked = working()
        _ = revoked.received(.lease(Self.lease), at: .zero)
        _ = revoked.drain()
        _ = revoked.received(.drain, at: .zero)
        #expect(
            revoked.received(.revoke(Revoke(attempt: Self.attempt, reason: "late")), at: .zero) == [
                .stop(Self.attempt), .drained,
            ])
    }

    @Test func aSilentCoordinatorIsGivenUp() {
        var session = working()
        session.receivedData(at: .seconds(3))
        #expect(closing(session.tick(at: .seconds(23), progress: [])) == nil)
        #expect(closing(session.tick(at: .seconds(24), progress: []))?.problem.contains("silent") == true)
    }

    @Test func whatAWorkerDoesNotExpectEndsTheConnection() {
        for message in [Message.drain, .cancelled(Cancelled(job: .none)), .hello(Hello(role: .worker, build: "", name: ""))] {
            var session = working()
            #expect(closing(session.received(message, at: .zero))?.code == .protocolMismatch)
        }
        var early = WorkerSession(at: .zero)
        #expect(closing(early.received(.lease(Self.lease), at: .zero))?.code == .protocolMismatch)
    }

    @Test func goodbyeIsNoReasonToStayAway() {
        var session = working()
        #expect(closing(session.received(.goodbye("restart"), at: .zero))?.code == .unreachable)
    }

    @Test func waitingGrowsToALimitAndStartsAnew() {
        var backoff = ReconnectBackoff()
        let waits = (0..<12).map { _ in backoff.next(random: 1) }
        #expect(waits.first == .milliseconds(200))
        #expect(zip(waits, waits.dropFirst()).allSatisfy { $0 <= $1 })
        #expect(waits.last == .seconds(10))
        #expect(backoff.next(random: 0) == .seconds(5))
        backoff.succeeded()
        #expect(backoff.next(random: 0) == .milliseconds(100))
    }
}
