/// The delay before a worker reconnects: doubling, with random jitter so that many workers do not reconnect at once.
package struct ReconnectBackoff: Sendable {
    private var failures = 0
    private static let first = Duration.milliseconds(200)
    private static let longest = Duration.seconds(10)

    package init() {}

    /// What drivers pass to `next`.
    package static func random() -> Double { .random(in: 0..<1) }

    /// - Parameter random: 0..<1.
    package mutating func next(random: Double) -> Duration {
        let full = min(Self.longest, Self.first * (1 << min(failures, 16)))
        failures += 1
        return full * (0.5 + random / 2)
    }

    package mutating func succeeded() { failures = 0 }
}
