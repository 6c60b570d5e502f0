package import Core
import TaskVectors
package import Work

/// A shard to work on until the lease expires. Heartbeats renew the lease.
package struct Lease: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let milliseconds: Int
    package let work: ShardWork
    /// The output that the shard's bytes belong to; `nil` for a shard without output.
    package let output: OutputPlace?

    package init(attempt: Attempt, milliseconds: Int, work: ShardWork, output: OutputPlace? = nil) {
        self.attempt = attempt
        self.milliseconds = milliseconds
        self.work = work
        self.output = output
    }
}

extension Lease {
    /// Checks the numbers that this module and outputs do arithmetic on. Sources are checked when they are opened.
    func validate(_ bounds: Bounds) throws(TesseraError) {
        try bounds.attempt(attempt)
        try bounds.number(milliseconds, "milliseconds", 1...Limits.leaseMilliseconds)
        for file in work.files { try bounds.file(file) }
        for tensor in work.tensors {
            try bounds.shape(tensor.shape)
            for output in tensor.outputs {
                try bounds.number(output.byteCount, "byteCount", 0...Limits.byteCount)
                try bounds.number(output.offset, "offset", 0...Limits.byteCount)
                try bounds.number(output.part, "part", 0...Limits.shards)
                try bounds.number(output.blockSize, "blockSize", 1...TreeDigest.blockSize)
            }
        }
        guard let output else { return }
        try bounds.path(output.directory, "directory")
        try bounds.path(output.relative ?? "", "relative")
        for part in output.parts {
            try bounds.path(part.name, "name")
            try bounds.number(part.number, "number", 0...Limits.shards)
            try bounds.number(part.size, "size", 0...Limits.byteCount)
        }
    }
}

extension Bounds {
    func shape(_ shape: [Int]) throws(TesseraError) {
        var count = 1
        for axis in shape {
            try number(axis, "shape", 0...Limits.elementCount)
            let (product, overflows) = count.multipliedReportingOverflow(by: max(1, axis))
            guard !overflows, product <= Limits.elementCount else {
                throw refusal("'shape' is \(shape), more than \(Limits.elementCount) elements")
            }
            count = product
        }
    }
}

/// The unfinished output, for a worker that can write its blocks there directly.
package struct OutputPlace: Sendable, Hashable, Codable {
    package struct Part: Sendable, Hashable, Codable {
        /// As `OutputTensor.part` counts them.
        package let number: Int
        package let name: String
        /// Bytes.
        package let size: Int

        package init(number: Int, name: String, size: Int) {
            self.number = number
            self.name = name
            self.size = size
        }
    }

    /// The directory's path on the coordinator's host. Its name contains the job's random id, so that no other directory can be
    /// mistaken for it.
    package let directory: String
    /// The directory's path below the coordinator's output root, if there is one.
    package let relative: String?
    /// `cache` of the directory on the coordinator's machine: who finds the same one there shares the coordinator's page cache.
    package let machine: String?
    /// The parts that the shard writes to.
    package let parts: [Part]

    package init(directory: String, relative: String?, machine: String?, parts: [Part]) {
        self.directory = directory
        self.relative = relative
        self.machine = machine
        self.parts = parts
    }

    /// Names the page cache that files have. One kernel keeps one for each mounted file system: what is mounted twice over a
    /// network, or by two programs of FUSE, has two.
    ///
    /// - Parameters:
    ///   - machine: `kernelIdentity`; `nil` if unknown.
    ///   - device: `Directory.device`; `nil` for what is no file system of this host.
    package static func cache(machine: String?, device: UInt64?) -> String? {
        guard let machine, let device else { return nil }
        return "\(machine)/\(device)"
    }
}

/// Revokes a lease: the worker stops and forgets the attempt.
package struct Revoke: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let reason: String

    package init(attempt: Attempt, reason: String) {
        self.attempt = attempt
        self.reason = reason
    }
}

/// The progress of a leased shard.
package struct LeaseProgress: Sendable, Hashable, Codable {
    package let attempt: Attempt
    /// Output bytes.
    package let bytesDone: Int

    package init(attempt: Attempt, bytesDone: Int) {
        self.attempt = attempt
        self.bytesDone = bytesDone
    }
}

/// A worker's sign of life, which renews the leases that it names.
package struct Heartbeat: Sendable, Hashable, Codable {
    package let number: Int
    package let leases: [LeaseProgress]

    package init(number: Int, leases: [LeaseProgress]) {
        self.number = number
        self.leases = leases
    }
}

/// The coordinator's answer to a heartbeat. The coordinator repeats its last answer, or says 0 before the first, where bytes of a
/// worker arrive and no heartbeat does: a large frame takes its time.
package struct HeartbeatAnswer: Sendable, Hashable, Codable {
    package let number: Int

    package init(number: Int) { self.number = number }
}

/// How the blocks of a shard reach the output.
package enum Delivery: String, Sendable, Hashable, Codable, CaseIterable {
    /// The worker sends them to the coordinator.
    case relayed = "return"
    /// The worker writes them directly into the output.
    case direct
}

/// The digests of a shard's blocks, after all of them have been sent or written.
package struct ShardDone: Sendable, Hashable, Codable {
    package let attempt: Attempt
    package let result: ShardResult
    /// `nil` means `relayed`.
    package let delivery: Delivery?
    /// What is wrong with the worker's copy of an input of the shard, which it fetched instead; `nil` where nothing is.
    package let copyProblem: String?

    package init(attempt: Attempt, result: ShardResult, delivery: Delivery? = nil, copyProblem: String? = nil) {
        self.attempt = attempt
        self.result = result
        self.delivery = delivery
        self.copyProblem = copyProblem
    }
}

extension ShardDone {
    func validate(_ bounds: Bounds) throws(TesseraError) {
        try bounds.attempt(attempt)
        for number in result.statistics.lazy.compactMap(\.self).flatMap(\.numbers) {
            try bounds.number(number, "statistics", -Limits.statistic...Limits.statistic)
        }
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

/// The coordinator has stored this many bytes of block frames, and the worker may send as many again.
package struct Credit: Sendable, Hashable, Codable {
    package let bytes: Int

    package init(bytes: Int) { self.bytes = bytes }
}

/// A worker's request for a range of an input that it lacks. The answer is a fetched frame or `FetchFailed`.
package struct FetchRequest: Sendable, Hashable, Codable {
    /// Identifies the request on this connection.
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
