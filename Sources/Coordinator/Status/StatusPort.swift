import FoundationEssentials
import HTTPTypes
import Hummingbird
import HummingbirdCore
package import Logging
import NIOCore
import NIOHTTP1
package import Protocol
package import ServiceLifecycle
import Transport

/// The status port: HTTP for people and programs, read-only, apart from the job port.
package enum StatusPort {
    /// - Parameters:
    ///   - hosts: further names that the `Host` header of a request may have.
    ///   - security: as at the job port; what a client may see there is seen here. `/healthz` and `/readyz` need no role and no
    ///     token.
    ///   - onListening: told the address once the port is open.
    /// - Throws: what is wrong with a TLS file.
    package static func service(
        manager: JobManager, address: HostPort, hosts: [String] = [], security: JobPortSecurity = .open, log: Logger,
        onListening: @escaping @Sendable (HostPort) -> Void
    ) throws -> any Service {
        let access = StatusGuard(
            hosts: Set((hosts + [address.host]).map { $0.lowercased() }), security: security, refusals: manager.refusals)
        // The library logs orderly ends as errors.
        var log = log
        log.logLevel = .critical
        let application = Application(
            router: try StatusRoutes(manager: manager).router(access),
            server: HTTPServerBuilder { responder in
                StatusChannel(
                    http: HTTP1Channel(responder: responder, configuration: .init(httpDecoderConfiguration: headLimits)),
                    tls: security.tls, admission: Admission(places, local: localPlaces), refusals: manager.refusals)
            },
            configuration: ApplicationConfiguration(
                address: .hostname(address.host, port: address.port), serverName: "tessera"),
            onServerRunning: { channel in
                onListening(HostPort(host: address.host, port: channel.localAddress?.port ?? address.port))
            },
            logger: log)
        return StatusService(application: application, address: address)
    }

    /// Connections at the same time, so few that they take no descriptors from jobs. One that waits for a request gives its
    /// place to the next.
    private static let places = ConnectionPlaces.Limits(total: 96, perAddress: 32, strangers: 96)
    /// For probes and people on this host, whatever comes over the network.
    private static let localPlaces = ConnectionPlaces.Limits(total: 32, perAddress: 32, strangers: 32)
    /// Bytes of a request's target and of its headers.
    private static let headLimits = HTTP1Channel.Configuration.DecoderConfiguration(
        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 16 << 10, maxHeaderFieldCount: 100)

    /// Says in the words of all ports why the port cannot be opened.
    private struct StatusService: Service {
        let application: any ApplicationProtocol
        let address: HostPort

        func run() async throws {
            do {
                try await application.run()
            } catch let error as IOError {
                throw Transport.cannotListen(on: address, error)
            }
        }
    }
}

/// A connection to the status port. Each handshake uses the TLS files that are in use at the job port at that time.
private struct StatusChannel: ServerChildChannel {
    let http: HTTP1Channel
    let tls: ServerTLS?
    let admission: Admission
    let refusals: RefusalLog

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<HTTP1Channel.Value> {
        guard let place = admission.place(for: channel) else {
            return channel.eventLoop.makeFailedFuture(ChannelError.alreadyClosed)
        }
        return channel.eventLoop.makeCompletedFuture { try tls?.encrypt(channel) }.flatMap {
            http.setup(channel: channel, logger: logger)
        }.flatMapThrowing { value in
            let pipeline = channel.pipeline.syncOperations
            let decoder = try pipeline.handler(type: ByteToMessageHandler<HTTPRequestDecoder>.self)
            let address = channel.remoteAddress?.ipAddress
            let connection = StatusConnection(place: place) { [refusals] reason in
                refusals.note(.peer, address: address, asked: "to connect to the status port", reason: reason)
            }
            try pipeline.addHandler(connection, position: .after(decoder))
            return value
        }
    }

    func handle(value: HTTP1Channel.Value, logger: Logger) async { await http.handle(value: value, logger: logger) }
}
