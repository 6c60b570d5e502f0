import Core
import Logging
import NIOCore
import Protocol
import Synchronization
import TestSupport
import Testing
import Transport
import Work
import Worker

/// A worker process with scripted coordinators instead of sockets.
@Suite(.timeLimit(.minutes(15))) struct WorkerServiceTests {
    private static let welcome = Message.welcome(
        Welcome(version: 4, build: "test", session: 1, heartbeatMilliseconds: 5000, credit: Limits.creditBytes))
    private static let refusal = TesseraError(.protocolMismatch, "another build")

    /// Runs a worker whose connections lead to one scripted coordinator after the other.
    ///
    /// - Returns: what ended the worker.
    private func run(_ script: @escaping @Sendable (ScriptedPeer) async throws -> Void) async throws -> any Error {
        let (peers, input) = AsyncStream<ScriptedPeer>.makeStream()
        let settings = WorkerSettings(
            coordinator: HostPort(host: "coordinator", port: 7070), roots: .wholeMachine, name: "w", build: "test",
            memory: WorkerMemory(total: 1 << 30, threads: 1, isConnected: true))
        let service = WorkerService(
            settings: settings,
            connect: {
                let peer = try await ScriptedPeer(limits: .coordinator)
                input.yield(peer)
                return peer.connection
            }, log: .silent)
        let coordinators = Task {
            for await peer in peers {
                guard case .hello = try await peer.next() else { throw TesseraError(.protocolMismatch, "no hello") }
                try await script(peer)
            }
        }
        defer { coordinators.cancel() }
        do {
            try await service.run()
            return TesseraError(.internal, "the worker ended without an error")
        } catch {
            return error
        }
    }

    private final class Counted: Sendable {
        private let count = Atomic(0)

        /// 0, 1, 2 ...
        func next() -> Int { count.add(1, ordering: .relaxed).oldValue }
    }

    /// A flipped bit costs a connection. Only the refusal that comes at last ends the worker.
    @Test(arguments: [2, 20, 64])
    func aDamagedFrameIsAReasonToComeBack(byte: Int) async throws {
        let connections = Counted()
        let end = try await run { peer in
            guard connections.next() < 3 else { return try await peer.send(.refusal(Refusal(Self.refusal))) }
            try await peer.send(Self.welcome)
            var bytes = peer.encoded(try Message.credit(Credit(bytes: 1)).frame())
            let good: UInt8 = bytes.getInteger(at: byte) ?? 0
            bytes.setInteger(good ^ 4, at: byte)
            try await peer.send(bytes: bytes)
        }
        #expect(end as? TesseraError == Self.refusal)
        #expect(connections.next() == 4)
    }

    @Test func aMessageThatMakesNoSenseIsAReasonToComeBack() async throws {
        let connections = Counted()
        let end = try await run { peer in
            guard connections.next() < 1 else { return try await peer.send(.refusal(Refusal(Self.refusal))) }
            try await peer.send(Self.welcome)
            try await peer.send(.cancelled(Cancelled(job: .none)))
        }
        #expect(end as? TesseraError == Self.refusal)
    }

    /// One answer that makes no sense may be damage, three in a row are no coordinator's.
    @Test func anotherProtocolAsTheFirstAnswerIsFinal() async throws {
        let connections = Counted()
        let end = try await run { peer in
            _ = connections.next()
            try await peer.send(bytes: ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\n\r\n"))
        }
        #expect((end as? TesseraError)?.code == .protocolMismatch)
        #expect(connections.next() == 3)
    }

    /// Whatever bit of the very first answer is hit, the worker comes back.
    @Test(arguments: [0, 1, 4, 6, 8, 12, 16, 20, 32, 64])
    func aDamagedWelcomeIsAReasonToComeBack(byte: Int) async throws {
        let connections = Counted()
        let end = try await run { peer in
            let number = connections.next()
            guard number < 4 else { return try await peer.send(.refusal(Refusal(Self.refusal))) }
            var bytes = peer.encoded(try Self.welcome.frame())
            let good: UInt8 = bytes.getInteger(at: byte) ?? 0
            // Twice in a row, and after a welcome twice again.
            if number != 2 { bytes.setInteger(good ^ 4, at: byte) }
            try await peer.send(bytes: bytes)
            if number == 2 { await peer.close() }
        }
        #expect(end as? TesseraError == Self.refusal)
        #expect(connections.next() == 5)
    }
}
