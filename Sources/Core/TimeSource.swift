import CLinux
import Glibc

/// Where drivers take the time from, so that tests can move it by hand.
package struct TimeSource: Sendable {
    /// Monotonic time from an origin of its own.
    package var now: @Sendable () -> Duration
    /// Seconds since 1970, for people to read; nothing is decided by it.
    package var wallClock: @Sendable () -> Double
    /// Returns after the duration.
    ///
    /// Throws `CancellationError` as soon as the task is cancelled.
    package var sleep: @Sendable (Duration) async throws -> Void

    package init(
        now: @escaping @Sendable () -> Duration, wallClock: @escaping @Sendable () -> Double,
        sleep: @escaping @Sendable (Duration) async throws -> Void
    ) {
        self.now = now
        self.wallClock = wallClock
        self.sleep = sleep
    }

    private static let origin = ContinuousClock.now

    /// The clocks of this host.
    package static let system = TimeSource(
        now: { ContinuousClock.now - origin },
        wallClock: {
            var time = timespec()
            clock_gettime(CLOCK_REALTIME, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        },
        sleep: { try await Task.sleep(for: $0) })
}
