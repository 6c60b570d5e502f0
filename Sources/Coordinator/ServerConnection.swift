import Core
import Logging
import NIOCore
import Protocol
import Synchronization
import Work

/// One connection to the job port, from its first byte to its last: performs what the session decides.
final class ServerConnection: Sendable {
    private let channel: FrameChannel.Async
    private let manager: JobManager
    private let inputs: FetchSource
    private let log: Logger
    private let origin = ContinuousClock.now
    private let session: Mutex<CoordinatorSession>
    /// The worker at the other end, once it is admitted.
    private let worker = Mutex<JobManager.WorkerID?>(nil)

    init(
        channel: FrameChannel.Async, number: Int, manager: JobManager, inputs: FetchSource, build: String, heartbeat: Duration,
        log: Logger
    ) {
        self.channel = channel
        self.manager = manager
        self.inputs = inputs
        var log = log
        log[metadataKey: "connection"] = "\(number)"
        self.log = log
        session = Mutex(CoordinatorSession(number: number, build: build, heartbeat: heartbeat, at: .zero))
    }

    private var now: Duration { ContinuousClock.now - origin }

    func run() async {
        var reason = "the connection ended"
        do {
            try await channel.executeThenClose { inbound in
                try await withThrowingDiscardingTaskGroup { group in
                    group.addTask { await self.keepTime() }
                    for try await frame in inbound {
                        try await self.handle(frame, in: &group)
                    }
                    group.cancelAll()
                }
            }
        } catch let error as FrameError {
            reason = error.description
            log.warning("closed: \(reason)")
        } catch {
            reason = "\(error)"
        }
        if let worker = worker.withLock({ $0 }) { await manager.detach(worker, reason: reason) }
    }

    private func keepTime() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(250))
            for case .close(let reason) in session.withLock({ $0.tick(at: now) }) { close(reason) }
        }
    }

    private func close(_ reason: String) {
        log.info("closing: \(reason)")
        channel.channel.send(.goodbye(reason), urgent: true)
        channel.channel.close(promise: nil)
    }

    // MARK: Frames

    private func handle(_ frame: Frame, in group: inout ThrowingDiscardingTaskGroup<any Error>) async throws {
        switch frame.header.type {
        case .control, .ordered:
            let message: Message
            do throws(TesseraError) {
                message = try Message(frame)
            } catch {
                return close(error.problem)
            }
            for action in session.withLock({ $0.received(message, at: now) }) { await perform(action, in: &group) }
        case .block: await store(frame)
        case .fetched: close("only the coordinator sends fetched frames")
        }
    }

    private func perform(_ action: CoordinatorSession.Action, in group: inout ThrowingDiscardingTaskGroup<any Error>) async {
        let channel = channel.channel
        switch action {
        case .send(let message): channel.send(message)
        case .admit(let hello):
            let description = WorkerDescription(
                name: hello.name, address: channel.remoteAddress?.ipAddress ?? "unknown", build: hello.build,
                threads: hello.threads,
                memory: hello.memory, tensorMemory: hello.tensorMemory ?? hello.memory)
            let id = await manager.attach(description) { channel.send($0) }
            worker.withLock { $0 = id }
        case .renew(let progress):
            if let worker = worker.withLock({ $0 }) { await manager.heartbeat(worker, progress) }
        case .finished(let done):
            if let worker = worker.withLock({ $0 }) {
                await manager.finished(done, by: worker)
            }
        case .failed(let failed):
            if let worker = worker.withLock({ $0 }) { await manager.failed(failed.attempt, by: worker, error: failed.error) }
        case .drain:
            if let worker = worker.withLock({ $0 }) { await manager.drain(worker) }
        case .fetch(let request): group.addTask { await self.answer(request) }
        case .request(let request): channel.send(await answer(request))
        case .close(let reason): close(reason)
        }
    }

    // MARK: Blocks and fetches

    private func store(_ frame: Frame) async {
        for action in session.withLock({ $0.receivedBlock(byteCount: frame.byteCount, at: now) }) {
            if case .close(let reason) = action { return close(reason) }
        }
        guard let worker = worker.withLock({ $0 }) else { return }
        do {
            let block = try BlockFrame(frame)
            let length = block.contents.length
            if let target = try await manager.target(
                of: block.attempt, from: worker, tensor: block.tensor, offset: block.offset, byteCount: length)
            {
                try await blocking {
                    try block.contents.withUnpacked { try target.assembler.write($0, part: target.part, offset: target.offset) }
                }
                await manager.stored(tensor: block.tensor, offset: block.offset, of: block.attempt)
            }
        } catch let error as TesseraError where error.code == .protocolMismatch {
            return close(error.problem)
        } catch {
            // The output cannot be written: no worker can help.
            await manager.abandon(frame.header.job, error: TesseraError(wrapping: error))
        }
        for case .send(let message) in session.withLock({ $0.storedBlock(byteCount: frame.byteCount) }) {
            channel.channel.send(message)
        }
    }

    private func answer(_ request: FetchRequest) async {
        do {
            guard await manager.needs(request.file) else {
                throw TesseraError(.notAllowed, "no running job reads this file", file: request.file.path)
            }
            let inputs = inputs
            let bytes = try await blocking {
                try inputs.read(request.file, request.offset..<request.offset + request.length)
            }
            channel.channel.writeAndFlush(
                FetchedFrame(request: request.request, bytes: ByteBuffer(bytes: bytes)).frame, promise: nil)
        } catch {
            channel.channel.send(.fetchFailed(FetchFailed(request: request.request, error: TesseraError(wrapping: error))))
        }
    }

    // MARK: Clients

    private func answer(_ request: Message) async -> Message {
        switch request {
        case .submit(let submission):
            do {
                return .submitted(try await manager.submit(submission))
            } catch let problems as Problems {
                return .failure(Failure(problems: problems.all))
            } catch {
                return .failure(Failure(problems: [TesseraError(wrapping: error)]))
            }
        case .statusRequest(let request):
            if let status = await manager.status(request) { return .status(status) }
            return unknown(request.job)
        case .cancel(let cancel):
            do {
                try await manager.cancel(cancel.job, reason: cancel.reason)
                return .cancelled(Cancelled(job: cancel.job))
            } catch {
                return .failure(Failure(problems: [TesseraError(wrapping: error)]))
            }
        default:
            return .failure(Failure(problems: [TesseraError(.protocolMismatch, "this request has no answer")]))
        }
    }

    private func unknown(_ job: JobID?) -> Message {
        let name = job.map { "\($0)" } ?? "?"
        return .failure(
            Failure(problems: [
                TesseraError(.inputMissing, "the coordinator knows no job \(name)", advice: "tessera status lists the jobs")
            ]))
    }
}
