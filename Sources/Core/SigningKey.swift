import CLibCrypto

/// A private key on one of the curves P-256, P-384 and P-521. It signs with ECDSA (FIPS 186-5) over SHA-256, SHA-384 or SHA-512.
///
/// Descriptions never show the key.
package struct SigningKey: Sendable {
    private let key: CurveKey

    /// - Parameter path: a PEM file (SEC 1 or PKCS #8) without a passphrase.
    /// - Throws: `badData` for anything else than such a key, `notAllowed` if other users can read the file, and what reading it
    ///   throws.
    package init(path: String) throws(TesseraError) {
        let bytes = try readSecret(path)
        key = try CurveKey(bytes, path: path, kind: "private key") { PEM_read_bio_PrivateKey($0, nil, noPassphrase, nil) }
    }

    /// What checks the signatures.
    package var verificationKey: VerificationKey { VerificationKey(key) }

    /// - Returns: a signature in ASN.1 DER. Two signatures of the same message differ.
    /// - Throws: `internal` if libcrypto fails.
    package func sign(_ message: [UInt8]) throws(TesseraError) -> [UInt8] {
        try key.withContext { (context) throws(TesseraError) in
            var count = 0
            guard EVP_DigestSignInit(context, nil, key.curve.hash, nil, key.pointer) == 1,
                EVP_DigestSign(context, nil, &count, message, message.count) == 1
            else { throw libcryptoFailure("sign") }
            var signature = [UInt8](repeating: 0, count: count)
            guard EVP_DigestSign(context, &signature, &count, message, message.count) == 1 else {
                throw libcryptoFailure("sign")
            }
            // The first call gave the largest size that a signature can have.
            return Array(signature.prefix(count))
        }
    }
}

extension SigningKey: CustomStringConvertible {
    package var description: String { "<private key>" }
}

/// The public key that belongs to a `SigningKey`.
package struct VerificationKey: Sendable {
    private let key: CurveKey

    fileprivate init(_ key: CurveKey) { self.key = key }

    /// - Parameter path: a PEM file with a SubjectPublicKeyInfo, as `openssl pkey -pubout` writes it.
    /// - Throws: `badData` for anything else, and what reading the file throws.
    package init(path: String) throws(TesseraError) {
        let bytes = try LocalFiles().read(path, maxBytes: 64 << 10)
        key = try CurveKey(bytes, path: path, kind: "public key") { PEM_read_bio_PUBKEY($0, nil, noPassphrase, nil) }
    }

    /// - Parameter signature: ASN.1 DER.
    /// - Returns: whether the holder of the private key has signed exactly this message.
    /// - Throws: `internal` if libcrypto fails.
    package func accepts(_ signature: [UInt8], of message: [UInt8]) throws(TesseraError) -> Bool {
        try key.withContext { (context) throws(TesseraError) in
            guard EVP_DigestVerifyInit(context, nil, key.curve.hash, nil, key.pointer) == 1 else {
                throw libcryptoFailure("check a signature")
            }
            defer { ERR_clear_error() }
            return EVP_DigestVerify(context, signature, signature.count, message, message.count) == 1
        }
    }

    /// SHA-256 of the key as a PEM text, as `openssl pkey -pubout | sha256sum` prints it.
    package func fingerprint() throws(TesseraError) -> Digest {
        guard let memory = BIO_new(BIO_s_mem()) else { throw libcryptoFailure("write a key") }
        defer { BIO_free(memory) }
        guard PEM_write_bio_PUBKEY(memory, key.pointer) == 1 else { throw libcryptoFailure("write a key") }
        var text = [UInt8](repeating: 0, count: 4096)
        let count = BIO_read(memory, &text, Int32(text.count))
        guard count > 0 else { throw libcryptoFailure("write a key") }
        return try .sha256(of: Array(text.prefix(Int(count))))
    }
}

/// A key of either kind, as libcrypto holds it.
private final class CurveKey: @unchecked Sendable {
    // Unchecked because of the pointer. Nobody changes the key, and libcrypto's functions may read it from several threads.

    enum Curve: String {
        /// libcrypto's name of P-256.
        case p256 = "prime256v1"
        case p384 = "secp384r1"
        case p521 = "secp521r1"

        /// The hash that the sigstore project pairs with the curve.
        var hash: OpaquePointer? {
            switch self {
            case .p256: EVP_sha256()
            case .p384: EVP_sha384()
            case .p521: EVP_sha512()
            }
        }
    }

    let pointer: OpaquePointer
    let curve: Curve

    init(
        _ bytes: [UInt8], path: String, kind: String, parse: (OpaquePointer) -> OpaquePointer?
    ) throws(TesseraError) {
        let parsed = bytes.withUnsafeBytes { bytes -> OpaquePointer? in
            // The callers bound the size far below 32 bits.
            guard let source = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else { return nil }
            defer { BIO_free(source) }
            return parse(source)
        }
        ERR_clear_error()
        guard let pointer = parsed else {
            throw TesseraError(
                .badData, "is not a \(kind) in PEM format without a passphrase", file: path,
                advice: "make a pair: openssl ecparam -name prime256v1 -genkey -noout -out sign.key; "
                    + "openssl pkey -in sign.key -pubout -out sign.pub")
        }
        var name = [CChar](repeating: 0, count: 80), count = 0
        guard EVP_PKEY_get_group_name(pointer, &name, name.count, &count) == 1,
            let curve = Curve(rawValue: String(decoding: name.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self))
        else {
            EVP_PKEY_free(pointer)
            throw TesseraError(.badData, "is not a \(kind) on the curve P-256, P-384 or P-521", file: path)
        }
        self.pointer = pointer
        self.curve = curve
    }

    deinit { EVP_PKEY_free(pointer) }

    func withContext<Result>(_ body: (OpaquePointer) throws(TesseraError) -> Result) throws(TesseraError) -> Result {
        guard let context = EVP_MD_CTX_new() else { throw libcryptoFailure("sign") }
        defer { EVP_MD_CTX_free(context) }
        return try body(context)
    }
}

/// In place of libcrypto's own, which would ask at the terminal.
private func noPassphrase(
    _: UnsafeMutablePointer<CChar>?, _: Int32, _: Int32, _: UnsafeMutableRawPointer?
) -> Int32 { -1 }

private func libcryptoFailure(_ verb: String) -> TesseraError {
    TesseraError(.internal, "libcrypto cannot \(verb) (error \(ERR_get_error()))")
}
