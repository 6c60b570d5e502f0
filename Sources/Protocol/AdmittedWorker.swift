import Core
import Work

/// The state of an admitted worker's connection: credit, blocks being stored, results that wait for blocks, and fetches.
struct AdmittedWorker: Sendable {
    private var lastHeard: Duration
    private var bytesReceived = 0
    /// Whether the worker was said to be silent.
    private var isSilent = false
    /// Bytes arrived since the last heartbeat was answered, or its answer repeated.
    private var hasNews = false
    private var lastAnswer: (number: Int, at: Duration)
    /// Bytes of block frames received but not yet stored.
    private var owed = 0
    /// Blocks that are being stored.
    private var storing: [Attempt: Int] = [:]
    /// Results that arrived before the last of their blocks was stored.
    private var heldResults: [Attempt: ShardDone] = [:]
    /// Output bytes, as the last heartbeat named them.
    private var progress: [Attempt: Int] = [:]
    /// The reason to close the connection once no result is held.
    private var goodbye: String?
    private var fetching = 0
    private var waitingFetches: [FetchRequest] = []

    init(lastHeard: Duration) {
        self.lastHeard = lastHeard
        lastAnswer = (0, lastHeard)
    }

    /// - Parameter interval: between heartbeats.
    mutating func tick(at now: Duration, bytesReceived total: Int, interval: Duration) -> [CoordinatorSession.Action] {
        if total != bytesReceived {
            bytesReceived = total
            lastHeard = now
            hasNews = true
        }
        let silence = now - lastHeard
        guard silence <= interval * Limits.missedHeartbeats else { return [.close(reason: "no sign of life")] }
        let wasSilent = isSilent
        isSilent = silence > interval * Limits.doubtfulHeartbeats
        if isSilent != wasSilent { return [isSilent ? .silent : .heard] }
        // A frame takes longer than an interval, and heartbeats wait behind it.
        guard hasNews, now - lastAnswer.at > interval * 1.5 else { return [] }
        hasNews = false
        lastAnswer.at = now
        return [.send(.heartbeatAnswer(HeartbeatAnswer(number: lastAnswer.number))), .heard]
    }

    mutating func stoodStill(for pause: Duration) {
        lastHeard += pause
        lastAnswer.at += pause
    }

    mutating func received(_ message: Message, at now: Duration) -> [CoordinatorSession.Action] {
        lastHeard = now
        switch message {
        case .heartbeat(let beat):
            (hasNews, lastAnswer) = (false, (beat.number, now))
            return [
                .send(.heartbeatAnswer(HeartbeatAnswer(number: beat.number))), .renew(renewed(by: beat), waiting: waiting),
            ]
        case .shardDone(let done):
            guard storing[done.attempt] == nil else {
                heldResults[done.attempt] = done
                return []
            }
            return [.finished(done)]
        case .shardFailed(let failed):
            heldResults[failed.attempt] = nil
            return [.failed(failed)]
        case .fetch(let request): return fetch(request)
        case .drain: return [.drain, .send(.drain)]
        case .goodbye(let reason):
            goodbye = reason
            return leave()
        default: return CoordinatorSession.violation("a worker does not say this")
        }
    }

    /// The leases that a heartbeat names and those of held results. The worker considers the latter finished, but they must not
    /// expire because of a slow disk.
    private mutating func renewed(by beat: Heartbeat) -> [LeaseProgress] {
        let last = progress
        progress = Dictionary(beat.leases.map { ($0.attempt, $0.bytesDone) }) { $1 }
        let held = heldResults.keys.filter { progress[$0] == nil }.sorted()
        for attempt in held { progress[attempt] = last[attempt] ?? 0 }
        return beat.leases + held.map { LeaseProgress(attempt: $0, bytesDone: progress[$0] ?? 0) }
    }

    /// Attempts whose blocks wait to be stored; all of them when that has used up the worker's credit.
    private var waiting: Set<Attempt> {
        let isOutOfCredit = owed > Limits.creditBytes - (Limits.headerBytes + Limits.dataBodyBytes)
        return Set(isOutOfCredit ? Array(progress.keys) : Array(storing.keys) + Array(heldResults.keys))
    }

    private func leave() -> [CoordinatorSession.Action] {
        guard let goodbye, heldResults.isEmpty else { return [] }
        return [.close(reason: goodbye)]
    }

    // MARK: Blocks

    mutating func receivedBlock(byteCount: Int, of attempt: Attempt, at now: Duration) -> [CoordinatorSession.Action] {
        lastHeard = now
        guard byteCount <= Limits.creditBytes - owed else {
            return CoordinatorSession.violation("more bytes than it had credit for")
        }
        owed += byteCount
        storing[attempt, default: 0] += 1
        return [.store]
    }

    mutating func storedBlock(byteCount: Int, of attempt: Attempt) -> [CoordinatorSession.Action] {
        owed = max(0, owed - byteCount)
        let credit = CoordinatorSession.Action.send(.credit(Credit(bytes: byteCount)))
        let left = (storing[attempt] ?? 1) - 1
        storing[attempt] = left > 0 ? left : nil
        guard left <= 0, let done = heldResults.removeValue(forKey: attempt) else { return [credit] }
        return [credit, .finished(done)] + leave()
    }

    // MARK: Fetches

    private mutating func fetch(_ request: FetchRequest) -> [CoordinatorSession.Action] {
        guard (1...Limits.fetchBytes).contains(request.length), request.length <= request.file.size,
            (0...request.file.size - request.length).contains(request.offset)
        else {
            let error = TesseraError(
                .protocolMismatch, "a request for \(request.length) bytes at \(request.offset) of a file of \(request.file.size)")
            return [.send(.fetchFailed(FetchFailed(request: request.request, error: error)))]
        }
        guard fetching < Limits.fetchesAtOnce else {
            guard waitingFetches.count < Limits.threads else {
                return CoordinatorSession.violation("more requests than a worker has threads")
            }
            waitingFetches.append(request)
            return []
        }
        fetching += 1
        return [.fetch(request)]
    }

    mutating func answeredFetch() -> [CoordinatorSession.Action] {
        guard waitingFetches.isEmpty else { return [.fetch(waitingFetches.removeFirst())] }
        fetching = max(0, fetching - 1)
        return []
    }
}
