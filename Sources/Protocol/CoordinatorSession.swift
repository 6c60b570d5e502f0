import Core
import TensorKernels
import Work

/// The coordinator's end of one connection: a value that decides what each frame means and what is answered.
///
/// ```
/// greeting ──hello──▶ worker ──silence, overrun, nonsense──▶ closed
///     │        └────▶ client ──nonsense──▶ closed
///     └──refusal, silence──▶ closed
/// ```
package struct CoordinatorSession: Sendable {
    /// What the driver does next, in order.
    package enum Action: Sendable, Equatable {
        case send(Message)
        /// A worker that may be given leases.
        case admit(Hello)
        case renew([LeaseProgress])
        case finished(ShardDone)
        case failed(ShardFailed)
        case fetch(FetchRequest)
        case drain
        /// A client's request, to be answered by one message.
        case request(Message)
        /// Close the connection; nothing more is done for it.
        case close(reason: String)
    }

    private enum State {
        case greeting(until: Duration)
        /// `owed`: bytes of blocks that came and are not stored yet.
        case worker(lastHeard: Duration, owed: Int)
        case client
        case closed
    }

    private var state: State
    private let number: Int
    private let build: String
    private let heartbeat: Duration

    /// - Parameter number: of the connection, unique in this coordinator.
    package init(number: Int, build: String, heartbeat: Duration = Limits.heartbeatInterval, at now: Duration) {
        state = .greeting(until: now + Limits.greeting)
        self.number = number
        self.build = build
        self.heartbeat = heartbeat
    }

    package mutating func received(_ message: Message, at now: Duration) -> [Action] {
        switch (state, message) {
        case (.greeting, .hello(let hello)): greet(hello, at: now)
        case (.greeting, _): close("expected hello")
        case (.worker(_, let owed), _): worker(message, owed: owed, at: now)
        case (.client, .submit), (.client, .statusRequest), (.client, .cancel): [.request(message)]
        case (.client, .goodbye(let reason)): close(reason)
        case (.client, _): close("a client does not say this")
        case (.closed, _): []
        }
    }

    private mutating func greet(_ hello: Hello, at now: Duration) -> [Action] {
        let version = Int(FrameHeader.protocolVersion)
        guard hello.oldestVersion <= version, version <= hello.newestVersion else {
            return refuse(
                "it speaks protocol \(hello.oldestVersion) to \(hello.newestVersion) (build \(hello.build)), the coordinator \(version) (build \(build))"
            )
        }
        guard hello.role == .client || hello.numericsVersion == numericsVersion else {
            return refuse(
                "it computes with numerics \(hello.numericsVersion) (build \(hello.build)), the coordinator with \(numericsVersion) (build \(build)): their results would differ"
            )
        }
        let welcome = Welcome(
            version: version, build: build, session: number, heartbeatMilliseconds: Int(heartbeat / .milliseconds(1)),
            credit: Limits.creditBytes)
        switch hello.role {
        case .client:
            state = .client
            return [.send(.welcome(welcome))]
        case .worker:
            guard hello.threads > 0 else { return refuse("a worker needs at least one thread") }
            state = .worker(lastHeard: now, owed: 0)
            return [.send(.welcome(welcome)), .admit(hello)]
        }
    }

    private mutating func worker(_ message: Message, owed: Int, at now: Duration) -> [Action] {
        state = .worker(lastHeard: now, owed: owed)
        switch message {
        case .heartbeat(let beat): return [.send(.heartbeatAnswer(HeartbeatAnswer(number: beat.number))), .renew(beat.leases)]
        case .shardDone(let done): return [.finished(done)]
        case .shardFailed(let failed): return [.failed(failed)]
        case .fetch(let request):
            guard (1...Limits.fetchBytes).contains(request.length), request.length <= request.file.size,
                (0...request.file.size - request.length).contains(request.offset)
            else {
                let error = TesseraError(
                    .protocolMismatch,
                    "a request for \(request.length) bytes at \(request.offset) of a file of \(request.file.size)")
                return [.send(.fetchFailed(FetchFailed(request: request.request, error: error)))]
            }
            return [.fetch(request)]
        case .drain: return [.drain, .send(.drain)]
        case .goodbye(let reason): return close(reason)
        default: return close("a worker does not say this")
        }
    }

    /// A block frame of that many bytes came in.
    package mutating func receivedBlock(byteCount: Int, at now: Duration) -> [Action] {
        guard case .worker(_, let owed) = state else { return close("only workers send blocks") }
        guard owed + byteCount <= Limits.creditBytes else { return close("more bytes than it had credit for") }
        state = .worker(lastHeard: now, owed: owed + byteCount)
        return []
    }

    /// The block frame is dealt with; the worker may send as much again.
    package mutating func storedBlock(byteCount: Int) -> [Action] {
        guard case .worker(let lastHeard, let owed) = state else { return [] }
        state = .worker(lastHeard: lastHeard, owed: max(0, owed - byteCount))
        return [.send(.credit(Credit(bytes: byteCount)))]
    }

    package mutating func tick(at now: Duration) -> [Action] {
        switch state {
        case .greeting(let deadline) where now >= deadline: close("no hello in time")
        case .worker(let lastHeard, _) where now - lastHeard > heartbeat * Limits.missedHeartbeats: close("no sign of life")
        case .greeting, .worker, .client, .closed: []
        }
    }

    private mutating func refuse(_ problem: String) -> [Action] {
        state = .closed
        let error = TesseraError(
            .protocolMismatch, "the coordinator refuses this peer: \(problem)",
            advice: "run the same build of Tessera on all hosts")
        return [.send(.refusal(Refusal(error))), .close(reason: problem)]
    }

    private mutating func close(_ reason: String) -> [Action] {
        state = .closed
        return [.close(reason: reason)]
    }
}
