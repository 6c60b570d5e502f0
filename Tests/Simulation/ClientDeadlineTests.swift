import Core
import Engine
import Protocol
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
                    Welcome(version: 2, build: "b", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes)))
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
            error?.code == .unreachable && error?.problem == "the coordinator did not answer within \(Quantity.seconds(seconds))")
    }
}
