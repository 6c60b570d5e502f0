package import Core
import TensorKernels

/// The first message of either role: who connects, and what it speaks.
package struct Hello: Sendable, Hashable, Codable {
    package enum Role: String, Sendable, Hashable, Codable {
        /// Takes shards.
        case worker
        /// Submits jobs and asks about them.
        case client
    }

    package var role: Role
    /// Protocol versions that the peer speaks.
    package var oldestVersion: Int
    package var newestVersion: Int
    /// The arithmetic that the peer computes with.
    package var numericsVersion: Int
    package var build: String
    /// What people call the peer.
    package var name: String
    package var threads: Int
    /// Bytes that a worker may use.
    package var memory: Int
    /// Bytes of them that are left for the tensors it works on; absent from a peer that does not say, which is taken at its word for all.
    package var tensorMemory: Int?

    package init(
        role: Role, build: String, name: String, threads: Int = 0, memory: Int = 0, tensorMemory: Int? = nil,
        numericsVersion: Int = TensorKernels.numericsVersion
    ) {
        self.role = role
        oldestVersion = Int(FrameHeader.protocolVersion)
        newestVersion = Int(FrameHeader.protocolVersion)
        self.numericsVersion = numericsVersion
        self.build = build
        self.name = name
        self.threads = threads
        self.memory = memory
        self.tensorMemory = tensorMemory
    }
}

/// The coordinator's answer to a hello that it accepts.
package struct Welcome: Sendable, Hashable, Codable {
    package let version: Int
    package let build: String
    /// Numbers the connections of this coordinator.
    package let session: Int
    package let heartbeatMilliseconds: Int
    /// Bytes of blocks that may be under way; see `Credit`.
    package let credit: Int

    package init(version: Int, build: String, session: Int, heartbeatMilliseconds: Int, credit: Int) {
        self.version = version
        self.build = build
        self.session = session
        self.heartbeatMilliseconds = heartbeatMilliseconds
        self.credit = credit
    }
}

/// The coordinator's answer to a peer that it cannot work with; the connection ends with it.
package struct Refusal: Sendable, Hashable, Codable {
    package let error: TesseraError

    package init(_ error: TesseraError) { self.error = error }
}
