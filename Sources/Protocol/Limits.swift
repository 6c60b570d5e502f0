import Core

/// Every bound of the protocol, by name and unit. A peer that exceeds one is refused before anything is allocated for it.
package enum Limits {
    /// Bytes of a frame's header.
    package static let headerBytes = 64
    /// Bytes of JSON in a control message.
    package static let controlBodyBytes = 4 << 20
    /// Bytes of a data frame: one block, or as much of a file, and what says which.
    package static let dataBodyBytes = TreeDigest.blockSize + 64
    /// Bytes of blocks that a worker may have under way before the coordinator says that it has stored some.
    package static let creditBytes = 4 * (headerBytes + dataBodyBytes)
    /// Bytes of a file that one request may ask for.
    package static let fetchBytes = TreeDigest.blockSize

    /// How long a new connection may take until its hello is there.
    package static let greeting = Duration.seconds(10)
    package static let heartbeatInterval = Duration.seconds(5)
    /// A peer is given up after this many intervals without a word.
    package static let missedHeartbeats = 4
    /// Leases end unless a heartbeat renews them.
    package static let lease = Duration.seconds(30)
}
