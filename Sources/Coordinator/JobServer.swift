import Core
package import Logging
import NIOCore
import NIOPosix
package import Protocol
import ServiceLifecycle
import Synchronization

/// The job port: workers and clients over TCP.
package struct JobServer: Service {
    private let manager: JobManager
    private let address: HostPort
    private let inputs: FetchSource
    private let build: String
    private let heartbeat: Duration
    private let log: Logger
    /// Told the address once the port is open.
    private let onListening: @Sendable (HostPort) -> Void

    /// Connections at a time; more are closed at once.
    private static let connectionLimit = 4096

    package init(
        manager: JobManager, settings: JobManager.Settings, address: HostPort, heartbeat: Duration, log: Logger,
        onListening: @escaping @Sendable (HostPort) -> Void
    ) {
        self.manager = manager
        self.address = address
        inputs = FetchSource(roots: settings.inputRoots)
        build = settings.build
        self.heartbeat = heartbeat
        self.log = log
        self.onListening = onListening
    }

    /// Serves until cancelled; on graceful shutdown, until the jobs that are there have ended.
    package func run() async throws {
        let server = try await listen()
        onListening(HostPort(host: address.host, port: server.channel.localAddress?.port ?? address.port))
        let count = Atomic(0)
        try await withThrowingDiscardingTaskGroup { group in
            group.addTask {
                // Cancelled without it, there is nothing to wait for.
                guard (try? await gracefulShutdown()) != nil else { return }
                await manager.drain()
                server.channel.close(promise: nil)
            }
            try await server.executeThenClose { connections in
                for try await connection in connections {
                    let number = count.wrappingAdd(1, ordering: .relaxed).newValue
                    group.addTask { await serve(connection, number: number) }
                }
            }
            group.cancelAll()
        }
    }

    private func listen() async throws -> NIOAsyncChannel<FrameChannel.Async, Never> {
        do {
            return try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.backlog, value: 256)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .bind(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture { try FrameChannel.configure(channel) }
                }
        } catch {
            throw TesseraError(
                .cannotCreate, "cannot listen on \(address): \(error)",
                advice: "is another coordinator running? choose another --listen")
        }
    }

    private func serve(_ connection: FrameChannel.Async, number: Int) async {
        guard await manager.connectionCount < Self.connectionLimit else {
            connection.channel.close(promise: nil)
            return
        }
        await manager.connected(1)
        await ServerConnection(
            channel: connection, number: number, manager: manager, inputs: inputs, build: build, heartbeat: heartbeat, log: log
        ).run()
        await manager.connected(-1)
    }
}
