package import Core
package import TaskVectors

/// What comes out of a shard besides its bytes.
package struct ShardResult: Sendable, Hashable, Codable {
    /// The digests of each output tensor's blocks, in the order of `ShardWork.outputs`.
    package let digests: [[Digest]]
    /// What was found in each tensor of the shard; empty for merges, which look for nothing.
    package let findings: [TensorFindings]

    package init(digests: [[Digest]], findings: [TensorFindings] = []) {
        self.digests = digests
        self.findings = findings
    }
}
