import Protocol

/// `tessera.report.json`: how this run went. The only file of an output that differs between runs of one plan.
package struct RunReport: Codable, Sendable {
    package static let fileName = "tessera.report.json"

    package struct Worker: Codable, Sendable {
        package let name: String
        package private(set) var shards = 0
        package private(set) var bytesWritten = 0
        /// Those of them that the worker put into the output itself.
        package private(set) var bytesDirect = 0

        init(name: String) { self.name = name }

        mutating func add(bytes: Int, _ delivery: Delivery) {
            shards += 1
            bytesWritten += bytes
            if delivery == .direct { bytesDirect += bytes }
        }
    }

    package let job: String
    /// ISO 8601, in UTC.
    package let startedAt: String
    package let seconds: Double
    package let shards: Int
    /// Attempts that were made; above `shards` when some had to be repeated.
    package let attempts: Int
    package let bytesRead: Int
    package let bytesWritten: Int
    package let workers: [Worker]
}
