import FoundationEssentials

/// A job as JSON for people and their programs: a `JobStatus` with times as ISO 8601 has them, such as
/// `2026-11-29T12:34:56.789Z`, and with an activity in every state.
package struct JobDocument: Encodable, Sendable {
    private let status: JobStatus

    private enum Key: String, CodingKey { case submittedAt, endedAt, activity }

    package init(_ status: JobStatus) { self.status = status }

    package func encode(to encoder: any Encoder) throws {
        try status.encode(to: encoder)
        // Into the same object, in place of the number.
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(Self.time(status.submittedAt), forKey: .submittedAt)
        try container.encode(status.word, forKey: .activity)
        if status.state.isEnd { try container.encode(Self.time(status.submittedAt + status.seconds), forKey: .endedAt) }
    }

    /// - Parameter seconds: since 1970.
    package static func time(_ seconds: Double) -> String {
        Date(timeIntervalSince1970: seconds).ISO8601Format(.init(includingFractionalSeconds: true))
    }
}
