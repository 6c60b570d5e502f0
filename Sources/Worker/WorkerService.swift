import Core
package import Logging
import NIOCore
import NIOPosix
package import Protocol
import ServiceLifecycle
import Synchronization
package import Work

/// What a worker is told on its command line.
package struct WorkerSettings: Sendable {
    package enum Packing: String, Sendable, CaseIterable {
        /// Where a link may be slower than the codec: not on loopback.
        case auto, always, never
    }

    package var coordinator: HostPort
    package var roots: Roots
    package var name: String
    package var build: String
    package var memory: WorkerMemory
    package var packing = Packing.auto
    package var outputs = LocalOutputs()
    /// A wait before each shard, for demonstrations.
    package var pause = Duration.zero

    package init(coordinator: HostPort, roots: Roots, name: String, build: String, memory: WorkerMemory) {
        self.coordinator = coordinator
        self.roots = roots
        self.name = name
        self.build = build
        self.memory = memory
    }

    var hello: Hello {
        Hello(
            role: .worker, build: build, name: name, threads: memory.threads, memory: memory.total, tensorMemory: memory.tensors)
    }

    func packsBlocks(to address: SocketAddress?) -> Bool {
        switch packing {
        case .always: true
        case .never: false
        case .auto: !(address?.ipAddress.map { HostPort(host: $0, port: 0).isLoopback } ?? false)
        }
    }
}

/// A worker process: connects to its coordinator, works, and comes back when the connection is lost.
package struct WorkerService: Service {
    private let settings: WorkerSettings
    private let log: Logger

    package init(settings: WorkerSettings, log: Logger) {
        self.settings = settings
        self.log = log
    }

    /// Works until it is told to shut down: gracefully, after the shards in hand; by cancellation, at once.
    ///
    /// - Throws: `protocolMismatch` when the coordinator refuses this build, for which there is no use in trying again.
    package func run() async throws {
        let pool = ComputePool(threads: settings.memory.threads, memory: settings.memory.tensors)
        let fetches = FetchClient()
        let cache = FetchCache(
            fetcher: fetches, capacity: settings.memory.fetchCache, pieceBytes: settings.memory.fetchPiece)
        let inputs = LocalInputs(roots: settings.roots, fallback: cache)
        let runner = LeaseRunner(executor: ShardExecutor(pool: pool, inputs: inputs), outputs: settings.outputs)
        var backoff = ReconnectBackoff()
        while !Task.isCancelled, !Task.isShuttingDownGracefully {
            do {
                let channel = try await connect()
                let connection = WorkerConnection(
                    channel: channel, settings: settings, runner: runner, fetches: fetches, log: log)
                let ending = await endOf(connection)
                inputs.closeAll()
                guard ending.code != .protocolMismatch else { throw ending }
                if connection.wasWelcomed { backoff.succeeded() }
                if !Task.isShuttingDownGracefully { log.warning("lost the coordinator: \(ending)") }
            } catch let error as TesseraError {
                throw error
            } catch {
                log.warning("cannot reach the coordinator at \(settings.coordinator): \(error)")
            }
            let pause = backoff.next(random: .random(in: 0..<1))
            try? await cancelWhenGracefulShutdown { try await Task.sleep(for: pause) }
        }
        try await pool.shutdown()
    }

    private func connect() async throws -> FrameChannel.Async {
        try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(5))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .connect(host: settings.coordinator.host, port: settings.coordinator.port) { channel in
                channel.eventLoop.makeCompletedFuture { try FrameChannel.configure(channel) }
            }
    }

    private func endOf(_ connection: WorkerConnection) async -> TesseraError {
        await withTaskGroup(of: TesseraError?.self) { group in
            group.addTask { await connection.run() }
            group.addTask {
                guard (try? await gracefulShutdown()) != nil else { return nil }
                connection.drain()
                return nil
            }
            defer { group.cancelAll() }
            while let ending = await group.next() {
                if let ending { return ending }
            }
            return TesseraError(.internal, "the connection ended without a reason")
        }
    }
}
