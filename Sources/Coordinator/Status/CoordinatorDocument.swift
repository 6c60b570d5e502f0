import Protocol

/// What the status port tells of the coordinator itself.
struct CoordinatorDocument: Encodable, Sendable, Hashable {
    let version: String
    /// `nil` before the port is open.
    let jobPort: JobPort?
}

/// Where clients and workers reach the coordinator.
struct JobPort: Encodable, Sendable, Hashable {
    /// `nil` where the port listens on all addresses of this host: any name of the host will do.
    let host: String?
    let port: Int
    /// Whether peers need `--tls-ca` or `--tls-pin`, and a certificate or a token.
    let isEncrypted: Bool

    /// - Parameter address: where the port listens.
    init(_ address: HostPort, isEncrypted: Bool) {
        // The unspecified address in any form: `0.0.0.0`, `::`, `0::0`.
        host = address.host.allSatisfy { "0.:".contains($0) } ? nil : address.host
        port = address.port
        self.isEncrypted = isEncrypted
    }
}
