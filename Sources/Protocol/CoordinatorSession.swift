package import Core
import TensorKernels
import Work

/// The coordinator's end of one connection: a value that interprets each frame and decides the answer.
///
/// ```
/// greeting ──hello──▶ worker ──silence, overrun, nonsense──▶ closed
///     │        └────▶ client ──nonsense──▶ closed
///     └──refusal, silence──▶ closed
/// ```
package struct CoordinatorSession: Sendable {
    /// The driver's next actions, in order.
    package enum Action: Sendable, Equatable {
        case send(Message)
        /// The peer is admitted: accept these frames from now on.
        case allow(FrameLimits)
        /// A worker has joined and may be given leases.
        case admit(Hello)
        /// - Parameter waiting: leases that cannot get on because their blocks are not stored yet.
        case renew([LeaseProgress], waiting: Set<Attempt>)
        /// Bytes of the worker arrive, but no heartbeat.
        case heard
        /// Nothing has come from the worker for so long that it may be gone.
        case silent
        /// Store the block that was received. Blocks may be stored at the same time and in any order.
        case store
        /// A shard's result has arrived and all its blocks are stored.
        case finished(ShardDone)
        case failed(ShardFailed)
        case fetch(FetchRequest)
        case drain
        /// Answer a client's request with one message. The client's roles allow requests of this kind; whether they allow this
        /// one depends on the job.
        case request(Message, of: PeerIdentity)
        /// A client asked for what its roles do not allow, and was told so.
        case refused(Message, of: PeerIdentity, TesseraError)
        /// The worker sent what none may send: what it works on counts as failed. `close` follows.
        case violation(TesseraError)
        /// Close the connection. No action follows.
        case close(reason: String)
    }

    private enum State {
        case greeting(until: Duration)
        case worker(AdmittedWorker)
        case client(PeerIdentity, lastHeard: Duration)
        case closed
    }

    private var state: State
    private let number: Int
    private let build: String
    private let heartbeat: Duration
    private var access = AccessPolicy.anyone
    /// How the peer was admitted.
    private var admission: (token: AccessToken?, peer: PeerIdentity)?
    /// What the peer calls itself, admitted or not.
    package private(set) var claimedName: String?
    package var isAdmitted: Bool { admission != nil }
    /// Whether the peer leaves, and does not merely vanish.
    package private(set) var saidGoodbye = false

    /// - Parameter number: of the connection, unique in this coordinator.
    package init(number: Int, build: String, heartbeat: Duration = Limits.heartbeatInterval, at now: Duration) {
        state = .greeting(until: now + Limits.greeting)
        self.number = number
        self.build = build
        self.heartbeat = heartbeat
    }

    /// Decides whom the session admits. Called before the first message, once the connection's handshake is over.
    package mutating func admit(by access: AccessPolicy) { self.access = access }

    /// Others are admitted from now on. A peer that was admitted and would not be now, or with other roles, is sent away; it may
    /// come back with what is accepted.
    package mutating func admits(by access: AccessPolicy) -> [Action] {
        self.access = access
        if case .closed = state { return [] }
        guard let admission else { return [] }
        let peer = try? access.identify(admission.token)
        guard peer?.roles != admission.peer.roles || peer?.owner != admission.peer.owner else { return [] }
        return close("\(admission.peer.title) was admitted by a token that has been removed, or has other roles now")
    }

    package mutating func received(_ message: Message, at now: Duration) -> [Action] {
        do throws(TesseraError) {
            try message.validate()
        } catch {
            return outOfBounds(error)
        }
        if case .goodbye = message { saidGoodbye = true }
        switch (state, message) {
        case (.greeting, .hello(let hello)): return greet(hello, at: now)
        case (.greeting, _): return close("expected hello")
        case (.worker, _): return withWorker { $0.received(message, at: now) }
        case (.client(let peer, _), .submit), (.client(let peer, _), .statusRequest), (.client(let peer, _), .cancel):
            state = .client(peer, lastHeard: now)
            return request(message, of: peer)
        case (.client, .goodbye(let reason)): return close(reason)
        case (.client, _): return close("a client does not say this")
        case (.closed, _): return []
        }
    }

    /// A block frame of `byteCount` bytes, header included, was received.
    package mutating func receivedBlock(byteCount: Int, of attempt: Attempt, at now: Duration) -> [Action] {
        guard case .worker = state else { return close("only workers send blocks") }
        return withWorker { $0.receivedBlock(byteCount: byteCount, of: attempt, at: now) }
    }

    /// The block has been stored or dropped: returns its credit to the worker.
    package mutating func storedBlock(byteCount: Int, of attempt: Attempt) -> [Action] {
        withWorker { $0.storedBlock(byteCount: byteCount, of: attempt) }
    }

    /// The answer to a fetch has been sent.
    package mutating func answeredFetch() -> [Action] { withWorker { $0.answeredFetch() } }

    /// - Parameter bytesReceived: all bytes received on this connection so far. Every byte counts as a sign of life, even within
    ///   an unfinished frame.
    package mutating func tick(at now: Duration, bytesReceived: Int) -> [Action] {
        let interval = heartbeat
        switch state {
        case .greeting(let deadline) where now >= deadline: return close("no hello in time")
        case .worker: return withWorker { $0.tick(at: now, bytesReceived: bytesReceived, interval: interval) }
        case .client(_, let lastHeard) where now - lastHeard > Limits.idleClient: return close("no request for a long time")
        case .greeting, .client, .closed: return []
        }
    }

    /// This process did not run for so long: nobody could be heard meanwhile.
    package mutating func stoodStill(for pause: Duration) {
        switch state {
        case .greeting(let deadline): state = .greeting(until: deadline + pause)
        case .worker(var worker):
            worker.stoodStill(for: pause)
            state = .worker(worker)
        case .client(let peer, let lastHeard): state = .client(peer, lastHeard: lastHeard + pause)
        case .closed: break
        }
    }

    // MARK: Greeting

    private mutating func greet(_ hello: Hello, at now: Duration) -> [Action] {
        claimedName = hello.name
        let version = Int(FrameHeader.protocolVersion)
        guard hello.oldestVersion <= version, version <= hello.newestVersion else {
            return refuse(
                "it speaks protocol \(hello.oldestVersion) to \(hello.newestVersion) (build \(hello.build)), "
                    + "the coordinator \(version) (build \(build))"
            )
        }
        guard hello.role == .client || hello.numericsVersion == numericsVersion else {
            return refuse(
                "it computes with numerics \(hello.numericsVersion) (build \(hello.build)), "
                    + "the coordinator with \(numericsVersion) (build \(build)): their results would differ"
            )
        }
        let peer: PeerIdentity
        do throws(TesseraError) {
            peer = try access.identify(hello.token)
            switch hello.role {
            case .worker: try peer.require(.worker, to: "connect as a worker")
            case .client: try peer.require(.submitter, .operator, .viewer, to: "connect as a client")
            }
        } catch {
            return refuse(error)
        }
        let welcome = Welcome(
            version: version, build: build, session: number, heartbeatMilliseconds: max(1, Int(heartbeat / .milliseconds(1))),
            credit: Limits.creditBytes)
        admission = (hello.token, peer)
        switch hello.role {
        case .client:
            state = .client(peer, lastHeard: now)
            return [.allow(.messages), .send(.welcome(welcome))]
        case .worker:
            state = .worker(AdmittedWorker(lastHeard: now))
            return [.allow(.worker), .send(.welcome(welcome)), .admit(hello)]
        }
    }

    private mutating func outOfBounds(_ error: TesseraError) -> [Action] {
        switch state {
        case .greeting: refuse(error.problem, advice: nil)
        case .client: [.send(.failure(Failure(problems: [error])))]
        case .worker, .closed: violated(error.problem)
        }
    }

    /// The peer sent what no build sends, such as a frame that holds no message.
    package mutating func violated(_ reason: String) -> [Action] {
        guard case .worker = state else { return close(reason) }
        state = .closed
        return Self.violation(reason)
    }

    static func violation(_ reason: String) -> [Action] {
        [.violation(TesseraError(.temporary, reason)), .close(reason: reason)]
    }

    private mutating func refuse(
        _ problem: String, advice: String? = "run the same build of Tessera on all hosts"
    ) -> [Action] {
        refuse(TesseraError(.protocolMismatch, problem, advice: advice))
    }

    private mutating func refuse(_ error: TesseraError) -> [Action] {
        state = .closed
        var told = error
        told.problem = "the coordinator refuses this peer: \(error.problem)"
        return [.send(.refusal(Refusal(told))), .close(reason: error.problem)]
    }

    /// A client's request, if its roles allow the request.
    private func request(_ message: Message, of peer: PeerIdentity) -> [Action] {
        do throws(TesseraError) {
            switch message {
            case .submit: try peer.require(.submitter, .operator, to: "submit jobs")
            case .cancel: try peer.require(.submitter, .operator, to: "cancel jobs")
            default: break
            }
            return [.request(message, of: peer)]
        } catch {
            return [.send(.failure(Failure(problems: [error]))), .refused(message, of: peer, error)]
        }
    }

    private mutating func close(_ reason: String) -> [Action] {
        state = .closed
        return [.close(reason: reason)]
    }

    private mutating func withWorker(_ body: (inout AdmittedWorker) -> [Action]) -> [Action] {
        guard case .worker(var worker) = state else { return [] }
        let actions = body(&worker)
        state = .worker(worker)
        if case .close? = actions.last { state = .closed }
        return actions
    }
}
