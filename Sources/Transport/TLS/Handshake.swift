import Core
import NIOCore
import NIOSSL
import NIOTLS
package import Protocol

/// The certificate that a side expects of its peer.
enum ExpectedCertificate: Equatable {
    /// None.
    case none
    /// A peer's, with its roles in its names.
    case role
    /// The coordinator's, signed by the authority and with the host's name or address.
    case authority(host: String)
    /// The coordinator's, given to this side beforehand.
    case pinned
}

/// Waits for the end of a TLS handshake and learns who the peer is.
///
/// Stands behind the TLS handler in the pipeline.
final class Handshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let peer: EventLoopPromise<PeerIdentity?>
    private let expects: ExpectedCertificate

    /// - Parameter peer: told the identity in a certificate that gives roles; `nil` for other handshakes.
    init(peer: EventLoopPromise<PeerIdentity?>, expects: ExpectedCertificate) {
        self.peer = peer
        self.expects = expects
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent {
            let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
            switch expects {
            // The library compares addresses. Of a name it is content with the address that the name leads to, which whoever
            // answers for names chooses.
            case .authority(let host) where !isIPAddress(host) && certificate?.names(host: host) != true:
                peer.fail(TesseraError.wrongHost(host, certificate))
                return context.close(promise: nil)
            case .role: peer.succeed(certificate.map(PeerIdentity.init))
            case .none, .authority, .pinned: peer.succeed(nil)
            }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // The library's error does not say what is wrong with the certificate, but the certificate itself may.
        let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
        let failure = tlsFailure(error, certificate: certificate, expects: expects) ?? error
        peer.fail(failure)
        context.fireErrorCaught(failure)
    }

    func channelInactive(context: ChannelHandlerContext) {
        peer.fail(ChannelError.ioOnClosedChannel)
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { peer.fail(ChannelError.ioOnClosedChannel) }
}

/// Whether a host is given by an address and not by a name.
func isIPAddress(_ host: String) -> Bool { (try? SocketAddress(ipAddress: host, port: 0)) != nil }

extension NIOSSLCertificate {
    /// The DNS names and addresses of the subject, as users write them.
    var hosts: [String] {
        _subjectAlternativeNames().compactMap { name in
            name.contents.withUnsafeBufferPointer { bytes in
                switch name.nameType {
                case .dnsName: String(decoding: bytes.prefix(253), as: UTF8.self)
                case .ipAddress:
                    (try? SocketAddress(packedIPAddress: ByteBuffer(bytes: bytes), port: 0))?.ipAddress
                default: nil
                }
            }
        }
    }

    /// Whether one of the DNS names of the subject is the host's; `*` stands for its first label (RFC 6125, section 6.4).
    func names(host: String) -> Bool {
        let labels = host.lowercased().split(separator: ".")
        return _subjectAlternativeNames().contains { name in
            guard name.nameType == .dnsName else { return false }
            let text = name.contents.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
            let own = text.lowercased().split(separator: ".")
            return own == labels || (own.first == "*" && own.count > 2 && own.dropFirst() == labels.dropFirst())
        }
    }
}

extension PeerIdentity {
    /// The roles that a certificate's subject alternative names give: `spiffe://DOMAIN/tessera/ROLE` with anything behind it, or
    /// the DNS name `ROLE.tessera` with anything before it. The first URI that gives a role owns the peer's jobs, else the first
    /// DNS name that does.
    init(_ certificate: NIOSSLCertificate) {
        var uris: [(name: String, role: AccessRole?)] = [], hosts = uris
        for name in certificate._subjectAlternativeNames() {
            let text = name.contents.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
            // Nothing longer is a SPIFFE ID or a DNS name.
            guard text.utf8.count <= 2048 else { continue }
            switch name.nameType {
            case .uri: uris.append((text, AccessRole(spiffe: text)))
            case .dnsName: hosts.append((text, AccessRole(dnsName: text)))
            default: break
            }
        }
        let names = uris + hosts, telling = names.first { $0.role != nil } ?? names.first
        self.init(
            name: telling?.name ?? Self.anonymousName, title: telling == nil ? "a certificate without names" : nil,
            roles: Set(names.compactMap(\.role)),
            owner: telling?.name ?? "certificate without name")
    }

    /// For a port that asks for certificates. Has no roles.
    package static let withoutCertificate = PeerIdentity(
        name: anonymousName, title: "a peer without a certificate", roles: [], owner: "certificate without name")
}

extension AccessRole {
    /// Reads `spiffe://DOMAIN/tessera/ROLE` and `spiffe://DOMAIN/tessera/ROLE/...`.
    init?(spiffe uri: String) {
        let parts = uri.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count >= 5, parts[0] == "spiffe:", parts[1].isEmpty, parts[3] == "tessera" else { return nil }
        // A trust domain has no user, port or escape (SPIFFE-ID, section 2.1).
        let isDomain = parts[2].utf8.allSatisfy { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                || "._-".utf8.contains(byte)
        }
        guard isDomain, !parts[2].isEmpty else { return nil }
        self.init(rawValue: String(parts[4]))
    }

    /// Reads `ROLE.tessera` and `NAME.ROLE.tessera`.
    init?(dnsName: String) {
        let labels = dnsName.split(separator: ".", omittingEmptySubsequences: false)
        guard labels.count >= 2, labels.last == "tessera" else { return nil }
        self.init(rawValue: String(labels[labels.count - 2]))
    }
}
