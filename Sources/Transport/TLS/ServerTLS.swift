package import Core
package import NIOCore
import NIOSSL
package import Protocol
import Synchronization

/// TLS 1.3 for a port, with files that are read again when they change.
package final class ServerTLS: Sendable {
    private struct Loaded {
        var contexts: Contexts
        var identities: [String]
    }

    private struct Contexts {
        /// Peers must have a certificate, if there is an authority.
        let strict: NIOSSLContext
        /// Peers may come without one. One that they have is checked.
        let lenient: NIOSSLContext
    }

    private let files: TLSFiles
    /// The certificate authority of peers, as a PEM file; `nil` if peers need no certificate.
    private let authority: String?
    private let loaded: Mutex<Loaded>

    /// - Throws: what is wrong with one of the files.
    package init(files: TLSFiles, authority: String?) throws(TesseraError) {
        self.files = files
        self.authority = authority
        let identities = try Self.identities(files, authority)
        loaded = Mutex(Loaded(contexts: try Self.contexts(files, authority), identities: identities))
    }

    /// Whether peers must have a certificate.
    var needsCertificates: Bool { authority != nil }

    /// The context for the next connection.
    var context: NIOSSLContext { loaded.withLock { $0.contexts.strict } }

    /// Reads the files again if one of them has changed. Connections that are open keep their certificates.
    ///
    /// - Returns: whether new files are in use.
    /// - Throws: what is wrong with the new files; the former ones then stay in use.
    package func reload() throws(TesseraError) -> Bool {
        let identities = try Self.identities(files, authority)
        guard identities != loaded.withLock({ $0.identities }) else { return false }
        let contexts = try Self.contexts(files, authority)
        loaded.withLock { $0 = Loaded(contexts: contexts, identities: identities) }
        return true
    }

    private static func identities(_ files: TLSFiles, _ authority: String?) throws(TesseraError) -> [String] {
        var identities: [String] = []
        for path in [files.certificate, files.key] + (authority.map { [$0] } ?? []) {
            guard let status = try LocalFiles().status(of: path) else {
                throw TesseraError(.inputMissing, "does not exist", file: path)
            }
            identities.append(status.identity)
        }
        return identities
    }

    private static func contexts(_ files: TLSFiles, _ authority: String?) throws(TesseraError) -> Contexts {
        do {
            var configuration = try configuration(files, authority)
            let strict = try NIOSSLContext(configuration: configuration)
            guard authority != nil else { return Contexts(strict: strict, lenient: strict) }
            configuration.certificateVerification = .optionalVerification
            return Contexts(strict: strict, lenient: try NIOSSLContext(configuration: configuration))
        } catch {
            throw (error as? TesseraError)
                ?? TesseraError(.badData, "the certificate does not belong to the key \(files.key)", file: files.certificate)
        }
    }

    /// Encrypts a channel of a server that makes its connections itself, and decides what peers without a certificate may ask.
    /// Must be called on the channel's event loop.
    package func encrypt(_ channel: any Channel) throws {
        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: loaded.withLock { $0.contexts.lenient }))
    }

    /// Who is at the other end of a channel that `encrypt` encrypts, once its handshake is over; `nil` where nobody needs a
    /// certificate.
    package func peer(of channel: any Channel) async throws -> PeerIdentity? {
        guard needsCertificates else { return nil }
        return try await channel.nioSSL_peerCertificate().get().map(PeerIdentity.init) ?? .withoutCertificate
    }

    /// Why a handshake failed, for the log; `nil` for what is no refusal, such as a peer that goes away.
    package static func refusal(_ error: any Error) -> String? {
        guard let failure = tlsFailure(error), failure.code == .notAllowed || failure.code == .protocolMismatch else {
            return nil
        }
        return failure.problem
    }

    private static func configuration(_ files: TLSFiles, _ authority: String?) throws(TesseraError) -> TLSConfiguration {
        let (chain, key) = try files.load(for: .server)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv13
        if let authority {
            configuration.trustRoots = .certificates(try certificates(in: authority))
            configuration.certificateVerification = .noHostnameVerification
        }
        return configuration
    }
}
