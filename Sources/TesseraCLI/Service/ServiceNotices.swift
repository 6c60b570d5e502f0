import Core

/// What a service says to systemd, in the words of sd_notify(3), and when.
///
/// A value: ticks of the loop that does the work go in, messages come out. While that loop stands still nothing is said, and the
/// watchdog of the service manager ends the process.
struct ServiceNotices {
    /// How long the service manager waits for a sign of life; `nil` where it does not watch.
    private let watchdog: Duration?
    /// `nil` for at once.
    private var nextSign: Duration?
    private var status: String?
    private var nextStatus: Duration?

    /// A status is for people: it changes at most this often.
    private static let statusInterval = Duration.seconds(1)

    init(watchdog: Duration?) { self.watchdog = watchdog }

    /// - Parameter newStatus: one line that says what the service does.
    /// - Returns: `nil` when there is nothing to say.
    mutating func tick(_ newStatus: String, at now: Duration) -> String? {
        var lines: [String] = []
        if newStatus != status, now >= nextStatus ?? now {
            lines.append("STATUS=\(newStatus.printable)")
            status = newStatus
            nextStatus = now + Self.statusInterval
        }
        if let watchdog, now >= nextSign ?? now {
            lines.append("WATCHDOG=1")
            // A message may be lost, and a tick may be late: the manual asks for twice in the time, we say it four times.
            nextSign = now + watchdog / 4
        }
        return lines.isEmpty ? nil : lines.joined(separator: "\n")
    }
}
