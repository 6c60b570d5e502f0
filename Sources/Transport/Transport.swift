package import Core
import Glibc
import NIOCore
package import NIOPosix
import NIOSSL
package import Protocol
import Synchronization

/// Opens connections and ports. The only code that names sockets and their options.
package enum Transport {
    /// Connects to a coordinator.
    ///
    /// - Parameters:
    ///   - timeout: for the look-up of the name, the connection and the handshake together.
    ///   - tls: how to encrypt the connection and check the coordinator; `nil` for a connection without TLS.
    ///   - limits: the frames accepted from the coordinator.
    ///   - resolver: looks the host's name up, instead of the system.
    /// - Throws: `unreachable`, with the reason; for TLS also what `Connection.peer` throws, and problems of the files.
    package static func connect(
        to address: HostPort, timeout: Duration = Limits.connecting, tls: ClientTLS? = nil, limits: FrameLimits,
        resolver: (any Resolver & Sendable)? = nil
    ) async throws(TesseraError) -> Connection {
        let handler = try tls?.prepare(for: address.host), end = ContinuousClock.now + timeout
        let connection: Connection, isResolved = Mutex(isIPAddress(address.host))
        do {
            connection = try await within(timeout, late: { $0.close() }) {
                try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connectTimeout(TimeAmount(timeout))
                    .resolver(resolver)
                    .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .connect(host: address.host, port: address.port) { channel in
                        isResolved.withLock { $0 = true }
                        return channel.eventLoop.makeCompletedFuture {
                            try Connection(
                                on: channel, limits: limits, budget: nil, tls: try handler?(),
                                expects: tls?.expects(of: address.host) ?? .none)
                        }
                    }
            }
        } catch {
            let hangs = isLate(error) && !isResolved.withLock { $0 }
            let reason = hangs ? "the look-up of the name '\(address.host)' did not end in time" : reason(error)
            throw TesseraError(.unreachable, "no coordinator answers at \(address): \(reason)")
        }
        do {
            // A peer that accepts and says nothing must not hold the handshake for ever.
            _ = try await within(max(.zero, end - .now), late: { _ in }) { try await connection.peer() }
        } catch let error as TesseraError {
            throw error.about(address)
        } catch {
            connection.close()
            throw TesseraError(.unreachable, "no coordinator answers at \(address): \(reason(error))")
        }
        return connection
    }

    /// Opens a port.
    ///
    /// - Parameters:
    ///   - tls: how to encrypt connections and check peers; `nil` for connections without TLS.
    ///   - limits: how many connections there may be. One is a stranger until `Connection.allow`.
    /// - Throws: `cannotCreate`, with the reason.
    package static func listen(
        on address: HostPort, tls: ServerTLS? = nil, limits: ConnectionPlaces.Limits = .init(total: Limits.connections)
    ) async throws(TesseraError) -> Listener {
        let admission = Admission(limits), budget = ReceiveBudget(), buffers = FrameBuffers(limit: Limits.idleBodies)
        do {
            let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.backlog, value: 256)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                // A client may be silent for hours; one whose host is gone must not hold its place for ever.
                .childChannelOption(.socketOption(.so_keepalive), value: 1)
                .bind(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture { () throws -> Connection? in
                        guard let place = admission.place(for: channel) else { return nil }
                        return try Connection(
                            on: channel, limits: .stranger, budget: budget, buffers: buffers,
                            tls: tls.map { NIOSSLServerHandler(context: $0.context) },
                            expects: tls?.needsCertificates == true ? .role : .none, place: place)
                    }
                }
            return Listener(channel: channel, host: address.host)
        } catch {
            throw cannotListen(on: address, error)
        }
    }

    package static func cannotListen(on address: HostPort, _ error: any Error) -> TesseraError {
        let isTaken = (error as? IOError)?.errnoCode == EADDRINUSE
        return TesseraError(
            .cannotCreate, "cannot listen on \(address): \(reason(error))",
            advice: isTaken ? "is another coordinator running? choose another port" : "choose another address or port")
    }

    /// Why a connection broke.
    static func failure(_ error: any Error) -> TesseraError {
        tlsFailure(error) ?? TesseraError(.unreachable, reason(error))
    }

    private static func isLate(_ error: any Error) -> Bool {
        switch error {
        case is DeadlineExceeded, ChannelError.connectTimeout: true
        default: false
        }
    }

    /// The reason why a connection failed or broke, in words.
    static func reason(_ error: any Error) -> String {
        switch error {
        case let error as TesseraError: error.problem
        case let error as NIOConnectionError:
            if let failure = error.connectionErrors.first {
                reason(failure.error)
            } else if error.dnsAError != nil || error.dnsAAAAError != nil {
                "the host name '\(error.host)' cannot be resolved"
            } else {
                "the host cannot be reached"
            }
        case let error as SocketAddressError.FailedToParseIPByteBuffer: "\(error)"
        case SocketAddressError.unknown(let host, _): "the host name '\(host)' cannot be resolved"
        case let error as IOError: systemReason(error.errnoCode)
        case _ where isLate(error): "there was no answer in time"
        case is ChannelError, is CancellationError: "the connection was closed"
        default: "\(error)"
        }
    }
}

extension TimeAmount {
    fileprivate init(_ duration: Duration) { self = .milliseconds(Int64(duration / .milliseconds(1))) }
}
