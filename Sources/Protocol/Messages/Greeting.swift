package import Core
import TensorKernels

/// The first message of a worker or client: its role, versions and capacity.
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
    /// The version of the peer's arithmetic.
    package var numericsVersion: Int
    package var build: String
    /// The peer's name, for people.
    package var name: String
    package var threads: Int
    /// The worker's memory limit in bytes.
    package var memory: Int
    /// The bytes of `memory` left for tensors being computed. If absent, all of `memory` is assumed.
    package var tensorMemory: Int?
    /// Names the worker's process, whatever connection it has: drawn at random when it starts.
    package var instance: String?
    /// Names the worker's host, `kernelIdentity`: workers behind one address may be on several hosts.
    package var host: String?
    /// For a coordinator that admits peers by token. Sent over TLS only.
    package var token: AccessToken?

    package init(
        role: Role, build: String, name: String, threads: Int = 0, memory: Int = 0, tensorMemory: Int? = nil,
        token: AccessToken? = nil, numericsVersion: Int = TensorKernels.numericsVersion, instance: String? = nil,
        host: String? = nil
    ) {
        self.instance = instance
        self.host = host
        self.role = role
        oldestVersion = Int(FrameHeader.protocolVersion)
        newestVersion = Int(FrameHeader.protocolVersion)
        self.numericsVersion = numericsVersion
        self.build = build
        self.name = name
        self.threads = threads
        self.memory = memory
        self.tensorMemory = tensorMemory
        self.token = token
    }
}

extension Hello {
    func validate(_ bounds: Bounds) throws(TesseraError) {
        try bounds.name(name, "name")
        try bounds.name(build, "build")
        try bounds.number(oldestVersion, "oldestVersion", 0...Int(UInt16.max))
        try bounds.number(newestVersion, "newestVersion", 0...Int(UInt16.max))
        try bounds.number(numericsVersion, "numericsVersion", 0...Int(UInt16.max))
        try bounds.number(threads, "threads", (role == .worker ? 1 : 0)...Limits.threads)
        try bounds.number(memory, "memory", 0...Limits.byteCount)
        if let instance { try bounds.name(instance, "instance") }
        if let host { try bounds.name(host, "host") }
        if let tensorMemory { try bounds.number(tensorMemory, "tensorMemory", 0...memory) }
    }
}

/// The coordinator's answer to a hello that it accepts.
package struct Welcome: Sendable, Hashable, Codable {
    package let version: Int
    package let build: String
    /// Numbers the connections of this coordinator.
    package let session: Int
    package let heartbeatMilliseconds: Int
    /// The initial credit: bytes of blocks that may be in flight. See `Credit`.
    package let credit: Int

    package init(version: Int, build: String, session: Int, heartbeatMilliseconds: Int, credit: Int) {
        self.version = version
        self.build = build
        self.session = session
        self.heartbeatMilliseconds = heartbeatMilliseconds
        self.credit = credit
    }
}

extension Welcome {
    func validate(_ bounds: Bounds) throws(TesseraError) {
        try bounds.name(build, "build")
        try bounds.number(session, "session")
        try bounds.number(heartbeatMilliseconds, "heartbeatMilliseconds", 1...Limits.heartbeatMilliseconds)
        // With less, a worker would wait for ever before its first block.
        try bounds.number(credit, "credit", Limits.headerBytes + Limits.dataBodyBytes...Limits.byteCount)
    }
}

/// The coordinator's answer to a peer that it cannot work with. The connection then closes.
package struct Refusal: Sendable, Hashable, Codable {
    package let error: TesseraError

    package init(_ error: TesseraError) { self.error = error }
}
