package import Core

/// What a peer may do.
package enum AccessRole: String, Sendable, Hashable, CaseIterable {
    /// Takes leases and delivers shards.
    case worker
    /// Submits jobs, watches all jobs, and cancels its own.
    case submitter
    /// Submits and watches jobs, and cancels any job.
    case `operator`
    /// Watches jobs.
    case viewer
}

/// A peer whose name and roles are established.
package struct PeerIdentity: Sendable, Hashable {
    /// For logs: the name alone.
    package let name: String
    /// What sentences call the peer: the name in quotes, or words for a peer without a name.
    package let title: String
    package let roles: Set<AccessRole>
    /// The owner of the jobs that the peer submits. Two peers with the same owner have the same rights to them.
    package let owner: String

    /// - Parameter title: `nil` for the name in quotes.
    package init(name: String, title: String? = nil, roles: Set<AccessRole>, owner: String) {
        self.name = name
        self.title = title ?? "'\(name)'"
        self.roles = roles
        self.owner = owner
    }

    /// In logs, every peer that has proved no name.
    package static let anonymousName = "anonymous"
    /// Every peer of a port without access control.
    package static let anyone = PeerIdentity(
        name: anonymousName, title: "an anonymous peer", roles: Set(AccessRole.allCases), owner: "anonymous")
    /// The user of a process that has no port.
    package static let local = PeerIdentity(
        name: "local", title: "this process", roles: Set(AccessRole.allCases), owner: "local")
    /// The owner of jobs that come from a version of Tessera without owners.
    package static let unknownOwner = "unknown"

    /// Whether the peer may cancel a job of this owner, or replace an output of such a job.
    package func mayChangeJobs(of owner: String) -> Bool { roles.contains(.operator) || isSubmitter(owner) }

    /// Whether the peer may see everything about a job of this owner.
    package func maySeeJobs(of owner: String) -> Bool {
        !roles.isDisjoint(with: [.operator, .viewer]) || isSubmitter(owner)
    }

    private func isSubmitter(_ owner: String) -> Bool { roles.contains(.submitter) && owner == self.owner }

    /// Whether a job of this owner can be the job that the peer submits again.
    package func resubmitsJobs(of owner: String) -> Bool {
        owner == self.owner || (owner == Self.unknownOwner && roles.contains(.operator))
    }

    /// - Throws: `notAllowed` unless the peer has one of the roles.
    package func require(_ allowed: AccessRole..., to action: String) throws(TesseraError) {
        guard roles.isDisjoint(with: allowed) else { return }
        let held = roles.isEmpty ? "no role" : "the role \(roles.map(\.rawValue).sorted().joined(separator: ", "))"
        let needed = allowed.map(\.rawValue).joined(separator: " or ")
        throw TesseraError(
            .notAllowed, "\(title) has \(held) and may not \(action)",
            advice: "use a certificate or token with the role \(needed)")
    }
}

/// How a coordinator establishes a peer's identity, once the connection's handshake is over.
package enum AccessPolicy: Sendable {
    /// Without access control: on loopback, or with `--insecure`.
    case anyone
    /// The TLS handshake proved a certificate.
    case certificate(PeerIdentity)
    /// The hello must hold a token.
    case tokens(AccessTokens)

    /// - Throws: `notAllowed` for a missing or unknown token.
    func identify(_ token: AccessToken?) throws(TesseraError) -> PeerIdentity {
        switch self {
        case .anyone: return .anyone
        case .certificate(let peer): return peer
        case .tokens(let tokens):
            guard let token else {
                throw TesseraError(.notAllowed, "the peer sent no token", advice: "give --token FILE")
            }
            guard let peer = try tokens.identify(token) else {
                throw TesseraError(.notAllowed, "the peer's token is not one of the coordinator's")
            }
            return peer
        }
    }
}
