package import Checkpoints
package import Planning

/// A shard to work on, until a moment that heartbeats push back.
package struct Lease: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let milliseconds: Int
    package let work: ShardWork

    package init(attempt: Attempt, milliseconds: Int, work: ShardWork) {
        self.attempt = attempt
        self.milliseconds = milliseconds
        self.work = work
    }
}

/// A lease is over: the worker stops and forgets the attempt.
package struct Revoke: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let reason: String

    package init(attempt: Attempt, reason: String) {
        self.attempt = attempt
        self.reason = reason
    }
}

/// How far a leased shard has come.
package struct LeaseProgress: Sendable, Hashable, Codable {
    package let attempt: Attempt
    /// Output bytes.
    package let bytesDone: Int

    package init(attempt: Attempt, bytesDone: Int) {
        self.attempt = attempt
        self.bytesDone = bytesDone
    }
}

/// A worker's sign of life. It renews the leases that it names.
package struct Heartbeat: Sendable, Hashable, Codable {
    package let number: Int
    package let leases: [LeaseProgress]

    package init(number: Int, leases: [LeaseProgress]) {
        self.number = number
        self.leases = leases
    }
}

/// The coordinator's answer to a heartbeat.
package struct HeartbeatAnswer: Sendable, Hashable, Codable {
    package let number: Int

    package init(number: Int) { self.number = number }
}

/// All blocks of a shard are sent; this is what they are.
package struct ShardDone: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let result: ShardResult

    package init(attempt: Attempt, result: ShardResult) {
        self.attempt = attempt
        self.result = result
    }
}

package struct ShardFailed: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let error: TesseraError

    package init(attempt: Attempt, error: TesseraError) {
        self.attempt = attempt
        self.error = error
    }
}

/// The coordinator has stored this many bytes of block frames: the worker may send as many more.
package struct Credit: Sendable, Hashable, Codable {
    package let bytes: Int

    package init(bytes: Int) { self.bytes = bytes }
}

/// A worker asks for a stretch of an input that it does not have; the answer is a fetched frame or `FetchFailed`.
package struct FetchRequest: Sendable, Hashable, Codable {
    /// Numbers the requests of a worker.
    package let request: UInt64
    package let file: InputFile
    package let offset: Int
    package let length: Int

    package init(request: UInt64, file: InputFile, offset: Int, length: Int) {
        self.request = request
        self.file = file
        self.offset = offset
        self.length = length
    }
}

package struct FetchFailed: Sendable, Hashable, Codable {
    package let request: UInt64
    package let error: TesseraError

    package init(request: UInt64, error: TesseraError) {
        self.request = request
        self.error = error
    }
}
