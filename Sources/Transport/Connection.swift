package import Core
package import NIOCore
import NIOSSL
package import Protocol

/// A connection that carries frames, the same at the coordinator, a worker and a client.
package struct Connection: Sendable {
    private let channel: NIOAsyncChannel<Frame, Never>
    private let received: ReceivedBytes
    /// The peer's address when the connection was made: a closed channel has none.
    private let acceptedFrom: SocketAddress?
    /// Known at the end of the TLS handshake; `nil` for a connection without TLS.
    private let handshake: EventLoopFuture<PeerIdentity?>?
    /// At a port that limits its connections.
    private let place: Place?
    /// At a port that receives blocks: memory for their frames.
    private let buffers: FrameBuffers?

    /// Bytes per read: a fraction of a block, so that the bytes are still in the core's cache when they are copied.
    private static let largestRead = 256 << 10

    /// Turns a byte channel into a connection. Must be called on the channel's event loop.
    ///
    /// - Parameters:
    ///   - limits: the frames accepted from the peer.
    ///   - budget: the port's memory for unfinished frames; `nil` for a peer that is trusted with memory.
    package init(on channel: any Channel, limits: FrameLimits, budget: ReceiveBudget? = nil) throws {
        try self.init(on: channel, limits: limits, budget: budget, tls: nil, expects: .none)
    }

    /// - Parameters:
    ///   - tls: encrypts the connection; `nil` for plain bytes.
    ///   - expects: what kind of certificate the peer must present, for errors and for `peer`.
    init(
        on channel: any Channel, limits: FrameLimits, budget: ReceiveBudget?, buffers: FrameBuffers? = nil, tls: NIOSSLHandler?,
        expects: ExpectedCertificate, place: Place? = nil
    ) throws {
        self.buffers = buffers
        self.place = place
        try channel.syncOptions?.setOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 4 << 10, initial: 64 << 10, maximum: Self.largestRead))
        received = ReceivedBytes()
        acceptedFrom = channel.remoteAddress
        if let tls {
            let peer = channel.eventLoop.makePromise(of: PeerIdentity?.self)
            handshake = peer.futureResult
            try channel.pipeline.syncOperations.addHandlers([tls, Handshake(peer: peer, expects: expects)])
        } else {
            handshake = nil
        }
        try channel.pipeline.syncOperations.addHandler(
            FrameHandler(limits: limits, received: received, budget: budget, buffers: buffers))
        self.channel = try NIOAsyncChannel(wrappingChannelSynchronously: channel)
    }

    // MARK: The peer

    /// The peer's IP address, also after the connection has closed; `nil` if there is none.
    package var peerAddress: String? { (channel.channel.remoteAddress ?? acceptedFrom)?.ipAddress }

    /// Whether the peer is on this host.
    package var isLoopback: Bool { peerAddress.map { HostPort(host: $0, port: 0).isLoopback } ?? false }

    /// Waits for the end of the TLS handshake, if the connection has one.
    ///
    /// - Returns: the identity in the peer's certificate, where certificates are asked for.
    /// - Throws: `notAllowed` for a certificate that is refused, `protocolMismatch` for a peer that does not speak TLS 1.3,
    ///   `unreachable` for a connection that ends.
    package func peer() async throws(TesseraError) -> PeerIdentity? {
        do {
            return try await handshake?.get()
        } catch {
            throw Transport.failure(error)
        }
    }

    // MARK: Receiving

    /// Bytes received, including those of unfinished frames.
    package var bytesReceived: Int { received.total }

    /// Admits the peer: changes the accepted frames, and keeps the connection's place. Takes effect before the peer can answer
    /// any frame sent later.
    package func allow(_ limits: FrameLimits) {
        place?.keep()
        channel.channel.triggerUserOutboundEvent(limits, promise: nil)
    }

    /// Calls `body` with the frames that arrive, and closes the connection when it returns.
    ///
    /// - Throws: what `body` throws.
    package func withFrames<Result>(_ body: (FrameStream) async throws -> Result) async throws -> Result {
        let result: Swift.Result<Result, any Error>
        do {
            result = try await channel.executeThenClose { inbound in
                do {
                    return .success(try await body(FrameStream(frames: inbound)))
                } catch {
                    return .failure(error)
                }
            }
        } catch {
            throw Transport.failure(error)
        }
        return try result.get()
    }

    /// Leaves the memory of a received body to the next ones, on any connection of the port.
    package func giveBack(_ body: ByteBuffer) { buffers?.giveBack(body) }

    // MARK: Sending

    /// Queues a message.
    ///
    /// - Parameter urgent: whether the message goes ahead of data even if others of its kind do not.
    /// - Throws: `internal` when the message is too large for a frame.
    package func send(_ message: Message, urgent: Bool = false) throws(TesseraError) { send(try message.frame(urgent: urgent)) }

    /// Queues a frame.
    package func send(_ frame: Frame) { channel.channel.writeAndFlush(frame, promise: nil) }

    /// Queues a frame, and calls `left` once the frame's body is no longer referenced.
    package func send(_ frame: Frame, left: @escaping @Sendable () -> Void) {
        let promise = channel.channel.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { _ in left() }
        channel.channel.writeAndFlush(frame, promise: promise)
    }

    /// Queues a frame and waits until it has been sent.
    ///
    /// - Throws: `unreachable` if the connection ends first.
    package func sendAndWait(_ frame: Frame) async throws(TesseraError) {
        do {
            try await channel.channel.writeAndFlush(frame)
        } catch {
            throw TesseraError(.unreachable, Transport.reason(error))
        }
    }

    /// Whether neither side has closed the connection, as far as is known.
    package var isOpen: Bool { channel.channel.isActive }

    /// Closes the connection. Queued frames are lost.
    package func close() { channel.channel.close(promise: nil) }
}

/// The frames of a connection, until it ends.
///
/// - Throws: `FrameError` for bytes that are not a frame, `unreachable` for a broken connection, `notAllowed` when the peer
///   refuses this side's certificate.
package struct FrameStream: AsyncSequence, Sendable {
    fileprivate let frames: NIOAsyncChannelInboundStream<Frame>

    package struct Iterator: AsyncIteratorProtocol {
        fileprivate var frames: NIOAsyncChannelInboundStream<Frame>.AsyncIterator

        package mutating func next() async throws -> Frame? { try await next(isolation: #isolation) }

        package mutating func next(isolation actor: isolated (any Actor)?) async throws -> Frame? {
            do {
                return try await frames.next(isolation: actor)
            } catch let error as FrameError {
                throw error
            } catch is CancellationError {
                throw CancellationError()
            } catch {
                throw Transport.failure(error)
            }
        }
    }

    package func makeAsyncIterator() -> Iterator { Iterator(frames: frames.makeAsyncIterator()) }
}
