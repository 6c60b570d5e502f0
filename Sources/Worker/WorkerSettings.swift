import Core
package import Protocol
package import Transport
package import Work

/// The command-line settings of a worker.
package struct WorkerSettings: Sendable {
    package enum Packing: String, Sendable, CaseIterable {
        /// Compress where the link may be slower than the codec: not on loopback.
        case auto, always, never
    }

    package var coordinator: HostPort
    /// How to encrypt the connection and check the coordinator; `nil` for a connection without TLS.
    package var tls: ClientTLS?
    /// Sent to the coordinator, over TLS.
    package var token: AccessToken?
    package var roots: Roots
    package var name: String
    package var build: String
    /// `Hello.instance` and `Hello.host`.
    package var instance = String(UInt64.random(in: .min ... .max), radix: 16)
    package var host = kernelIdentity()
    package var memory: WorkerMemory
    package var packing = Packing.auto
    package var outputs = LocalOutputs()
    /// Of this host's copies of inputs.
    package var digests = InputDigests()
    /// A delay before each shard, for demonstrations.
    package var pause = Duration.zero

    package init(coordinator: HostPort, roots: Roots, name: String, build: String, memory: WorkerMemory) {
        self.coordinator = coordinator
        self.roots = roots
        self.name = name
        self.build = build
        self.memory = memory
    }

    var hello: Hello {
        Hello(
            role: .worker, build: build, name: name, threads: memory.threads, memory: memory.total, tensorMemory: memory.tensors,
            token: token, instance: instance, host: host)
    }

    func packsBlocks(toLoopback isLoopback: Bool) -> Bool {
        switch packing {
        case .always: true
        case .never: false
        case .auto: !isLoopback
        }
    }
}
