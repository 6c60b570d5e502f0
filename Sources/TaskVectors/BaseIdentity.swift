package import Core
package import Operators

/// Which tensor of a base a task vector belongs to.
package struct BaseIdentity: Sendable, Hashable, Codable {
    /// `TreeDigest.tensor` over all of the tensor's bytes as they are stored.
    package let digest: Digest
    /// SHA-256 over `sample`'s bytes: what a merge can afford to look at.
    package let sample: Digest

    package init(digest: Digest, sample: Digest) {
        self.digest = digest
        self.sample = sample
    }

    /// - Parameter isLast: whether the base is released once it was read.
    init(of tensor: TensorPasses, isLast: Bool = false) throws {
        sample = try Self.sample(of: tensor.sources[0])
        digest = try tensor.digest(ofSource: 0, isLast: isLast)
    }

    /// Pieces of a sample, and bytes of each.
    private static let pieces = 64, pieceBytes = 64

    /// SHA-256 over 64 pieces of 64 bytes, spread evenly over the tensor from its first to its last byte; over all of a smaller
    /// tensor.
    package static func sample(of source: any ElementSource) throws -> Digest {
        let byteCount = source.count * source.dtype.bitWidth / 8
        let hash = try SHA256()
        try withUnsafeTemporaryAllocation(byteCount: pieces * pieceBytes, alignment: 64) { buffer in
            guard let target = buffer.baseAddress else { return }
            guard byteCount > pieces * pieceBytes else {
                try source.copyBytes(0..<byteCount, to: target)
                hash.update(UnsafeRawBufferPointer(start: target, count: byteCount))
                return
            }
            for piece in 0..<pieces {
                let start = (byteCount - pieceBytes) * piece / (pieces - 1)
                try source.copyBytes(start..<start + pieceBytes, to: target)
                hash.update(UnsafeRawBufferPointer(start: target, count: pieceBytes))
            }
        }
        return try hash.finalize()
    }
}
