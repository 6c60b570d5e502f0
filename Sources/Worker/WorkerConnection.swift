import Core
import Logging
import NIOCore
import Protocol
import Synchronization
import Work

/// One connection to the coordinator, from hello to its end: performs what the session decides.
final class WorkerConnection: Sendable {
    private let channel: FrameChannel.Async
    private let settings: WorkerSettings
    private let runner: LeaseRunner
    private let fetches: FetchClient
    private let log: Logger
    private let gate = CreditGate()
    private let buffers = BlockBuffers(), frameBuffers = FrameBuffers()
    private let origin = ContinuousClock.now
    private let session: Mutex<WorkerSession>
    private let ending = Mutex<TesseraError?>(nil)
    private let welcomed = Mutex(false)

    init(channel: FrameChannel.Async, settings: WorkerSettings, runner: LeaseRunner, fetches: FetchClient, log: Logger) {
        self.channel = channel
        self.settings = settings
        self.runner = runner
        self.fetches = fetches
        self.log = log
        session = Mutex(WorkerSession(at: .zero))
    }

    private var now: Duration { ContinuousClock.now - origin }

    /// Whether the coordinator took this worker on.
    var wasWelcomed: Bool { welcomed.withLock { $0 } }

    /// Works until the connection ends.
    ///
    /// - Returns: why it ended.
    func run() async -> TesseraError {
        do {
            try await channel.executeThenClose { inbound in
                let channel = channel.channel
                fetches.open { channel.send($0) }
                channel.send(.hello(settings.hello))
                await withDiscardingTaskGroup { group in
                    group.addTask { await self.keepTime() }
                    do {
                        for try await frame in inbound { try self.handle(frame, in: &group) }
                    } catch {
                        self.note((error as? FrameError)?.asTesseraError ?? TesseraError(wrapping: error))
                    }
                    // Threads that wait for credit or for a fetch would hold the group back.
                    self.stop()
                    group.cancelAll()
                }
            }
        } catch {
            note(TesseraError(.unreachable, "the connection failed: \(error)"))
        }
        return ending.withLock { $0 } ?? TesseraError(.unreachable, "the coordinator closed the connection")
    }

    /// Takes no more leases; the connection ends when the last one is over.
    func drain() {
        for action in session.withLock({ $0.drain() }) { performAtOnce(action) }
    }

    private func stop() {
        runner.stopAll()
        gate.close()
        fetches.close()
    }

    private func note(_ error: TesseraError) { ending.withLock { $0 = $0 ?? error } }

    private func keepTime() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(100))
            for action in session.withLock({ $0.tick(at: now, progress: runner.progress) }) { performAtOnce(action) }
        }
    }

    // MARK: Frames

    private func handle(_ frame: Frame, in group: inout DiscardingTaskGroup) throws {
        switch frame.header.type {
        case .control, .ordered:
            let message = try Message(frame)
            for action in session.withLock({ $0.received(message, at: now) }) {
                if case .start(let lease) = action {
                    group.addTask { await self.work(on: lease) }
                } else {
                    performAtOnce(action)
                }
            }
        case .fetched:
            session.withLock { $0.receivedData(at: now) }
            fetches.received(try FetchedFrame(frame))
        case .block: throw TesseraError(.protocolMismatch, "the coordinator sent a block")
        }
    }

    private func performAtOnce(_ action: WorkerSession.Action) {
        switch action {
        case .send(let message): channel.channel.send(message)
        case .welcomed(let welcome):
            welcomed.withLock { $0 = true }
            gate.add(min(welcome.credit, settings.memory.underWay))
            log.info("joined the coordinator", metadata: ["session": "\(welcome.session)", "build": "\(welcome.build)"])
        case .start: break
        case .stop(let attempt): runner.stop(attempt)
        case .credit(let bytes): gate.add(bytes)
        case .fetchFailed(let failed): fetches.failed(failed)
        case .drained: channel.channel.send(.goodbye("drained"))
        case .close(let error):
            note(error)
            channel.channel.close(promise: nil)
        }
    }

    private func work(on lease: Lease) async {
        if settings.pause > .zero { try? await Task.sleep(for: settings.pause) }
        let output = StreamOutput(
            attempt: lease.attempt, widths: lease.work.outputs.map { max(1, $0.dtype.bitWidth / 8) }, gate: gate,
            channel: channel.channel, packs: settings.packsBlocks(to: channel.channel.remoteAddress), buffers: buffers,
            frameBuffers: frameBuffers)
        switch await runner.run(lease, returning: output) {
        case .success(let done):
            // The lease is this worker's until its blocks and the result have left.
            do {
                try await channel.channel.writeAndFlush(Message.shardDone(done).frame())
            } catch {
                channel.channel.close(promise: nil)
            }
        case .failure(let error):
            log.warning("shard failed", metadata: ["shard": "\(lease.work.label)", "error": "\(error)"])
            channel.channel.send(.shardFailed(ShardFailed(attempt: lease.attempt, error: error)))
        case nil: log.debug("shard given up", metadata: ["shard": "\(lease.work.label)"])
        }
        for action in session.withLock({ $0.ended(lease.attempt) }) { performAtOnce(action) }
    }
}

/// Sends blocks to the coordinator as fast as it stores them.
private struct StreamOutput: ShardOutput {
    let attempt: Attempt
    /// Bytes of an element of each tensor.
    let widths: [Int]
    let gate: CreditGate
    let channel: any Channel
    let packs: Bool
    let buffers: BlockBuffers
    let frameBuffers: FrameBuffers

    var pieceSize: Int { TreeDigest.blockSize }

    func store(_ bytes: UnsafeRawBufferPointer, tensor: Int, offset: Int) throws {
        if packs { return try pack(bytes, tensor, offset) }
        try store(byteCount: bytes.count, tensor: tensor, offset: offset) { target, _ in
            UnsafeMutableRawBufferPointer(start: target, count: bytes.count).copyMemory(from: bytes)
        }
    }

    func store(
        byteCount: Int, tensor: Int, offset: Int, fill: (UnsafeMutableRawPointer, (Int) throws -> Void) throws -> Void
    ) throws {
        if packs {
            return try buffers.with { buffer in
                try fill(buffer) { _ in }
                try pack(UnsafeRawBufferPointer(start: buffer, count: byteCount), tensor, offset)
            }
        }
        let frame = try BlockFrame.storing(
            byteCount, of: attempt, tensor: tensor, offset: offset, in: frameBuffers.take(), fill: fill)
        try gate.take(frame.byteCount)
        let sent = channel.eventLoop.makePromise(of: Void.self)
        sent.futureResult.whenComplete { [frameBuffers, body = frame.body] _ in frameBuffers.giveBack(body) }
        channel.writeAndFlush(frame, promise: sent)
    }

    private func pack(_ bytes: UnsafeRawBufferPointer, _ tensor: Int, _ offset: Int) throws {
        let frame = BlockFrame.packing(bytes, elementWidth: widths[tensor], of: attempt, tensor: tensor, offset: offset)
        try gate.take(frame.byteCount)
        channel.writeAndFlush(frame, promise: nil)
    }

    func finish() {}
}
