package import Core
package import Logging
import NIOCore
import Protocol
import Synchronization
package import Transport
import Work

/// One connection to the job port, from its first byte to its last: performs what the session decides.
package final class ServerConnection: Sendable {
    package struct Settings: Sendable {
        /// The coordinator's version, as peers are told.
        package var build: String
        /// Between the signs of life of a worker.
        package var heartbeat: Duration
        package var security: JobPortSecurity

        package init(build: String, heartbeat: Duration, security: JobPortSecurity = .open) {
            self.build = build
            self.heartbeat = heartbeat
            self.security = security
        }
    }

    private let connection: Connection
    private let manager: JobManager
    private let inputs: FetchSource
    private let time: TimeSource
    private let log: Logger
    private let security: JobPortSecurity
    /// `JobPortSecurity.version` when the connection was made.
    private let securityVersion: Int
    private let session: Mutex<CoordinatorSession>
    /// The worker at the other end, once it is admitted.
    private let worker = Mutex<JobManager.WorkerID?>(nil)
    /// Why this side closes the connection.
    private let closing = Mutex<String?>(nil)
    /// What is said, in the order in which it was decided. Messages are encoded in a task of their own: nobody who decides waits
    /// for that.
    private let (outbox, outboxInput) = AsyncStream<Outgoing>.makeStream()

    private enum Outgoing {
        case message(Message)
        /// The last word, with the reason.
        case close(String)
    }

    package init(
        connection: Connection, number: Int, manager: JobManager, inputs: FetchSource, settings: Settings,
        time: TimeSource = .system, log: Logger
    ) {
        self.connection = connection
        self.manager = manager
        self.inputs = inputs
        self.time = time
        var log = log
        log[metadataKey: "connection"] = .stringConvertible(number)
        self.log = log
        security = settings.security
        securityVersion = settings.security.version
        session = Mutex(
            CoordinatorSession(number: number, build: settings.build, heartbeat: settings.heartbeat, at: time.now()))
    }

    /// How often the session looks at the time.
    private static let tick = Duration.milliseconds(250)

    /// Serves the peer until the connection ends.
    package func run() async {
        manager.connections.withLock { $0 += 1 }
        defer { manager.connections.withLock { $0 -= 1 } }
        // Not a part of the group: what was said before the connection is cancelled still leaves.
        let sender = Task(executorPreference: manager.executor) {
            for await outgoing in self.outbox { await self.send(outgoing) }
        }
        do {
            try await connection.withFrames { frames in
                await withDiscardingTaskGroup { group in
                    // Closes the connection too when the handshake takes too long.
                    group.addTask { await self.keepTime() }
                    if await self.identifyPeer() { await self.detach(await self.receive(frames, in: &group)) }
                    group.cancelAll()
                }
                outboxInput.finish()
                await sender.value
            }
        } catch {
            log.debug("the connection did not close cleanly", metadata: ["error": "\(TesseraError(wrapping: error))"])
        }
        outboxInput.finish()
        await sender.value
    }

    /// Waits for the handshake and learns who the peer is.
    ///
    /// - Returns: `false` if the peer is refused.
    private func identifyPeer() async -> Bool {
        do throws(TesseraError) {
            let policy = security.policy(for: try await connection.peer())
            session.withLock { $0.admit(by: policy) }
            return true
        } catch {
            refuse(because: error.problem)
            return false
        }
    }

    /// How a connection ended.
    private struct Ending {
        let reason: String
        /// Whether the peer's process is taken to have ended. Silence and garbled bytes tell nothing of that.
        var isLoss = true
    }

    /// Handles frames until the connection ends.
    private func receive(_ frames: FrameStream, in group: inout DiscardingTaskGroup) async -> Ending {
        do {
            for try await frame in frames { await handle(frame, in: &group) }
            return Ending(reason: "the connection ended without a goodbye")
        } catch let error as FrameError {
            if isAdmitted {
                log.warning("closed a connection", metadata: about(error.description))
            } else {
                refuse(because: error.description)
            }
            if error.isAnswered { say(.refusal(Refusal(error.asTesseraError(isGreeting: true)))) }
            return Ending(reason: error.description, isLoss: !error.isDamage)
        } catch {
            return Ending(reason: TesseraError(wrapping: error).problem)
        }
    }

    private var isAdmitted: Bool { session.withLock { $0.isAdmitted } }

    /// Notes that the peer is not admitted.
    private func refuse(because reason: String) {
        let name = session.withLock { $0.claimedName }
        manager.refusals.note(
            .peer, address: connection.peerAddress, name: name, asked: "to connect to the job port", reason: reason)
    }

    /// Notes that an admitted peer asked for what it may not have.
    private func refuse(_ request: Message, of peer: PeerIdentity, because error: TesseraError) {
        let reason = error.file.map { "\($0): \(error.problem)" } ?? error.problem
        manager.refusals.note(
            .request, address: connection.peerAddress, name: peer.name, asked: request.asked, reason: reason)
    }

    private func about(_ reason: String) -> Logger.Metadata {
        var metadata: Logger.Metadata = ["address": "\(connection.peerAddress ?? "unknown")", "reason": "\(reason)"]
        if let name = session.withLock({ $0.claimedName }) { metadata["peer"] = "\(name)" }
        return metadata
    }

    /// Gives the worker's leases back at once, also while one of its blocks is being written.
    private func detach(_ ending: Ending) async {
        guard let worker = worker.withLock({ $0 }) else { return }
        // A coordinator that shuts down closes connections itself.
        guard !Task.isCancelled else { return await manager.dismissed(worker) }
        let own = closing.withLock { $0 }, isOrderly = session.withLock { $0.saidGoodbye }
        await manager.detach(
            worker, reason: own ?? ending.reason, isLoss: own == nil && ending.isLoss, isOrderly: isOrderly)
    }

    private func keepTime() async {
        var before = time.now(), version = securityVersion
        while !Task.isCancelled {
            try? await time.sleep(Self.tick)
            let now = time.now(), late = now - before - Self.tick, received = connection.bytesReceived
            before = now
            // Only tokens change, and they say who the peer is without a certificate.
            let isChanged = security.version != version
            version = security.version
            let actions = session.withLock { session in
                if late > Limits.standstill { session.stoodStill(for: late) }
                let sentAway = isChanged ? session.admits(by: security.policy(for: nil)) : []
                return sentAway + session.tick(at: now, bytesReceived: received)
            }
            for action in actions { await perform(action) }
        }
    }

    // MARK: Sending

    private func say(_ message: Message) { outboxInput.yield(.message(message)) }

    private func close(_ reason: String) {
        closing.withLock { $0 = $0 ?? reason }
        outboxInput.yield(.close(reason))
    }

    private func send(_ outgoing: Outgoing) async {
        switch outgoing {
        case .message(let message):
            do throws(TesseraError) {
                try connection.send(message)
            } catch {
                log.error("cannot send a message", metadata: ["message_type": "\(message.name)", "error": "\(error)"])
                await replace(message, error)
            }
        case .close(let reason):
            if isAdmitted { log.info("closing a connection", metadata: about(reason)) } else { refuse(because: reason) }
            try? connection.send(.goodbye(reason), urgent: true)
            connection.close()
        }
    }

    /// Does what has to be done instead of sending a message that no frame holds.
    private func replace(_ message: Message, _ error: TesseraError) async {
        switch message {
        case .lease(let lease):
            // No worker can be sent this lease: the shard must not be tried again.
            let failure = TesseraError(
                .usage, "the shard \(lease.work.label) is too large to be handed out: \(error.problem)",
                advice: "submit the job again with a smaller --shard-size")
            await manager.abandon(lease.attempt.job, error: failure)
        case .status, .submitted, .failure: say(.failure(Failure(problems: [error])))
        default: close(error.problem)
        }
    }

    // MARK: Receiving

    private func handle(_ frame: Frame, in group: inout DiscardingTaskGroup) async {
        do throws(TesseraError) {
            switch frame.header.type {
            case .control, .ordered:
                let message = try Message(frame)
                await perform(session.withLock { $0.received(message, at: time.now()) }, in: &group)
            case .block:
                let block = try BlockFrame(frame)
                let actions = session.withLock {
                    $0.receivedBlock(byteCount: frame.byteCount, of: block.attempt, at: time.now())
                }
                if actions == [.store] {
                    group.addTask { await self.store(block, byteCount: frame.byteCount) }
                } else {
                    await perform(actions, in: &group)
                }
            case .fetched: close("only the coordinator sends fetched frames")
            }
        } catch {
            await perform(session.withLock { $0.violated(error.problem) }, in: &group)
        }
    }

    private func perform(_ actions: [CoordinatorSession.Action], in group: inout DiscardingTaskGroup) async {
        for action in actions {
            switch action {
            case .fetch(let request): group.addTask { await self.fetch(request) }
            case .request(let request, let peer): await reply(await answer(request, of: peer))
            default: await perform(action)
            }
        }
    }

    private func perform(_ action: CoordinatorSession.Action) async {
        switch action {
        case .send(let message): say(message)
        case .allow(let limits): connection.allow(limits)
        case .admit(let hello):
            let id = await manager.attach(describe(hello)) { [outboxInput] in outboxInput.yield(.message($0)) }
            worker.withLock { $0 = id }
        case .refused(let request, let peer, let error): refuse(request, of: peer, because: error)
        case .close(let reason): close(reason)
        case .store, .fetch, .request: break
        case .renew, .heard, .silent, .finished, .failed, .violation, .drain:
            guard let worker = worker.withLock({ $0 }) else { return }
            await tell(action, of: worker)
        }
    }

    private func tell(_ action: CoordinatorSession.Action, of worker: JobManager.WorkerID) async {
        switch action {
        case .renew(let progress, let waiting): await manager.heartbeat(worker, progress, waiting: waiting)
        case .heard: await manager.heard(worker, isSilent: false)
        case .silent: await manager.heard(worker, isSilent: true)
        case .finished(let done): await manager.finished(done, by: worker)
        case .failed(let failed): await manager.failed(failed.attempt, by: worker, error: failed.error)
        case .violation(let error): await manager.violated(worker, error)
        case .drain: await manager.drain(worker)
        default: break
        }
    }

    private func describe(_ hello: Hello) -> WorkerDescription {
        WorkerDescription(
            name: hello.name, address: connection.peerAddress ?? "unknown", build: hello.build, threads: hello.threads,
            memory: hello.memory, tensorMemory: hello.tensorMemory ?? hello.memory, host: hello.host,
            instance: hello.instance)
    }

    // MARK: Blocks and fetches

    /// Writes a block to its place in the output, and returns its credit.
    private func store(_ block: BlockFrame, byteCount: Int) async {
        guard let worker = worker.withLock({ $0 }) else { return }
        defer { connection.giveBack(block.contents.payload) }
        do {
            if let target = try await manager.target(
                of: block.attempt, from: worker, tensor: block.tensor, offset: block.offset, byteCount: block.contents.length)
            {
                let digests = try await manager.pools.writing.run {
                    try block.contents.withUnpacked { try target.write($0) }
                }
                await manager.stored(digests, of: block.attempt)
            }
        } catch let error as TesseraError where error.code == .protocolMismatch {
            await manager.failed(block.attempt, by: worker, error: TesseraError(.temporary, error.problem))
            return close(error.problem)
        } catch {
            // The output cannot be written: no worker can help.
            await manager.cannotWrite(block.attempt.job, error: TesseraError(wrapping: error))
        }
        for action in session.withLock({ $0.storedBlock(byteCount: byteCount, of: block.attempt) }) { await perform(action) }
    }

    /// Answers a fetch, and those that waited for it.
    private func fetch(_ request: FetchRequest) async {
        var next: FetchRequest? = request
        while let request = next {
            await answer(request)
            next = nil
            for case .fetch(let waiting) in session.withLock({ $0.answeredFetch() }) { next = waiting }
        }
    }

    private func answer(_ request: FetchRequest) async {
        do {
            guard await manager.needs(request.file) else {
                throw TesseraError(.notAllowed, "no running job reads this file", file: request.file.path)
            }
            let inputs = inputs
            let bytes = try await manager.pools.reading.run {
                try inputs.read(request.file, request.offset..<request.offset + request.length)
            }
            // Until it has left, so that no more is kept in memory than a few answers.
            try await connection.sendAndWait(FetchedFrame(request: request.request, bytes: ByteBuffer(bytes: bytes)).frame)
        } catch {
            if let refused = error as? TesseraError, refused.code == .notAllowed {
                manager.refusals.note(
                    .request, address: connection.peerAddress, name: session.withLock { $0.claimedName },
                    asked: "to read \(request.file.path)", reason: refused.problem)
            }
            say(.fetchFailed(FetchFailed(request: request.request, error: TesseraError(wrapping: error))))
        }
    }

    // MARK: Clients

    /// Sends an answer and waits until the client has taken it, so that requests whose answers nobody reads take no memory.
    private func reply(_ answer: Message) async {
        await withDiscardingTaskGroup { group in
            group.addTask { if (try? await self.time.sleep(Limits.answering)) != nil { self.connection.close() } }
            do throws(TesseraError) {
                try await connection.sendAndWait(try answer.frame())
            } catch  where error.code == .internal {
                // Larger than a frame may be: said, and answered by an error.
                await send(.message(answer))
            } catch {
                log.debug("the client has not taken its answer", metadata: ["error": "\(error)"])
            }
            group.cancelAll()
        }
    }

    private func answer(_ request: Message, of peer: PeerIdentity) async -> Message {
        do {
            switch request {
            case .submit(let submission):
                // A client that has gone asks again on its next connection.
                let connection = connection
                return .submitted(try await manager.submit(submission, by: peer) { connection.isOpen })
            case .statusRequest(let request):
                if let id = request.job { await manager.end(of: id, within: .milliseconds(request.waitMilliseconds ?? 0)) }
                if let status = await manager.status(request, for: peer) { return .status(status) }
                throw TesseraError(
                    .inputMissing, "the coordinator has no job \(request.job.map { "\($0)" } ?? "?")",
                    advice: "'tessera status' lists the jobs")
            case .cancel(let cancel):
                try await manager.cancel(cancel.job, reason: cancel.reason, by: peer)
                return .cancelled(Cancelled(job: cancel.job))
            default: throw TesseraError(.protocolMismatch, "this request has no answer")
            }
        } catch let problems as Problems {
            if let refused = problems.all.first(where: { $0.code == .notAllowed }) { refuse(request, of: peer, because: refused) }
            return .failure(Failure(problems: problems.all))
        } catch {
            let error = TesseraError(wrapping: error)
            if error.code == .notAllowed { refuse(request, of: peer, because: error) }
            if case .submit = request, error.code == .io || error.code == .internal {
                // Nothing is wrong with the submission, but with this host.
                log.warning(
                    "cannot take a job",
                    metadata: ["asked": "\(request.asked)", "peer": "\(peer.name)", "error": "\(error)"])
            }
            return .failure(Failure(problems: [error]))
        }
    }
}
