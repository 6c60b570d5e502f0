import Glibc

/// Bytes per second of late: a mean in which each byte weighs less with its age, to 1/e after `memory`. Only time in which
/// somebody works counts, so a job that goes on after a wait has the rate that it had before.
struct Throughput: Sendable {
    /// Seconds.
    private static let memory = 30.0

    /// When the work began, and when `rate` was last brought up to date, both moved forward by the pauses since.
    private var since: Duration?
    private var last = Duration.zero
    private var rate = 0.0
    /// When the work stopped; `nil` while it goes on.
    private var pausedAt: Duration?

    /// Work has begun, or goes on after a pause.
    mutating func begin(at now: Duration) {
        guard let since else {
            since = now
            last = now
            return
        }
        guard let pausedAt else { return }
        let pause = max(.zero, now - pausedAt)
        self.since = since + pause
        last += pause
        self.pausedAt = nil
    }

    /// Nobody works for now.
    mutating func pause(at now: Duration) { if since != nil, pausedAt == nil { pausedAt = now } }

    mutating func add(_ bytes: Int, at now: Duration) {
        begin(at: now)
        rate = decayed(at: now) + Double(max(0, bytes)) / Self.memory
        last = max(last, now)
    }

    /// `nil` before the first second of work is over: a number would mean nothing.
    func bytesPerSecond(at now: Duration) -> Double? {
        let now = pausedAt ?? now
        guard let since, now - since >= .seconds(1) else { return nil }
        // What a steady stream of bytes has added up to by now, as a share of its rate.
        return decayed(at: now) / (1 - exp(-(now - since).seconds / Self.memory))
    }

    private func decayed(at now: Duration) -> Double { rate * exp(-max(0, (now - last).seconds) / Self.memory) }
}

/// How long a job had to wait, all together.
struct WaitingTime: Sendable {
    private var past = Duration.zero
    private var since: Duration?
    private var hasEnded = false

    mutating func note(_ waits: Bool, at now: Duration) {
        guard !hasEnded, waits != (since != nil) else { return }
        past = total(at: now)
        since = waits ? now : nil
    }

    mutating func end(at now: Duration) {
        note(false, at: now)
        hasEnded = true
    }

    func total(at now: Duration) -> Duration { past + (since.map { max(.zero, now - $0) } ?? .zero) }
}
