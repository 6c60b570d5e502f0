import Core
import Engine
import Protocol
import Synchronization
import TestSupport
import Testing
import Transport

/// A coordinator that stands still holds no command for ever.
@Suite struct ClientDeadlineTests {
    @Test(arguments: [(false, 5.0), (true, 60)])
    func aCoordinatorThatDoesNotAnswerIsGivenUp(isWelcomed: Bool, seconds: Double) async throws {
        let clock = HandClock(), peer = try await ScriptedPeer(limits: .messages)
        let asking = Task {
            try await CoordinatorClient.connect(
                to: CoordinatorAddress(HostPort(host: "coordinator", port: 7070), timeout: .seconds(seconds)), time: clock.source,
                dial: { () async throws(TesseraError) -> Connection in peer.connection }
            ) { client in try await client.status() }
        }
        guard case .hello = try await peer.next() else {
            Issue.record("no hello")
            return
        }
        if isWelcomed {
            try await peer.send(
                .welcome(
                    Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes)))
            guard case .statusRequest = try await peer.next() else {
                Issue.record("no request")
                return
            }
        }
        try await eventually("a deadline") { clock.sleeperCount == 1 }
        clock.advance(by: .seconds(seconds - 1))
        #expect(clock.sleeperCount == 1)
        clock.advance(by: .seconds(1))
        let error = await #expect(throws: TesseraError.self) { _ = try await asking.value }
        #expect(
            error?.code == .unreachable
                && error?.problem == "the coordinator coordinator:7070 did not answer within \(Quantity.seconds(seconds))")
    }

    private static let welcome = Message.welcome(
        Welcome(version: 4, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes))

    /// One that greets and does no more is not waited for as one that was lost.
    @Test func aCoordinatorThatOnlyGreetsIsGivenUp() async throws {
        let clock = HandClock(), peer = try await ScriptedPeer(limits: .messages), dials = Mutex(0)
        let asking = Task {
            try await CoordinatorClient.reconnecting(
                to: CoordinatorAddress(HostPort(host: "head", port: 7070), timeout: .seconds(5)), time: clock.source,
                dial: { () async throws(TesseraError) -> Connection in
                    dials.withLock { $0 += 1 }
                    return peer.connection
                }, remark: { _ in }
            ) { client in try await client.checkAnswers() }
        }
        _ = try await peer.next()
        try await peer.send(Self.welcome)
        _ = try await peer.next()
        try await eventually("a deadline") { clock.sleeperCount == 1 }
        clock.advance(by: .seconds(5))
        let error = await #expect(throws: TesseraError.self) { _ = try await asking.value }
        #expect(error?.code == .unreachable && error?.problem.contains("head:7070 did not answer within") == true)
        #expect(dials.withLock { $0 } == 1)
    }

    /// A plan may take minutes, which is said.
    @Test func aSlowAnswerIsRemarkedOn() async throws {
        let clock = HandClock(), peer = try await ScriptedPeer(limits: .messages), remarks = Mutex<[String]>([])
        let id = JobID(high: 1, low: 2)
        let asking = Task {
            try await CoordinatorClient.connect(
                to: CoordinatorAddress(HostPort(host: "head", port: 7070), timeout: .seconds(5)), time: clock.source,
                dial: { () async throws(TesseraError) -> Connection in peer.connection },
                remark: { text in remarks.withLock { $0.append(text) } }
            ) { client in
                try await client.submit(
                    Submit(recipe: "", recipeName: "r", workingDirectory: "/", output: "/out", options: JobOptions()))
            }
        }
        _ = try await peer.next()
        try await peer.send(Self.welcome)
        _ = try await peer.next()
        try await eventually("a deadline, and a remark that is due") { clock.sleeperCount == 2 }
        #expect(remarks.withLock { $0.isEmpty })
        clock.advance(by: .seconds(5))
        try await eventually("a remark") { remarks.withLock { $0.count } == 1 }
        #expect(remarks.withLock { $0[0] }.hasPrefix("still waiting for the coordinator's answer"))
        try await peer.send(.submitted(Submitted(job: id, remarks: [])))
        #expect(try await asking.value.job == id)
    }
}
