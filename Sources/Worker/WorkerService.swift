package import Core
package import Logging
import Protocol
import ServiceLifecycle
package import Transport

/// What a worker does at a moment.
package enum WorkerActivity: Sendable, Hashable {
    /// No coordinator has admitted it.
    case connecting
    case working(shards: Int)
}

/// A worker process: connects to its coordinator, works, and reconnects when the connection is lost.
package struct WorkerService: Service {
    private let settings: WorkerSettings
    private let time: TimeSource
    private let connect: @Sendable () async throws -> Connection
    private let runner: (any ShardRunner)?
    private let random: @Sendable () -> Double
    private let onTick: @Sendable (WorkerActivity) -> Void
    private let log: Logger
    /// Asks the coordinator for inputs that this host lacks.
    let fetches = FetchClient()

    /// - Parameters:
    ///   - connect: makes a connection to the coordinator; `nil` for TCP to the address in `settings`.
    ///   - runner: computes the shards; `nil` for threads of this process.
    ///   - random: 0..<1, for the pauses between attempts to connect.
    ///   - onTick: called some times a second, but for the seconds that it takes to connect.
    package init(
        settings: WorkerSettings, time: TimeSource = .system,
        connect: (@Sendable () async throws -> Connection)? = nil, runner: (any ShardRunner)? = nil,
        random: @escaping @Sendable () -> Double = ReconnectBackoff.random,
        onTick: @escaping @Sendable (WorkerActivity) -> Void = { _ in }, log: Logger
    ) {
        self.onTick = onTick
        self.runner = runner
        self.random = random
        self.settings = settings
        self.time = time
        let (address, tls) = (settings.coordinator, settings.tls)
        self.connect = connect ?? { try await Transport.connect(to: address, tls: tls, limits: .coordinator) }
        self.log = log
    }

    /// Works until shut down: gracefully after the current shards, or at once by cancellation.
    ///
    /// - Throws: the coordinator's refusal, or `protocolMismatch` if the peer is no coordinator. After any other end of a
    ///   connection the worker reconnects.
    package func run() async throws {
        if let runner { return try await work(with: runner) {} }
        let pool = ComputePool(threads: settings.memory.threads, memory: settings.memory.tensors)
        let cache = FetchCache(
            fetcher: fetches, capacity: settings.memory.fetchCache, pieceBytes: settings.memory.fetchPiece)
        let inputs = LocalInputs(roots: settings.roots, fallback: cache, host: settings.name, digests: settings.digests, log: log)
        let runner = LeaseRunner(pool: pool, inputs: inputs, outputs: settings.outputs)
        try await work(with: runner, closeFiles: inputs.closeAll)
        try await pool.shutdown()
    }

    /// So many first answers in a row that make no sense show that the peer is no coordinator; fewer may be damage.
    private static let strangerLimit = 3

    /// Connects again and again.
    ///
    /// - Parameter closeFiles: lets go of inputs that no shard reads any more.
    private func work(with runner: any ShardRunner, closeFiles: @Sendable () -> Void) async throws {
        var backoff = ReconnectBackoff(), hasJoined = false, strangers = 0
        while !Task.isCancelled, !Task.isShuttingDownGracefully {
            if let (opened, token) = try await open() {
                let connection = WorkerConnection(
                    connection: opened, settings: settings, token: token,
                    trustsPeer: hasJoined || strangers < Self.strangerLimit - 1,
                    runner: runner, fetches: fetches, time: time, onTick: onTick, log: log)
                let ending = await withGracefulShutdownHandler {
                    await connection.run()
                } onGracefulShutdown: {
                    connection.drain()
                }
                closeFiles()
                if ending.isFinal { throw ending.error.about(settings.coordinator) }
                if connection.wasWelcomed {
                    (hasJoined, strangers) = (true, 0)
                    backoff.succeeded()
                } else if connection.hasMetStranger {
                    strangers += 1
                }
                if !Task.isShuttingDownGracefully, !Task.isCancelled {
                    log.warning(
                        hasJoined
                            ? "lost the coordinator; reconnecting"
                            : "the coordinator has not admitted this worker yet; trying again",
                        metadata: ["reason": "\(ending.error.about(settings.coordinator).problem)"])
                }
            }
            await rest(backoff.next(random: random()))
        }
    }

    /// Returns after the pause, or soon after the worker is told to shut down.
    private func rest(_ pause: Duration) async {
        let end = time.now() + pause
        while time.now() < end, !Task.isCancelled, !Task.isShuttingDownGracefully {
            onTick(.connecting)
            try? await time.sleep(min(end - time.now(), .milliseconds(100)))
        }
    }

    /// - Returns: a connection, and this worker's token; `nil` if the coordinator cannot be reached at present.
    /// - Throws: every other problem: a retry would not help.
    private func open() async throws -> (Connection, AccessToken?)? {
        do {
            let token = try settings.token?.read()
            return (try await connect(), token)
        } catch let error as TesseraError where [.notAllowed, .protocolMismatch, .badData, .inputMissing].contains(error.code) {
            throw error
        } catch {
            if !Task.isCancelled {
                log.warning(
                    "cannot reach the coordinator; trying again",
                    metadata: ["coordinator": "\(settings.coordinator)", "reason": "\(TesseraError(wrapping: error).problem)"])
            }
            return nil
        }
    }
}
