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
    package var token: ClientToken?
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
    package var pause = Pause()

    /// Delays before shards, for demonstrations and for tests that need a job in its middle.
    package struct Pause: Sendable {
        package var length = Duration.zero
        /// How many shards of a connection come before the first pause.
        package var after = 0

        package init() {}

        package init(length: Duration, after: Int) {
            self.length = length
            self.after = after
        }
    }

    package init(coordinator: HostPort, roots: Roots, name: String, build: String, memory: WorkerMemory) {
        self.coordinator = coordinator
        self.roots = roots
        self.name = name
        self.build = build
        self.memory = memory
    }

    func hello(_ token: AccessToken?) -> Hello {
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
