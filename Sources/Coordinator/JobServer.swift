package import Core
package import Logging
package import Protocol
import ServiceLifecycle
import Transport

/// The job port: workers and clients over TCP.
package struct JobServer: Service {
    private let manager: JobManager
    private let address: HostPort
    private let inputs: FetchSource
    private let settings: ServerConnection.Settings
    private let time: TimeSource
    private let log: Logger
    /// Told the address once the port is open.
    private let onListening: @Sendable (HostPort) -> Void

    package init(
        manager: JobManager, settings: JobManager.Settings, address: HostPort, heartbeat: Duration, time: TimeSource = .system,
        log: Logger, onListening: @escaping @Sendable (HostPort) -> Void
    ) {
        self.manager = manager
        self.address = address
        inputs = FetchSource(roots: settings.inputRoots)
        self.settings = ServerConnection.Settings(build: settings.build, heartbeat: heartbeat)
        self.time = time
        self.log = log
        self.onListening = onListening
    }

    /// Serves until cancelled; on graceful shutdown, until the current jobs have ended.
    package func run() async throws {
        let listener = try await Transport.listen(on: address)
        onListening(listener.address)
        try await withThrowingDiscardingTaskGroup { group in
            group.addTask {
                // Cancelled without it, there is nothing to wait for.
                guard (try? await gracefulShutdown()) != nil else { return }
                await manager.drain()
                listener.close()
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
