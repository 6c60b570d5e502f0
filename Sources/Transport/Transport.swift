package import Core
import NIOCore
import NIOPosix
package import Protocol

/// Opens connections and ports. The only code that names sockets and their options.
package enum Transport {
    /// Connects to a coordinator.
    ///
    /// - Parameter limits: the frames accepted from the coordinator.
    /// - Throws: `unreachable`, with the reason.
    package static func connect(
        to address: HostPort, timeout: Duration = Limits.connecting, limits: FrameLimits
    ) async throws(TesseraError) -> Connection {
        do {
            return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(TimeAmount(timeout))
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture { try Connection(on: channel, limits: limits) }
                }
        } catch {
            throw TesseraError(.unreachable, "no coordinator answers at \(address): \(reason(error))")
        }
    }

    /// Opens a port.
    ///
    /// - Parameter limit: the largest number of simultaneous connections; further ones are closed at once.
    /// - Throws: `cannotCreate`, with the reason.
    package static func listen(
        on address: HostPort, limit: Int = Limits.connections
    ) async throws(TesseraError) -> Listener {
        let admission = Admission(limit: limit)
        do {
            let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.backlog, value: 256)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                // A client may be silent for hours; one whose host is gone must not hold its place for ever.
                .childChannelOption(.socketOption(.so_keepalive), value: 1)
                .bind(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture { try admission.admit(channel) }
                }
            return Listener(channel: channel, host: address.host)
        } catch {
            throw TesseraError(
                .cannotCreate, "cannot listen on \(address): \(reason(error))",
                advice: "is another coordinator running? choose another --listen")
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
        case ChannelError.connectTimeout: "the connection timed out"
        case is ChannelError, is CancellationError: "the connection was closed"
        default: "\(error)"
        }
    }
}

extension TimeAmount {
    fileprivate init(_ duration: Duration) { self = .milliseconds(Int64(duration / .milliseconds(1))) }
}
