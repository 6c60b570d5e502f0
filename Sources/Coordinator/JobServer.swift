package import Core
package import Logging
package import Protocol
import ServiceLifecycle
import Synchronization
package import Transport

/// Who may use the job port.
package enum JobPortSecurity: Sendable {
    /// Everybody who can reach the port, unencrypted.
    case open
    /// Peers with a certificate, by the roles in it.
    case certificates(ServerTLS)
    /// Peers with a token, over TLS.
    case tokens(ServerTokens, ServerTLS)

    package var tls: ServerTLS? {
        switch self {
        case .open: nil
        case .certificates(let tls), .tokens(_, let tls): tls
        }
    }

    /// - Parameter peer: the identity in the peer's certificate.
    func policy(for peer: PeerIdentity?) -> AccessPolicy {
        switch self {
        case .open: .anyone
        case .certificates: .certificate(peer ?? .withoutCertificate)
        case .tokens(let tokens, _): .tokens(tokens.current)
        }
    }

    /// Another number each time that other tokens are accepted: peers that were admitted may not be any more. Certificates count
    /// for as long as their connections.
    var version: Int { if case .tokens(let tokens, _) = self { tokens.version } else { 0 } }
}

/// The job port: workers and clients over TCP.
package struct JobServer: Service {
    private let manager: JobManager
    private let address: HostPort
    private let inputs: FetchSource
    private let settings: ServerConnection.Settings
    private let security: JobPortSecurity
    private let limits: ConnectionPlaces.Limits
    private let time: TimeSource
    private let log: Logger
    /// Told the address once the port is open.
    private let onListening: @Sendable (HostPort) -> Void

    /// - Parameter descriptors: that the process may have. Half of them are left for the files of jobs.
    package init(
        manager: JobManager, settings: JobManager.Settings, address: HostPort, heartbeat: Duration,
        security: JobPortSecurity = .open, descriptors: Int, time: TimeSource = .system, log: Logger,
        onListening: @escaping @Sendable (HostPort) -> Void
    ) {
        self.manager = manager
        self.address = address
        inputs = FetchSource(roots: settings.inputRoots)
        self.settings = ServerConnection.Settings(build: settings.build, heartbeat: heartbeat, security: security)
        self.security = security
        limits = Self.limits(descriptors: descriptors)
        self.time = time
        self.log = log
        self.onListening = onListening
    }

    /// How long clients that follow a job may still ask for its end. They ask several times a second.
    private static let lastAnswers = Duration.seconds(3)

    static func limits(descriptors: Int) -> ConnectionPlaces.Limits {
        ConnectionPlaces.Limits(total: max(1, min(Limits.connections, descriptors / 2)))
    }

    /// Serves until cancelled; on graceful shutdown, until the current jobs have ended.
    package func run() async throws {
        let listener = try await Transport.listen(on: address, tls: security.tls, limits: limits)
        manager.jobPort.withLock { $0 = JobPort(listener.address, isEncrypted: security.tls != nil) }
        onListening(listener.address)
        try await withThrowingDiscardingTaskGroup { group in
            group.addTask {
                // Cancelled without it, there is nothing to wait for.
                guard (try? await gracefulShutdown()) != nil else { return }
                let hadJobs = await manager.hasJobs
                await manager.drain()
                if hadJobs { try? await time.sleep(Self.lastAnswers) }
                await manager.dismissWorkers()
                listener.close()
            }
            group.addTask {
                var watch = CredentialWatch(security, log: log)
                while (try? await time.sleep(CredentialWatch.interval)) != nil { watch.look() }
            }
            try await listener.serve { connection, number in
                await ServerConnection(
                    connection: connection, number: number, manager: manager, inputs: inputs, settings: settings, time: time,
                    log: log
                ).run()
            }
            group.cancelAll()
        }
    }
}
