/// A job: 16 random bytes, printed as 32 hexadecimal digits.
package struct JobID: Sendable, Hashable {
    package let high: UInt64
    package let low: UInt64

    /// The id in frames that belong to no job.
    package static let none = JobID(high: 0, low: 0)

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package static func random() -> JobID {
        JobID(high: .random(in: 1...UInt64.max), low: .random(in: 0...UInt64.max))
    }

    /// - Returns: `nil` unless `text` is 32 hexadecimal digits.
    package init?(_ text: String) {
        guard text.utf8.count == 32, text.utf8.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
            let high = UInt64(text.prefix(16), radix: 16), let low = UInt64(text.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }
}

extension JobID: CustomStringConvertible {
    package var description: String {
        [high, low].map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}

extension JobID: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let id = JobID(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a job id")
        }
        self = id
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// One attempt at one shard. Tells a current result from a stale one.
package struct Attempt: Sendable, Hashable, Codable {
    package let job: JobID
    package let shard: Int
    /// Counts the leases of the shard since the coordinator started, from 1.
    package let epoch: UInt64
    /// The start of the coordinator that leased the shard. Epochs restart at 1 with each start.
    package let incarnation: UInt32

    package init(job: JobID, shard: Int, epoch: UInt64, incarnation: UInt32) {
        self.job = job
        self.shard = shard
        self.epoch = epoch
        self.incarnation = incarnation
    }
}

extension Attempt: Comparable {
    /// Ordered by shard, then epoch; incarnation and job only break ties.
    package static func < (left: Attempt, right: Attempt) -> Bool {
        (left.shard, left.epoch, left.incarnation, left.job.high, left.job.low)
            < (right.shard, right.epoch, right.incarnation, right.job.high, right.job.low)
    }
}
