package import Core
package import TaskVectors

/// What comes out of a shard besides its bytes.
package struct ShardResult: Sendable, Hashable, Codable {
    /// The digests of each output tensor's blocks, in the order of `ShardWork.outputs`.
    package let digests: [[Digest]]
    /// What was found in each tensor of the shard; empty for merges, which look for nothing.
    package let statistics: [TensorStatistics]

    package init(digests: [[Digest]], statistics: [TensorStatistics] = []) {
        self.digests = digests
        self.statistics = statistics
    }
}
