import Glibc

/// Bytes per second of late: a mean in which each byte weighs less with its age, to 1/e after `memory`.
struct Throughput: Sendable {
    /// Seconds.
    private static let memory = 30.0

    /// When the work began, and when `rate` was last brought up to date.
    private var since: Duration?
    private var last = Duration.zero
    private var rate = 0.0

    /// Work has begun, if it had not before.
    mutating func begin(at now: Duration) {
        guard since == nil else { return }
        since = now
        last = now
    }

    mutating func add(_ bytes: Int, at now: Duration) {
        begin(at: now)
        rate = decayed(at: now) + Double(max(0, bytes)) / Self.memory
        last = max(last, now)
    }

    /// `nil` before the first second of work is over: a number would mean nothing.
    func bytesPerSecond(at now: Duration) -> Double? {
        guard let since, now - since >= .seconds(1) else { return nil }
        // What a steady stream of bytes has added up to by now, as a share of its rate.
        return decayed(at: now) / (1 - exp(-(now - since).seconds / Self.memory))
    }

    private func decayed(at now: Duration) -> Double { rate * exp(-max(0, (now - last).seconds) / Self.memory) }
}
