import Core
import NIOSSL

/// A failed handshake, or a peer's refusal of this side's certificate, as users should read it.
///
/// With TLS 1.3 a client finds out only after its own handshake that the server has refused its certificate.
///
/// - Parameters:
///   - certificate: the peer's, if the peer presented one.
///   - expects: the certificate that this side expected.
/// - Returns: `nil` for errors that are not about TLS.
func tlsFailure(
    _ error: any Error, certificate: NIOSSLCertificate? = nil, expects: ExpectedCertificate = .none
) -> TesseraError? {
    let stack: NIOBoringSSLErrorStack
    switch error {
    case let error as TesseraError: return error
    case NIOSSLError.handshakeFailed(.sslError(let errors)), BoringSSLError.sslError(let errors): stack = errors
    case NIOSSLError.handshakeFailed: return TesseraError(.unreachable, "the peer closed the connection during the TLS handshake")
    case NIOSSLError.uncleanShutdown: return TesseraError(.unreachable, "the connection was cut off")
    case let error as NIOSSLExtraError where error == .failedToValidateHostname:
        if case .authority(let host) = expects { return .wrongHost(host, certificate) }
        return TesseraError(.notAllowed, "the peer's certificate does not name its host")
    case is NIOSSLError, is NIOSSLExtraError, is BoringSSLError: return TesseraError(.unreachable, "TLS failed: \(error)")
    default: return nil
    }
    if stack.contains(.eofDuringHandshake) {
        return TesseraError(
            .unreachable, "the peer closed the connection during the TLS handshake", advice: "does the peer use TLS?")
    }
    let text = stack.map(\.description).joined(separator: " ")
    for (mark, failure) in marks where text.contains(mark) { return failure }
    guard text.contains("CERTIFICATE_VERIFY_FAILED") else {
        return TesseraError(.protocolMismatch, "the TLS handshake failed: \(reason(in: text))")
    }
    let end = expects == .role ? TLSEnd.client : .server
    let mismatch =
        expects == .pinned
        ? "is not the one that --tls-pin names"
        : certificate.flatMap { $0.validityProblem ?? $0.usageProblem(for: end) } ?? "is not signed by the authority in --tls-ca"
    return TesseraError(.notAllowed, "the peer's certificate \(mismatch)")
}

extension TesseraError {
    /// Names of a certificate that an error lists.
    private static let namesListed = 5

    /// - Parameters:
    ///   - host: as the user asked for it.
    ///   - certificate: the coordinator's.
    static func wrongHost(_ host: String, _ certificate: NIOSSLCertificate?) -> TesseraError {
        let names = certificate?.hosts ?? []
        var listed = names.prefix(namesListed).map { "'\($0)'" }.joined(separator: ", ")
        if names.count > namesListed { listed += " and \(names.count - namesListed) more" }
        return TesseraError(
            .notAllowed,
            "the coordinator's certificate does not name the host '\(host)', but \(names.isEmpty ? "no host at all" : listed)",
            advice: names.isEmpty
                ? "the certificate must name the host as --coordinator does; Deploy/tls makes such certificates"
                : "give --coordinator a name that the certificate has, or issue a certificate for '\(host)'")
    }
}

/// BoringSSL's reasons. An `ALERT` comes from the peer.
private let marks: [(String, TesseraError)] = [
    ("ALERT_CERTIFICATE_EXPIRED", TesseraError(.notAllowed, "the peer refused this side's certificate: it has expired")),
    (
        "ALERT_UNKNOWN_CA",
        TesseraError(.notAllowed, "the peer refused this side's certificate: it is not signed by the peer's authority")
    ),
    (
        "CERTIFICATE_REQUIRED",
        TesseraError(
            .notAllowed, "the peer demands a certificate", advice: "give --tls-cert FILE and --tls-key FILE")
    ),
    (
        "ALERT_UNSUPPORTED_CERTIFICATE",
        TesseraError(
            .notAllowed, "the peer refused this side's certificate: it is not for this use",
            advice: "look at its extended key usage: a coordinator needs serverAuth, others need clientAuth")
    ),
    ("ALERT_BAD_CERTIFICATE", TesseraError(.notAllowed, "the peer refused this side's certificate")),
    ("ALERT_CERTIFICATE_UNKNOWN", TesseraError(.notAllowed, "the peer refused this side's certificate")),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", TesseraError(.notAllowed, "the peer has no certificate")),
    (
        "WRONG_VERSION_NUMBER",
        TesseraError(
            .protocolMismatch, "the peer does not speak TLS: what it says is not encrypted",
            advice: "give both sides the TLS options, or none")
    ),
    ("HTTP_REQUEST", TesseraError(.protocolMismatch, "the peer speaks HTTP without TLS")),
    ("UNSUPPORTED_PROTOCOL", TesseraError(.protocolMismatch, "the peer does not speak TLS 1.3")),
    ("ALERT_PROTOCOL_VERSION", TesseraError(.protocolMismatch, "the peer does not speak TLS 1.3")),
]

/// `REASON` of BoringSSL's `Error: 268435703 error:100000f7:SSL routines:OPENSSL_internal:REASON at ...`.
private func reason(in text: String) -> String {
    let words = text.split(separator: " ").first { $0.hasPrefix("routines:OPENSSL_internal:") }
    let reason = words?.split(separator: ":").last.map(String.init) ?? text
    return reason.lowercased().split(separator: "_").joined(separator: " ")
}
