package import Core

/// The worker's end of its connection: a value that interprets each message and decides what to send and when.
///
/// ```
/// greeting ──welcome──▶ working ──silence, goodbye──▶ closed
///     └──refusal, silence──▶ closed
/// ```
///
/// Draining is part of working: requested, then confirmed by the coordinator (after which no lease can be in flight), and
/// complete when no lease is left.
package struct WorkerSession: Sendable {
    /// The driver's next actions, in order.
    package enum Action: Sendable, Equatable {
        case send(Message)
        /// The coordinator admitted this worker.
        case welcomed(Welcome)
        case start(Lease)
        /// Stop the attempt and forget it.
        case stop(Attempt)
        case credit(Int)
        case fetchFailed(FetchFailed)
        /// The last lease has ended and no other will come: say goodbye; the coordinator then closes the connection.
        case drained
        /// Close the connection. After a final close the worker must not reconnect.
        case close(TesseraError, isFinal: Bool)
    }

    private enum State {
        case greeting(until: Duration)
        case working(Working)
        case closed
    }

    fileprivate struct Working {
        enum Draining { case no, asked, confirmed, done }

        var draining = Draining.no
        var lastHeard: Duration
        var bytesReceived = 0
        var nextBeat: Duration
        let interval: Duration
        var beatCount = 0
        var lastAnswered = 0
        /// When the last whole message came.
        var lastMessage: Duration
        /// Unanswered heartbeats: the time of each and the leases that it named.
        var unanswered: [Int: (at: Duration, named: [Attempt])] = [:]
        var leases: [Attempt: HeldLease] = [:]
    }

    fileprivate struct HeldLease {
        let lasts: Duration
        /// By this worker's own clock.
        var ends: Duration
        /// Output bytes, as last heard.
        var bytesDone = 0
    }

    private var state: State
    /// Whether a first answer that makes no sense is taken for damage on its way: the peer is known for a coordinator, or has not
    /// answered like that often enough.
    private let trustsPeer: Bool
    /// Whether the first answer made no sense.
    package private(set) var hasMetStranger = false

    package init(at now: Duration, trustsPeer: Bool = false) {
        state = .greeting(until: now + Limits.greeting)
        self.trustsPeer = trustsPeer
    }

    package mutating func received(_ message: Message, at now: Duration) -> [Action] {
        do throws(TesseraError) {
            try message.validate()
        } catch {
            return garbled(error)
        }
        switch (state, message) {
        case (.closed, _): return []
        case (_, .refusal(let refusal)): return close(refusal.error, isFinal: true)
        case (.greeting, .welcome(let welcome)):
            let interval = Duration.milliseconds(welcome.heartbeatMilliseconds)
            state = .working(Working(lastHeard: now, nextBeat: now + interval, interval: interval, lastMessage: now))
            return [.welcomed(welcome)]
        // A whole message: the peer is a coordinator, and its first frame has been lost.
        case (.greeting, _):
            return close(TesseraError(.unreachable, "the coordinator did not answer with welcome"), isFinal: false)
        case (.working(var working), _):
            let actions = working.received(message, at: now)
            (working.lastHeard, working.lastMessage) = (now, now)
            guard let actions else {
                return garbled(
                    TesseraError(.protocolMismatch, "the coordinator sent '\(message.name)', which a worker does not expect"))
            }
            state = .working(working)
            if case .close? = actions.last { state = .closed }
            return actions
        }
    }

    /// The peer sent something other than a valid frame or message of a coordinator.
    ///
    /// As the very first answer of a peer that is not trusted, that means that the peer is no coordinator for this build, and the
    /// close is final. Otherwise, it means a damaged connection, and the worker reconnects.
    package mutating func garbled(_ error: TesseraError) -> [Action] {
        if case .greeting = state { hasMetStranger = true }
        guard hasMetStranger, !trustsPeer else {
            return close(TesseraError(.unreachable, error.problem), isFinal: false)
        }
        return close(error, isFinal: error.code == .protocolMismatch)
    }

    /// Like `garbled`, for bytes that are not a frame.
    package mutating func broke(_ error: FrameError) -> [Action] {
        if case .greeting = state { return garbled(error.asTesseraError(isGreeting: true)) }
        return close(error.asTesseraError(isGreeting: false), isFinal: false)
    }

    /// The attempt has ended on this worker, and its result or failure has been sent.
    package mutating func ended(_ attempt: Attempt) -> [Action] {
        guard case .working(var working) = state else { return [] }
        working.leases[attempt] = nil
        let actions = working.finishDraining()
        state = .working(working)
        return actions
    }

    /// Accept no more leases, and leave after the last one.
    package mutating func drain() -> [Action] {
        guard case .working(var working) = state else {
            return close(TesseraError(.cancelled, "shutting down"), isFinal: false)
        }
        working.draining = .asked
        state = .working(working)
        return [.send(.drain)]
    }

    /// - Parameters:
    ///   - bytesReceived: all bytes received on this connection so far. Every byte counts as a sign of life.
    ///   - progress: the progress of running leases, for a heartbeat that may be due. A heartbeat names every lease that has not
    ///     `ended`, including leases not yet started and leases whose result is still being sent.
    package mutating func tick(at now: Duration, bytesReceived: Int, progress: [LeaseProgress]) -> [Action] {
        switch state {
        case .greeting(let deadline) where now >= deadline:
            return close(TesseraError(.unreachable, "the coordinator did not answer in time"), isFinal: false)
        case .working(var working):
            if bytesReceived != working.bytesReceived {
                working.bytesReceived = bytesReceived
                working.lastHeard = now
            }
            guard now - working.lastHeard <= working.interval * Limits.missedHeartbeats else {
                return close(TesseraError(.unreachable, "the coordinator has gone silent"), isFinal: false)
            }
            let actions = working.tick(at: now, progress: progress)
            state = .working(working)
            return actions
        case .greeting, .closed: return []
        }
    }

    /// This process did not run for so long: the coordinator could not be heard meanwhile. Leases may have ended all the same.
    package mutating func stoodStill(for pause: Duration) {
        switch state {
        case .greeting(let deadline): state = .greeting(until: deadline + pause)
        case .working(var working):
            working.lastHeard += pause
            state = .working(working)
        case .closed: break
        }
    }

    private mutating func close(_ error: TesseraError, isFinal: Bool) -> [Action] {
        guard !isClosed else { return [] }
        state = .closed
        return [.close(error, isFinal: isFinal)]
    }

    private var isClosed: Bool {
        if case .closed = state { true } else { false }
    }
}

extension WorkerSession.Working {
    /// - Returns: `nil` for a message that a worker does not expect.
    fileprivate mutating func received(_ message: Message, at now: Duration) -> [WorkerSession.Action]? {
        switch message {
        case .heartbeatAnswer(let answer):
            // The leases that the heartbeat named begin anew, counted from when it was sent: never later than the coordinator
            // counts.
            guard let beat = unanswered[answer.number] else {
                if answer.number == lastAnswered { receivesMuch() }
                return []
            }
            lastAnswered = answer.number
            unanswered = unanswered.filter { $0.key > answer.number }
            for attempt in beat.named {
                if let lasts = leases[attempt]?.lasts { leases[attempt]?.ends = beat.at + lasts }
            }
            return []
        case .lease(let lease):
            let lasts = Duration.milliseconds(lease.milliseconds)
            leases[lease.attempt] = WorkerSession.HeldLease(lasts: lasts, ends: now + lasts)
            return [.start(lease)]
        case .revoke(let revoke):
            return leases.removeValue(forKey: revoke.attempt) == nil ? [] : [.stop(revoke.attempt)] + finishDraining()
        case .drain where draining == .asked:
            draining = .confirmed
            return finishDraining()
        case .credit(let credit): return [.credit(credit.bytes)]
        case .fetchFailed(let failed): return [.fetchFailed(failed)]
        case .goodbye(let reason):
            return [.close(TesseraError(.unreachable, reason), isFinal: false)]
        default: return nil
        }
    }

    /// The coordinator repeats an answer: it gets a large frame of this worker, behind which heartbeats wait. Leases begin anew,
    /// counted from its message before this one: it renewed them after that.
    private mutating func receivesMuch() {
        for (attempt, lease) in leases { leases[attempt]?.ends = max(lease.ends, lastMessage + lease.lasts) }
    }

    fileprivate mutating func finishDraining() -> [WorkerSession.Action] {
        guard draining == .confirmed, leases.isEmpty else { return [] }
        draining = .done
        return [.drained]
    }

    fileprivate mutating func tick(at now: Duration, progress: [LeaseProgress]) -> [WorkerSession.Action] {
        let overdue = leases.filter { $0.value.ends <= now }.map(\.key)
            .sorted()
        for attempt in overdue { leases[attempt] = nil }
        var actions = overdue.map(WorkerSession.Action.stop) + finishDraining()
        if now >= nextBeat {
            for entry in progress { leases[entry.attempt]?.bytesDone = entry.bytesDone }
            let held = leases.map { LeaseProgress(attempt: $0.key, bytesDone: $0.value.bytesDone) }
                .sorted { $0.attempt < $1.attempt }
            beatCount += 1
            unanswered[beatCount] = (now, held.map(\.attempt))
            nextBeat = now + interval
            actions.append(.send(.heartbeat(Heartbeat(number: beatCount, leases: held))))
        }
        return actions
    }
}
