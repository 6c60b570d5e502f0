import Core
import FoundationEssentials
import NIOSSL

/// A certificate chain and its private key, as PEM files.
package struct TLSFiles: Sendable, Hashable {
    package let certificate: String
    package let key: String

    package init(certificate: String, key: String) {
        self.certificate = certificate
        self.key = key
    }

    /// - Throws: `inputMissing`, `badData`, or `notAllowed`: for a key that other users can read, and for a certificate that is
    ///   not valid at present, or not for this end of a connection.
    func load(for end: TLSEnd) throws(TesseraError) -> (chain: [NIOSSLCertificate], key: NIOSSLPrivateKey) {
        let chain = try certificates(in: certificate)
        if let problem = chain.first.flatMap({ $0.validityProblem ?? $0.usageProblem(for: end) }) {
            throw TesseraError(.notAllowed, "the certificate \(problem)", file: certificate, advice: "issue a new one")
        }
        let bytes = try readSecret(key)
        do {
            return (chain, try NIOSSLPrivateKey(bytes: bytes, format: .pem))
        } catch {
            throw TesseraError(.badData, "is not a private key in PEM format without a passphrase", file: key)
        }
    }
}

/// The end of a connection that a certificate proves.
enum TLSEnd {
    case server, client
}

/// - Throws: `badData` for a file without certificates, and what reading the file throws.
func certificates(in path: String) throws(TesseraError) -> [NIOSSLCertificate] {
    let bytes = try LocalFiles().read(path, maxBytes: 1 << 20)
    do {
        let certificates = try NIOSSLCertificate.fromPEMBytes(bytes)
        if !certificates.isEmpty { return certificates }
    } catch {}
    throw TesseraError(.badData, "holds no certificate in PEM format", file: path)
}

extension NIOSSLCertificate {
    /// Why the certificate cannot prove this end of a connection; `nil` if it can.
    func usageProblem(for end: TLSEnd) -> String? {
        guard let usage = (try? toDERBytes()).flatMap({ CertificateUsage(der: $0) }) else { return nil }
        return switch end {
        case .server: usage.isForServers ? nil : "is not for servers: its extended key usage lacks serverAuth"
        case .client: usage.isForClients ? nil : "is not for clients: its extended key usage lacks clientAuth"
        }
    }

    /// Why the certificate is not valid at present; `nil` if it is.
    var validityProblem: String? {
        let now = Date.now.timeIntervalSince1970
        func date(_ seconds: Double) -> String { Date(timeIntervalSince1970: seconds).ISO8601Format() }
        if now > Double(notValidAfter) { return "expired on \(date(Double(notValidAfter)))" }
        if now < Double(notValidBefore) {
            return "is not valid before \(date(Double(notValidBefore))); now it is \(date(now)): check the clocks of both hosts"
        }
        return nil
    }
}
