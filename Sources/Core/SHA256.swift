import CLibCrypto

/// Incremental SHA-256, computed by the system's libcrypto.
package struct SHA256: ~Copyable {
    private let context: OpaquePointer

    /// - Throws: `internal` if libcrypto lacks SHA-256 or memory.
    package init() throws(TesseraError) {
        guard let context = EVP_MD_CTX_new() else { throw Self.failure }
        guard EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            EVP_MD_CTX_free(context)
            throw Self.failure
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    package func update(_ bytes: UnsafeRawBufferPointer) {
        EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
    }

    package func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }

    package func update(_ digest: Digest) { update(digest.bytes) }

    /// The digest of all updates. Consumes the value, since later updates would be lost.
    package consuming func finalize() throws(TesseraError) -> Digest {
        var bytes = [UInt8](repeating: 0, count: Digest.byteCount)
        guard EVP_DigestFinal_ex(context, &bytes, nil) == 1, let digest = Digest(bytes: bytes) else { throw Self.failure }
        return digest
    }

    private static var failure: TesseraError {
        TesseraError(.internal, "libcrypto cannot compute SHA-256 (error \(ERR_get_error()))")
    }
}

extension Digest {
    package static func sha256(of bytes: [UInt8]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        hash.update(bytes)
        return try hash.finalize()
    }
}
