import CLibCrypto

/// An incremental message digest, computed by the system's libcrypto.
package struct MessageDigest: ~Copyable {
    package enum Algorithm: String, Sendable {
        case sha256 = "SHA-256"
        /// Only to recognise what others have named by it.
        case sha1 = "SHA-1"
    }

    private let algorithm: Algorithm
    private let context: OpaquePointer

    /// - Throws: `internal` if libcrypto lacks the algorithm or memory.
    package init(_ algorithm: Algorithm) throws(TesseraError) {
        guard let context = EVP_MD_CTX_new() else { throw Self.failure(algorithm) }
        let type = algorithm == .sha256 ? EVP_sha256() : EVP_sha1()
        guard EVP_DigestInit_ex(context, type, nil) == 1 else {
            EVP_MD_CTX_free(context)
            throw Self.failure(algorithm)
        }
        self.algorithm = algorithm
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    package func update(_ bytes: UnsafeRawBufferPointer) {
        EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
    }

    package func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }

    /// The digest of all updates. Consumes the value, since later updates would be lost.
    package consuming func finalize() throws(TesseraError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE)), count: UInt32 = 0
        guard EVP_DigestFinal_ex(context, &bytes, &count) == 1 else { throw Self.failure(algorithm) }
        return Array(bytes.prefix(Int(count)))
    }

    fileprivate static func failure(_ algorithm: Algorithm) -> TesseraError {
        TesseraError(.internal, "libcrypto cannot compute \(algorithm.rawValue) (error \(ERR_get_error()))")
    }
}

/// Incremental SHA-256.
package struct SHA256: ~Copyable {
    private let hash: MessageDigest

    /// - Throws: `internal` if libcrypto lacks SHA-256 or memory.
    package init() throws(TesseraError) { hash = try MessageDigest(.sha256) }

    package func update(_ bytes: UnsafeRawBufferPointer) { hash.update(bytes) }

    package func update(_ bytes: [UInt8]) { hash.update(bytes) }

    package func update(_ digest: Digest) { update(digest.bytes) }

    /// The digest of all updates. Consumes the value, since later updates would be lost.
    package consuming func finalize() throws(TesseraError) -> Digest {
        guard let digest = Digest(bytes: try hash.finalize()) else { throw MessageDigest.failure(.sha256) }
        return digest
    }
}

extension Digest {
    package static func sha256(of bytes: [UInt8]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        hash.update(bytes)
        return try hash.finalize()
    }
}
