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
        return .wrongHost
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
    let mismatch = expects == .pinned ? "is not the one that --tls-pin names" : "is not signed by the authority in --tls-ca"
    return TesseraError(.notAllowed, "the peer's certificate \(certificate?.validityProblem ?? mismatch)")
}

extension TesseraError {
    static let wrongHost = TesseraError(
        .notAllowed, "the coordinator's certificate does not name this host",
        advice: "use one of the names in the certificate as --coordinator")
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
    ("ALERT_BAD_CERTIFICATE", TesseraError(.notAllowed, "the peer refused this side's certificate")),
    ("ALERT_CERTIFICATE_UNKNOWN", TesseraError(.notAllowed, "the peer refused this side's certificate")),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", TesseraError(.notAllowed, "the peer has no certificate")),
    (
        "WRONG_VERSION_NUMBER",
        TesseraError(
            .protocolMismatch, "the peer does not speak TLS: what it says is not encrypted",
            advice: "give both sides the TLS options, or none")
    ),
    ("HTTP_REQUEST", TesseraError(.protocolMismatch, "the peer speaks HTTP; this is the job port")),
    ("UNSUPPORTED_PROTOCOL", TesseraError(.protocolMismatch, "the peer does not speak TLS 1.3")),
    ("ALERT_PROTOCOL_VERSION", TesseraError(.protocolMismatch, "the peer does not speak TLS 1.3")),
]

/// `REASON` of BoringSSL's `Error: 268435703 error:100000f7:SSL routines:OPENSSL_internal:REASON at ...`.
private func reason(in text: String) -> String {
    let words = text.split(separator: " ").first { $0.hasPrefix("routines:OPENSSL_internal:") }
    let reason = words?.split(separator: ":").last.map(String.init) ?? text
    return reason.lowercased().split(separator: "_").joined(separator: " ")
}
