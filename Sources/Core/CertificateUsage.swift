import CLibCrypto

/// What an X.509 certificate may be used for in TLS: its extended key usage (RFC 5280, section 4.2.1.12). A certificate without
/// that extension may be used for everything.
package struct CertificateUsage: Sendable, Hashable {
    /// Whether the certificate may prove a server (`serverAuth`), and a client (`clientAuth`).
    package let isForServers: Bool
    package let isForClients: Bool

    /// - Parameter der: one certificate.
    /// - Returns: `nil` for bytes that are no certificate.
    package init?(der: [UInt8]) {
        defer { ERR_clear_error() }
        let certificate = der.withUnsafeBufferPointer { bytes in
            var next = bytes.baseAddress
            return d2i_X509(nil, &next, bytes.count)
        }
        guard let certificate else { return nil }
        defer { X509_free(certificate) }
        // All bits are set where there is no such extension.
        let usage = X509_get_extended_key_usage(certificate)
        isForServers = usage & UInt32(XKU_SSL_SERVER) != 0
        isForClients = usage & UInt32(XKU_SSL_CLIENT) != 0
    }
}
