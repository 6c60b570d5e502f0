import Core
import NIOCore
import NIOSSL

/// How a worker or client checks the coordinator, and proves who it is itself. The files are read for each connection.
package struct ClientTLS: Sendable, Hashable {
    package enum Trust: Sendable, Hashable {
        /// The coordinator's certificate must be signed by this authority (a PEM file) and name the host that was asked for.
        case authority(String)
        /// The coordinator's certificate must be this one (a PEM file), whatever it names.
        case pinned(String)
    }

    private let trust: Trust
    private let files: TLSFiles?

    /// - Parameter files: the peer's own certificate; `nil` for a peer without one.
    package init(trust: Trust, files: TLSFiles?) {
        self.trust = trust
        self.files = files
    }

    func expects(of host: String) -> ExpectedCertificate {
        switch trust {
        case .authority: .authority(host: host)
        case .pinned: .pinned
        }
    }

    /// Reads the files.
    ///
    /// - Returns: makes the handler of a connection to `host`.
    /// - Throws: what is wrong with one of the files.
    func prepare(for host: String) throws(TesseraError) -> @Sendable () throws -> NIOSSLClientHandler {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv13
        if let files {
            let (chain, key) = try files.load(for: .client)
            configuration.certificateChain = chain.map { .certificate($0) }
            configuration.privateKey = .privateKey(key)
        }
        // An address is looked for among the certificate's addresses, and is never a server name.
        let name = isIPAddress(host) ? nil : host
        switch trust {
        case .authority(let path):
            configuration.trustRoots = .certificates(try certificates(in: path))
            let context = try self.context(configuration)
            return { try NIOSSLClientHandler(context: context, serverHostname: name) }
        case .pinned(let path):
            let pinned = try certificates(in: path).first
            let context = try self.context(configuration)
            return {
                // The callback replaces the verification.
                try NIOSSLClientHandler(context: context, serverHostname: name) { presented, result in
                    result.succeed(presented.first == pinned ? .certificateVerified : .failed)
                }
            }
        }
    }

    private func context(_ configuration: TLSConfiguration) throws(TesseraError) -> NIOSSLContext {
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw TesseraError(
                .badData, "cannot be used with the key \(files?.key ?? "")", file: files?.certificate,
                advice: "they must be a pair, and the certificate not an authority's own; Deploy/tls makes NAME.pem and NAME.key")
        }
    }
}
