import Core
import Glibc
import NIOCore
import NIOPosix
import Protocol
import TestSupport
import Testing
import Transport

/// Real sockets on loopback: how connections come about, and what is said when they do not.
@Suite(.timeLimit(.minutes(15))) struct TransportTests {
    private static let anyPort = HostPort(host: "127.0.0.1", port: 0)

    private func failure(connectingTo address: HostPort) async -> TesseraError? {
        do throws(TesseraError) {
            _ = try await Transport.connect(to: address, limits: .coordinator)
            return nil
        } catch {
            return error
        }
    }

    @Test func messagesCross() async throws {
        let listener = try await Transport.listen(on: Self.anyPort)
        let server = Task {
            try await listener.serve { connection, number in
                try? await connection.withFrames { frames in
                    for try await frame in frames { connection.send(frame) }
                }
                #expect(number == 1)
            }
        }
        let connection = try await Transport.connect(to: listener.address, limits: .coordinator)
        try await connection.withFrames { frames in
            var frames = frames.makeAsyncIterator()
            for message in [Message.drain, .goodbye("done")] {
                try connection.send(message)
                #expect(try await frames.next().map(Message.init) == message)
            }
            #expect(connection.bytesReceived == 2 * 64 + 16 + 35)
        }
        listener.close()
        try await server.value
    }

    @Test func refusedConnectionsAreToldInWords() async throws {
        let listener = try await Transport.listen(on: Self.anyPort), address = listener.address
        let server = Task { try await listener.serve { _, _ in } }
        listener.close()
        try await server.value
        let error = await failure(connectingTo: address)
        #expect(error?.code == .unreachable)
        #expect(error?.problem == "no coordinator answers at \(address): the connection was refused")
    }

    @Test func unknownHostsAreToldInWords() async {
        let error = await failure(connectingTo: HostPort(host: "no-such-host.invalid", port: 7070))
        #expect(error?.code == .unreachable)
        let words = [
            "the host name 'no-such-host.invalid' cannot be resolved",
            "the look-up of the name 'no-such-host.invalid' did not end in time",
        ]
        #expect(words.contains { error?.problem.hasSuffix($0) == true }, "\(String(describing: error))")
    }

    /// Finds no address, and never says so.
    private final class HangingResolver: Resolver, Sendable {
        private let loop = MultiThreadedEventLoopGroup.singleton.next()

        func initiateAQuery(host: String, port: Int) -> EventLoopFuture<[SocketAddress]> { never() }
        func initiateAAAAQuery(host: String, port: Int) -> EventLoopFuture<[SocketAddress]> { never() }
        func cancelQueries() {}

        private func never() -> EventLoopFuture<[SocketAddress]> {
            let promise = loop.makePromise(of: [SocketAddress].self)
            // Long after the test: a promise must be kept.
            loop.scheduleTask(in: .minutes(20)) { promise.succeed([]) }
            return promise.futureResult
        }
    }

    @Test func aLookUpThatDoesNotEndIsToldInWords() async {
        let error = await #expect(throws: TesseraError.self) {
            _ = try await Transport.connect(
                to: HostPort(host: "head", port: 7070), timeout: .milliseconds(50), limits: .coordinator,
                resolver: HangingResolver())
        }
        let words = "no coordinator answers at head:7070: the look-up of the name 'head' did not end in time"
        #expect(error?.code == .unreachable && error?.problem == words)
    }

    @Test func aPortInUseIsToldInWords() async throws {
        let listener = try await Transport.listen(on: Self.anyPort), address = listener.address
        let server = Task { try await listener.serve { _, _ in } }
        do throws(TesseraError) {
            _ = try await Transport.listen(on: address)
            Issue.record("the port was opened twice")
        } catch {
            #expect(error.code == .cannotCreate && error.problem == "cannot listen on \(address): the port is in use")
        }
        listener.close()
        try await server.value
    }

    /// Closes with a reset as soon as anything arrives.
    private final class Resetter: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let channel = context.channel
            guard let socket = channel as? any SocketOptionProvider else { return }
            socket.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in channel.close(promise: nil) }
        }
    }

    @Test func aResetConnectionIsToldInWords() async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Resetter()) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let address = HostPort(host: "127.0.0.1", port: server.localAddress?.port ?? 0)
        let connection = try await Transport.connect(to: address, limits: .coordinator)
        try connection.send(.drain)
        let error = await #expect(throws: TesseraError.self) {
            try await connection.withFrames { frames in for try await _ in frames {} }
        }
        #expect(error?.code == .unreachable && error?.problem == "the connection was reset by the other side")
        try await server.close().get()
    }

    @Test(arguments: [(2, 100), (100, 2)])
    func moreConnectionsThanTheLimitAreClosed(limit: Int, perAddress: Int) async throws {
        let listener = try await Transport.listen(
            on: Self.anyPort, limits: .init(total: limit, perAddress: perAddress, strangers: 100))
        let server = Task {
            try await listener.serve { connection, _ in
                connection.allow(.all)
                try? await connection.withFrames { frames in
                    for try await frame in frames { connection.send(frame) }
                }
            }
        }
        /// Whether a message comes back, and so the connection is served; calls `body` before it is closed.
        func isServed(_ body: () async throws -> Void = {}) async throws -> Bool {
            let connection = try await Transport.connect(to: listener.address, limits: .coordinator)
            return try await connection.withFrames { frames in
                var frames = frames.makeAsyncIterator()
                try connection.send(.drain)
                guard let answer = try? await frames.next() else { return false }
                try await body()
                return answer.header.type == .control
            }
        }
        let isFirstServed = try await isServed {
            let isSecondServed = try await isServed {
                let isThirdServed = try await isServed()
                #expect(!isThirdServed)
            }
            #expect(isSecondServed)
            try await eventually("a free place") { try await isServed() }
        }
        #expect(isFirstServed)
        listener.close()
        try await server.value
    }
}
