import Core

/// What a worker did since it last said so: a line for each shard would be too much, and none too little.
struct WorkTally {
    /// What there is to say.
    struct Report: Equatable {
        let shards: Int
        let failed: Int
        /// Of the shards' outputs.
        let bytes: Int
        let seconds: Double
    }

    private var shards = 0
    private var failed = 0
    private var bytes = 0
    private var since: Duration?
    private var last = Duration.zero

    /// A worker that has nothing to do for so long has finished something; one that is busy speaks this often.
    private static let pause = Duration.seconds(2), interval = Duration.seconds(60)

    mutating func started(at now: Duration) { since = since ?? now }

    mutating func finished(bytes count: Int, at now: Duration) {
        started(at: now)
        last = now
        shards += 1
        bytes += count
    }

    mutating func failed(at now: Duration) {
        started(at: now)
        last = now
        failed += 1
    }

    /// - Parameter isIdle: whether no shard is being worked on.
    /// - Returns: `nil` where it is too early, or nothing was done.
    mutating func report(isIdle: Bool, at now: Duration) -> Report? {
        guard let since, shards + failed > 0 else { return nil }
        guard (isIdle && now - last >= Self.pause) || now - since >= Self.interval else { return nil }
        return takeReport()
    }

    /// What is left to say at the end; `nil` where nothing was done.
    mutating func takeReport() -> Report? {
        guard let since, shards + failed > 0 else { return nil }
        defer { self = WorkTally() }
        return Report(shards: shards, failed: failed, bytes: bytes, seconds: (last - since) / .seconds(1))
    }
}
