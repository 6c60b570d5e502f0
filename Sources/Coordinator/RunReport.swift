import FoundationEssentials

/// `tessera.report.json`: how this run went. The only file of an output that differs between runs of one plan.
package struct RunReport: Codable, Sendable {
    package static let fileName = "tessera.report.json"

    package struct Worker: Codable, Sendable {
        package let name: String
        package var shards: Int
        package var bytesWritten: Int
    }

    package let job: String
    /// Seconds since 1970.
    package let startedAt: Double
    package let seconds: Double
    package let shards: Int
    /// Attempts that were made; above `shards` when some had to be repeated.
    package let attempts: Int
    package let bytesRead: Int
    package let bytesWritten: Int
    package let workers: [Worker]

    func encoded() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        return Array(try encoder.encode(self)) + [UInt8(ascii: "\n")]
    }
}
