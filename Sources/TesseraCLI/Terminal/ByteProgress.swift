import Core
import Glibc
import Synchronization

/// Shows on a terminal how much has been read, in one line that goes away at the end. Shows nothing elsewhere.
final class ByteProgress: Sendable {
    private let label: String
    private let total: Int
    private let start = ContinuousClock.now
    private let state = Mutex((done: 0, next: ContinuousClock.now))

    private static let interval = Duration.milliseconds(100)

    /// - Parameter label: what is being done: `verified`.
    init(_ label: String, of total: Int) {
        self.label = label
        self.total = total
    }

    /// Called from any thread.
    func add(_ bytes: Int) {
        state.withLock { state in
            state.done += bytes
            let now = ContinuousClock.now
            guard Terminal.isInteractive, total > 0, now >= state.next else { return }
            state.next = now + Self.interval
            let line = line(state.done, after: start.duration(to: now))
            Terminal.showLive([line.shortened(toColumns: Terminal.size(STDERR_FILENO).width - 1)])
        }
    }

    func finish() {
        if Terminal.isInteractive { Terminal.showLive([]) }
    }

    private func line(_ done: Int, after elapsed: Duration) -> String {
        let seconds = elapsed / .seconds(1)
        return "\(label) \(Quantity.bytes(done)) of \(Quantity.bytes(total)), \(100 * done / total) %, "
            + Quantity.rate(done, seconds)
    }
}
