import Core

/// The bounds of the protocol. A peer that exceeds one is refused before anything is allocated or computed from its numbers.
package enum Limits {
    // MARK: Frames

    /// Bytes of a frame's header.
    package static let headerBytes = 64
    /// Bytes of JSON in a message.
    package static let controlBodyBytes = 4 << 20
    /// Bytes of JSON in a message before admission.
    package static let greetingBodyBytes = 64 << 10
    /// Bytes of a data frame's body: one block, or one range of a file, and what identifies it.
    package static let dataBodyBytes = TreeDigest.blockSize + 64
    /// Bytes of blocks that a worker may have in flight before the coordinator reports some of them as stored.
    package static let creditBytes = 4 * (headerBytes + dataBodyBytes)
    /// Bytes of a file that one request may ask for.
    package static let fetchBytes = TreeDigest.blockSize
    /// Fetches of one worker that are served at the same time; further ones wait.
    package static let fetchesAtOnce = 8

    // MARK: Memory of a port

    /// Bytes of frames that have begun and not ended, of all peers that are not admitted, of all clients, and of all workers.
    package static let unfinishedGreetingBytes = 16 << 20
    package static let unfinishedRequestBytes = 128 << 20
    package static let unfinishedBlockBytes = 1 << 30
    /// Frames up to this many bytes are not counted there.
    package static let uncountedFrameBytes = 16 << 10
    /// Bodies of stored blocks whose memory is kept for the next ones: one for each thread that writes.
    package static let idleBodies = 4

    // MARK: Time

    /// The time limit for establishing a connection.
    package static let connecting = Duration.seconds(5)
    /// The time limit for the hello, and for the answer to it.
    package static let greeting = Duration.seconds(10)
    /// The time limit for a client's next request. Commands that wait ask several times a second.
    package static let idleClient = Duration.seconds(300)
    /// The time limit for an answer that takes planning or the removal of an output.
    package static let slowAnswer = Duration.seconds(1200)
    /// How long an answer may wait for a job's end.
    package static let waitMilliseconds = 1000
    /// The time limit for a client to take an answer.
    package static let answering = Duration.seconds(60)
    /// The time limit for a frame once it has begun, beside that for its bytes.
    package static let unfinishedFrame = Duration.seconds(30)
    /// The rate, in bytes per second, that the bytes of a frame must come with.
    package static let slowestFrameRate = 64 << 10
    package static let heartbeatInterval = Duration.seconds(5)
    /// Either side closes the connection after this many heartbeat intervals without a byte.
    package static let missedHeartbeats = 4

    /// After this many silent intervals a worker gets no more shards, and others are given those that it has.
    package static let doubtfulHeartbeats = 2
    /// A timer that is later than this shows that the process did not run: what it did not hear meanwhile means nothing.
    package static let standstill = Duration.seconds(2)

    // MARK: What messages say

    /// Connections that a coordinator serves at the same time.
    package static let connections = 4096
    /// Shards that one worker works on at the same time.
    package static let threads = 16_384
    /// Bytes of a file, a tensor or a memory. Sums of 2^15 such numbers cannot overflow.
    package static let byteCount = 1 << 48
    /// Elements of a tensor.
    package static let elementCount = 1 << 48
    /// Shards of a job.
    package static let shards = 1 << 31
    /// Milliseconds between two heartbeats: a day.
    package static let heartbeatMilliseconds = 86_400_000
    /// Milliseconds of a lease: a year.
    package static let leaseMilliseconds = 366 * 86_400_000
    /// The largest magnitude of a statistic.
    package static let statistic = 1e100

    // MARK: Texts, in bytes of UTF-8

    /// Names of peers, and versions of builds.
    package static let nameBytes = 128
    package static let pathBytes = 4096
    /// Reasons.
    package static let reasonBytes = 4096
    /// One field of an error.
    package static let errorBytes = 64 << 10
}
