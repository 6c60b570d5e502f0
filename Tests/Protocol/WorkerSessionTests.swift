import Core
import Protocol
import TaskVectors
import TensorKernels
import Testing
import Work

@Suite struct WorkerSessionTests {
    private static let attempt = Attempt(job: JobID(high: 1, low: 1), shard: 0, epoch: 1, incarnation: 1)
    private static let lease = Lease(attempt: attempt, milliseconds: 30_000, work: ShardWork(label: "s", files: [], tensors: []))

    private func working() -> WorkerSession {
        var session = WorkerSession(at: .zero)
        _ = session.received(
            .welcome(Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes)),
            at: .zero)
        return session
    }

    private func closing(_ actions: [WorkerSession.Action]) -> TesseraError? {
        guard case .close(let error, _)? = actions.last else { return nil }
        return error
    }

    @Test func aRefusalIsFinal() {
        var session = WorkerSession(at: .zero)
        let error = TesseraError(.protocolMismatch, "another build")
        #expect(session.received(.refusal(Refusal(error)), at: .zero) == [.close(error, isFinal: true)])
        #expect(session.received(.lease(Self.lease), at: .zero) == [])
    }

    @Test func theCoordinatorHasToAnswerInTime() {
        var session = WorkerSession(at: .zero)
        #expect(session.tick(at: .seconds(9), bytesReceived: 0, progress: []) == [])
        #expect(closing(session.tick(at: .seconds(10), bytesReceived: 0, progress: []))?.code == .unreachable)
    }

    @Test func heartbeatsAreSentOnTimeAndNameTheLeases() {
        var session = working()
        #expect(session.received(.lease(Self.lease), at: .seconds(1)) == [.start(Self.lease)])
        let progress = LeaseProgress(attempt: Self.attempt, bytesDone: 7)
        #expect(session.tick(at: .seconds(4), bytesReceived: 0, progress: [progress]) == [])
        #expect(
            session.tick(at: .seconds(5), bytesReceived: 0, progress: [progress]) == [
                .send(.heartbeat(Heartbeat(number: 1, leases: [progress])))
            ])
        #expect(session.tick(at: .seconds(6), bytesReceived: 0, progress: [progress]) == [])
        #expect(session.ended(Self.attempt) == [])
        #expect(
            session.tick(at: .seconds(10), bytesReceived: 0, progress: [progress]) == [
                .send(.heartbeat(Heartbeat(number: 2, leases: [])))
            ])
    }

    /// A worker stops by itself when its lease is over, so that nobody else can be given the shard while it still works.
    @Test func aLeaseThatNobodyConfirmsEndsByItself() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let progress = [LeaseProgress(attempt: Self.attempt, bytesDone: 0)]
        // The coordinator goes on sending, so it is not silent, but confirms no heartbeat.
        for second in 1..<30 {
            _ = session.received(.credit(Credit(bytes: 1)), at: .seconds(second))
            #expect(!session.tick(at: .seconds(second), bytesReceived: 0, progress: progress).contains(.stop(Self.attempt)))
        }
        #expect(session.tick(at: .seconds(30), bytesReceived: 0, progress: progress).contains(.stop(Self.attempt)))
    }

    @Test func aConfirmedHeartbeatRenewsFromWhenItWasSent() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let progress = [LeaseProgress(attempt: Self.attempt, bytesDone: 0)]
        _ = session.tick(at: .seconds(5), bytesReceived: 0, progress: progress)
        // The answer takes twelve seconds; the lease counts from the question.
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 1)), at: .seconds(17))
        _ = session.received(.credit(Credit(bytes: 1)), at: .seconds(34))
        #expect(!session.tick(at: .seconds(34), bytesReceived: 0, progress: progress).contains(.stop(Self.attempt)))
        #expect(session.tick(at: .seconds(35), bytesReceived: 0, progress: progress).contains(.stop(Self.attempt)))
    }

    /// The coordinator repeats an answer while it gets a large frame, behind which heartbeats wait. The leases count from the
    /// message before.
    @Test func aRepeatedAnswerRenewsToo() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        for second in stride(from: 5, through: 90, by: 5) {
            #expect(!session.tick(at: .seconds(second), bytesReceived: second, progress: []).contains(.stop(Self.attempt)))
            // No heartbeat gets through, and none was ever answered.
            _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 0)), at: .seconds(second))
        }
        // From the message at 85 s.
        #expect(!session.tick(at: .seconds(114), bytesReceived: 114, progress: []).contains(.stop(Self.attempt)))
        #expect(session.tick(at: .seconds(115), bytesReceived: 115, progress: []).contains(.stop(Self.attempt)))
    }

    /// Answers may lag by more than an interval: each renews from when its own question was sent.
    @Test func lateAnswersRenewToo() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        for second in [5, 10, 15] { _ = session.tick(at: .seconds(second), bytesReceived: 0, progress: []) }
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 2)), at: .seconds(22))
        #expect(!session.tick(at: .seconds(39), bytesReceived: 0, progress: []).contains(.stop(Self.attempt)))
        // An older answer takes nothing back.
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 1)), at: .seconds(39))
        #expect(session.tick(at: .seconds(40), bytesReceived: 0, progress: []).contains(.stop(Self.attempt)))
    }

    /// Also one that waits to begin, or whose result is still in the queue: until `ended`, the coordinator must not think it
    /// lost.
    @Test func heartbeatsNameEveryLeaseThatHasNotEnded() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let lease = { LeaseProgress(attempt: Self.attempt, bytesDone: $0) }
        #expect(
            session.tick(at: .seconds(5), bytesReceived: 0, progress: []) == [
                .send(.heartbeat(Heartbeat(number: 1, leases: [lease(0)])))
            ])
        _ = session.received(.heartbeatAnswer(HeartbeatAnswer(number: 1)), at: .seconds(5))
        #expect(
            session.tick(at: .seconds(10), bytesReceived: 0, progress: [lease(7)]) == [
                .send(.heartbeat(Heartbeat(number: 2, leases: [lease(7)])))
            ])
        #expect(
            session.tick(at: .seconds(15), bytesReceived: 0, progress: []) == [
                .send(.heartbeat(Heartbeat(number: 3, leases: [lease(7)])))
            ])
    }

    @Test func revokedLeasesStopOnce() {
        var session = working()
        _ = session.received(.lease(Self.lease), at: .zero)
        let revoke = Message.revoke(Revoke(attempt: Self.attempt, reason: "late"))
        #expect(session.received(revoke, at: .zero) == [.stop(Self.attempt)])
        #expect(session.received(revoke, at: .zero) == [])
    }

    /// A lease may be on its way while the worker asks to leave: it counts until the coordinator has confirmed that it was the
    /// last.
    @Test func aDrainingWorkerLeavesAfterItsLastLease() {
        var session = working()
        #expect(session.drain() == [.send(.drain)])
        #expect(session.received(.lease(Self.lease), at: .zero) == [.start(Self.lease)])
        #expect(session.received(.drain, at: .zero) == [])
        #expect(session.ended(Self.attempt) == [.drained])
        #expect(session.tick(at: .seconds(1), bytesReceived: 0, progress: []) == [], "once")
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
        _ = session.received(.credit(Credit(bytes: 1)), at: .seconds(3))
        #expect(closing(session.tick(at: .seconds(23), bytesReceived: 0, progress: [])) == nil)
        #expect(closing(session.tick(at: .seconds(24), bytesReceived: 0, progress: []))?.problem.contains("silent") == true)
    }

    /// Any byte is a sign of life: a frame may take long over a slow link.
    @Test func bytesOfAnUnfinishedFrameKeepTheConnection() {
        var session = working()
        for second in 1...100 {
            #expect(closing(session.tick(at: .seconds(second), bytesReceived: second, progress: [])) == nil)
        }
        #expect(closing(session.tick(at: .seconds(120), bytesReceived: 100, progress: [])) == nil)
        #expect(closing(session.tick(at: .seconds(121), bytesReceived: 100, progress: [])) != nil)
    }

    /// Only as the first answer does nonsense tell that the other side is no coordinator for this build.
    @Test func onlyTheFirstAnswerIsFinal() {
        let cancelled = Message.cancelled(Cancelled(job: JobID(high: 1, low: 1)))
        for message in [Message.drain, cancelled, .hello(Hello(role: .client, build: "", name: ""))] {
            var session = working()
            #expect(session.received(message, at: .zero) == [.close(Self.unexpected(message), isFinal: false)])
        }
        // A lease comes from a coordinator whose welcome has been lost.
        var early = WorkerSession(at: .zero)
        guard case .close(let error, isFinal: false)? = early.received(.lease(Self.lease), at: .zero).last else {
            Issue.record("the lease was taken")
            return
        }
        #expect(error.code == .unreachable && !early.hasMetStranger)
        var strange = WorkerSession(at: .zero)
        let nonsense = strange.garbled(TesseraError(.protocolMismatch, "no frame"))
        #expect(nonsense.last == .close(TesseraError(.protocolMismatch, "no frame"), isFinal: true) && strange.hasMetStranger)
    }

    private static func unexpected(_ message: Message) -> TesseraError {
        TesseraError(.unreachable, "the coordinator sent '\(message.name)', which a worker does not expect")
    }

    /// A flipped bit costs a connection, never a worker.
    @Test(
        arguments: [
            (.damagedHeader, false), (.damagedBody, false), (.outOfOrder(expected: 0, found: 1), false), (.truncated, false),
            (.notTessera("HTTP"), true), (.version(9), true), (.tooLarge(9, limit: 8), true),
        ] as [(FrameError, Bool)])
    func whatEndsAWorker(error: FrameError, isFinalAsFirstAnswer: Bool) {
        var greeting = WorkerSession(at: .zero), working = working()
        #expect(greeting.broke(error) == [.close(error.asTesseraError(isGreeting: true), isFinal: isFinalAsFirstAnswer)])
        #expect(working.broke(error) == [.close(error.asTesseraError(isGreeting: false), isFinal: false)])
        #expect(working.broke(error) == [], "once")
        // Whoever was welcomed before knows that the peer is a coordinator.
        var returning = WorkerSession(at: .zero, trustsPeer: true)
        #expect(returning.broke(error) == [.close(error.asTesseraError(isGreeting: false), isFinal: false)])
    }

    @Test(
        arguments: [
            ("heartbeatMilliseconds", Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 0, credit: 1 << 25)),
            ("heartbeatMilliseconds", Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: .min, credit: 1 << 25)),
            ("heartbeatMilliseconds", Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: .max, credit: 1 << 25)),
            ("credit", Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 1, credit: 8_388_735)),
            ("credit", Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 1, credit: .max)),
        ] as [(String, Welcome)])
    func aWelcomeOutOfBoundsIsRefused(field: String, welcome: Welcome) {
        var session = WorkerSession(at: .zero)
        let error = closing(session.received(.welcome(welcome), at: .zero))
        #expect(error?.code == .protocolMismatch && error?.problem.contains("'\(field)' is ") == true)
    }

    @Test(
        arguments: [
            ("milliseconds", 0, 0, [2]), ("milliseconds", .max, 0, [2]), ("shard", 1, -1, [2]), ("shard", 1, .max, [2]),
            ("shape", 1, 0, [-1]), ("shape", 1, 0, [.max]), ("shape", 1, 0, [1 << 25, 1 << 25]),
            ("shape", 1, 0, [.max, .max, 0]),
        ] as [(String, Int, Int, [Int])])
    func aLeaseOutOfBoundsIsRefused(field: String, milliseconds: Int, shard: Int, shape: [Int]) {
        var session = working()
        let tensor = TensorWork(name: "t", shape: shape, operation: .encode(.compare), sources: [], outputs: [])
        let lease = Lease(
            attempt: Attempt(job: .none, shard: shard, epoch: 1, incarnation: 1), milliseconds: milliseconds,
            work: ShardWork(label: "s", files: [], tensors: [tensor]))
        let error = closing(session.received(.lease(lease), at: .zero))
        #expect(error?.problem.contains("'\(field)' is ") == true, "\(String(describing: error))")
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
