import Core
import Logging
import Protocol
import Synchronization
import Transport
import Work

/// One connection to the coordinator, from hello to close: carries out what the session decides.
final class WorkerConnection: Sendable {
    /// Why a connection ended.
    struct Ending: Sendable {
        let error: TesseraError
        /// Whether connecting again is pointless.
        var isFinal = false
    }

    private let connection: Connection
    private let settings: WorkerSettings
    private let token: AccessToken?
    private let runner: any ShardRunner
    private let fetches: FetchClient
    private let time: TimeSource
    private let onTick: @Sendable (WorkerActivity) -> Void
    private let log: Logger
    private let gate = CreditGate()
    private let buffers = BlockBuffers(), frameBuffers = FrameBuffers()
    private let session: Mutex<WorkerSession>
    private let ending = Mutex<Ending?>(nil)
    private let welcomed = Mutex(false)
    /// How many shards come before the next pause.
    private let unpaused: Mutex<Int>
    private let tally = Mutex(WorkTally())

    /// - Parameter trustsPeer: as `WorkerSession`.
    init(
        connection: Connection, settings: WorkerSettings, token: AccessToken?, trustsPeer: Bool, runner: any ShardRunner,
        fetches: FetchClient,
        time: TimeSource, onTick: @escaping @Sendable (WorkerActivity) -> Void, log: Logger
    ) {
        self.onTick = onTick
        self.connection = connection
        self.settings = settings
        self.token = token
        self.runner = runner
        self.fetches = fetches
        self.time = time
        self.log = log
        unpaused = Mutex(settings.pause.after)
        session = Mutex(WorkerSession(at: time.now(), trustsPeer: trustsPeer))
    }

    /// The interval at which the session checks the time.
    private static let tick = Duration.milliseconds(100)

    /// Whether the coordinator admitted this worker.
    var wasWelcomed: Bool { welcomed.withLock { $0 } }

    /// Whether the first answer made no sense.
    var hasMetStranger: Bool { session.withLock { $0.hasMetStranger } }

    /// Works until the connection ends.
    func run() async -> Ending {
        do {
            try await connection.withFrames { frames in
                fetches.open { self.send($0) }
                send(.hello(settings.hello(token)))
                await withDiscardingTaskGroup { group in
                    group.addTask { await self.keepTime() }
                    do {
                        for try await frame in frames { self.handle(frame, in: &group) }
                    } catch let error as FrameError {
                        self.perform(self.session.withLock { $0.broke(error) })
                    } catch {
                        // An interrupted worker leaves; its shards are not to blame.
                        if Task.isCancelled { try? self.connection.send(.goodbye("interrupted"), urgent: true) }
                        let error = TesseraError(wrapping: error)
                        // The coordinator refused this worker's certificate, which with TLS 1.3 shows after the handshake.
                        self.note(Ending(error: error, isFinal: error.code == .notAllowed))
                    }
                    // Threads waiting for credit or for a fetch would keep the task group from ending.
                    self.stop()
                    group.cancelAll()
                }
            }
        } catch {
            note(Ending(error: TesseraError(wrapping: error)))
        }
        say(tally.withLock { $0.takeReport() })
        return ending.withLock { $0 } ?? Ending(error: TesseraError(.unreachable, "the coordinator closed the connection"))
    }

    /// Accepts no more leases; the connection closes after the last one.
    func drain() { perform(session.withLock { $0.drain() }) }

    private func stop() {
        runner.stopAll()
        gate.close()
        fetches.close()
    }

    private func note(_ end: Ending) { ending.withLock { $0 = $0 ?? end } }

    private func keepTime() async {
        var before = time.now()
        while !Task.isCancelled {
            try? await time.sleep(Self.tick)
            let now = time.now(), late = now - before - Self.tick
            before = now
            let received = connection.bytesReceived, progress = runner.progress
            let actions = session.withLock { session in
                if late > Limits.standstill { session.stoodStill(for: late) }
                return session.tick(at: now, bytesReceived: received, progress: progress)
            }
            perform(actions)
            say(tally.withLock { $0.report(isIdle: progress.isEmpty, at: now) })
            onTick(wasWelcomed ? .working(shards: progress.count) : .connecting)
        }
    }

    private func say(_ report: WorkTally.Report?) {
        guard let report else { return }
        log.info(
            "worked on shards",
            metadata: [
                "shards": .stringConvertible(report.shards), "failed": .stringConvertible(report.failed),
                "bytes": .stringConvertible(report.bytes), "seconds": Self.milliseconds(report.seconds),
            ])
    }

    /// A number of seconds, to the millisecond.
    private static func milliseconds(_ seconds: Double) -> Logger.MetadataValue {
        .stringConvertible((seconds * 1000).rounded() / 1000)
    }

    // MARK: Frames

    private func handle(_ frame: Frame, in group: inout DiscardingTaskGroup) {
        do throws(TesseraError) {
            switch frame.header.type {
            case .control, .ordered:
                let message = try Message(frame)
                for action in session.withLock({ $0.received(message, at: time.now()) }) {
                    if case .start(let lease) = action {
                        group.addTask { await self.work(on: lease) }
                    } else {
                        perform([action])
                    }
                }
            case .fetched: fetches.received(try FetchedFrame(frame))
            case .block: throw TesseraError(.protocolMismatch, "the coordinator sent a block")
            }
        } catch {
            perform(session.withLock { $0.garbled(error) })
        }
    }

    private func perform(_ actions: [WorkerSession.Action]) {
        for action in actions {
            switch action {
            case .send(let message): send(message)
            case .welcomed(let welcome):
                welcomed.withLock { $0 = true }
                gate.add(min(welcome.credit, settings.memory.underWay))
                log.info(
                    "joined the coordinator",
                    metadata: ["session": .stringConvertible(welcome.session), "build": "\(welcome.build)"])
            case .start: break
            case .stop(let attempt): runner.stop(attempt)
            case .credit(let bytes): gate.add(bytes)
            case .fetchFailed(let failed): fetches.failed(failed)
            case .drained: send(.goodbye("drained"))
            case .close(let error, let isFinal):
                note(Ending(error: error, isFinal: isFinal))
                // So that the coordinator does not take this process for dead, if it is there to hear it.
                if wasWelcomed { try? connection.send(.goodbye(error.problem.shortened(to: 1000)), urgent: true) }
                connection.close()
            }
        }
    }

    private func send(_ message: Message) {
        do throws(TesseraError) {
            try connection.send(message)
        } catch {
            log.error("cannot send a message", metadata: ["message_type": "\(message.name)", "error": "\(error)"])
        }
    }

    // MARK: Shards

    private func work(on lease: Lease) async {
        if settings.pause.length > .zero,
            unpaused.withLock({ left in
                defer { left = max(0, left - 1) }
                return left == 0
            })
        {
            try? await time.sleep(settings.pause.length)
        }
        let output = StreamOutput(
            attempt: lease.attempt, widths: lease.work.outputs.map { max(1, $0.dtype.bitWidth / 8) }, gate: gate,
            connection: connection, packs: settings.packsBlocks(toLoopback: connection.isLoopback), buffers: buffers,
            frameBuffers: frameBuffers)
        let start = time.now()
        tally.withLock { $0.started(at: start) }
        switch await runner.run(lease, returning: output) {
        case .success(let done):
            await report(done, of: lease)
            let end = time.now(), bytes = lease.work.byteCount
            tally.withLock { $0.finished(bytes: bytes, at: end) }
            var metadata = metadata(of: lease)
            metadata["bytes"] = .stringConvertible(bytes)
            metadata["seconds"] = Self.milliseconds((end - start) / .seconds(1))
            metadata["delivery"] = done.delivery.map { "\($0)" }
            log.debug("shard finished", metadata: metadata)
        case .failure(let error): fail(lease, error)
        case nil: log.debug("shard given up", metadata: metadata(of: lease))
        }
        perform(session.withLock { $0.ended(lease.attempt) })
    }

    /// Returns once the result has been sent; until then the worker holds the lease.
    private func report(_ done: ShardDone, of lease: Lease) async {
        let result: Frame
        do throws(TesseraError) {
            result = try Message.shardDone(done).frame()
        } catch {
            return fail(lease, error)
        }
        do throws(TesseraError) {
            try await connection.sendAndWait(result)
        } catch {
            connection.close()
        }
    }

    private func metadata(of lease: Lease) -> Logger.Metadata {
        [
            "job": "\(lease.attempt.job)", "shard": .stringConvertible(lease.attempt.shard), "label": "\(lease.work.label)",
        ]
    }

    private func fail(_ lease: Lease, _ error: TesseraError) {
        let now = time.now()
        tally.withLock { $0.failed(at: now) }
        log.warning("shard failed", metadata: metadata(of: lease).merging(["error": "\(error)"]) { $1 })
        send(.shardFailed(ShardFailed(attempt: lease.attempt, error: error)))
    }
}
