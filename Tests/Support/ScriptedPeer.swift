import Core
package import NIOCore
import NIOEmbedded
package import Protocol
import Synchronization
package import Transport

/// The other end of a connection, without a socket: a test sends what it likes, and reads what it is sent.
///
/// As a worker or client it talks to a `ServerConnection`, as a coordinator to a `WorkerService`.
package final class ScriptedPeer: Sendable {
    /// The end of the code under test.
    package let connection: Connection
    private let channel: NIOAsyncTestingChannel
    private let encoder = Mutex(FrameEncoder())
    private let incoming = Mutex(Incoming())

    private struct Incoming {
        var decoder = FrameDecoder()
        var rest = ByteBuffer()
    }

    /// - Parameters:
    ///   - limits: what the end under test accepts at first.
    ///   - address: the peer's IP address.
    package init(limits: FrameLimits, address: String = "192.0.2.1") async throws {
        let channel = NIOAsyncTestingChannel()
        connection = try await channel.testingEventLoop.executeInContext { try Connection(on: channel, limits: limits) }
        try await channel.connect(to: SocketAddress(ipAddress: address, port: 7070)).get()
        self.channel = channel
    }

    // MARK: Sending

    package func send(_ message: Message) async throws { try await send(try message.frame()) }

    package func send(_ frame: Frame) async throws { try await send(bytes: encoded(frame)) }

    package func send(bytes: ByteBuffer) async throws {
        do {
            try await channel.writeInbound(bytes)
        } catch is FrameError {
            // The other end's affair.
        }
    }

    /// The bytes of the frame that is next in the sequence, for tests that damage them.
    package func encoded(_ frame: Frame) -> ByteBuffer {
        var bytes = encoder.withLock { $0.encodeHeader(of: frame) }
        bytes.writeImmutableBuffer(frame.body)
        return bytes
    }

    /// Takes nothing more from the other end, as a peer that does not read.
    package func stopReading() async throws {
        try await channel.testingEventLoop.executeInContext {
            self.channel.isWritable = false
            self.channel.pipeline.fireChannelWritabilityChanged()
        }
    }

    /// Ends the connection, as a process that is killed.
    package func close() async { try? await channel.close().get() }

    // MARK: Receiving

    /// Waits for the next frame.
    ///
    /// - Throws: when the connection is closed.
    package func nextFrame() async throws -> Frame {
        while true {
            let frame = try incoming.withLock { incoming throws in try incoming.decoder.next(in: &incoming.rest) }
            if let frame { return frame }
            let bytes = try await channel.waitForOutboundWrite(as: ByteBuffer.self)
            incoming.withLock { $0.rest = bytes }
        }
    }

    package func next() async throws -> Message { try Message(try await nextFrame()) }

    /// Waits for the next message that `pick` takes, and drops those before.
    package func next<Result>(_ pick: (Message) -> Result?) async throws -> Result {
        while true {
            if let result = pick(try await next()) { return result }
        }
    }

    /// All messages until the connection is closed.
    package func messagesToEnd() async -> [Message] {
        var messages: [Message] = []
        while let message = try? await next() { messages.append(message) }
        return messages
    }
}

extension ScriptedPeer {
    /// Greets a coordinator as a worker, and waits for its welcome.
    package func join(name: String = "scripted", threads: Int = 1) async throws {
        try await send(.hello(Hello(role: .worker, build: "test", name: name, threads: threads, memory: 1 << 40)))
        try await next { if case .welcome = $0 { () } else { nil } }
    }

    package func nextLease() async throws -> Lease {
        try await next { if case .lease(let lease) = $0 { lease } else { nil } }
    }
}
