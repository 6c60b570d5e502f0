package import Core
package import Operators

/// Identifies the tensor of a base that a task vector was taken from.
package struct BaseIdentity: Sendable, Hashable, Codable {
    /// `TreeDigest.tensor` over the tensor's stored bytes.
    package let digest: Digest
    /// SHA-256 over a sample of the bytes, which a merge can afford to check.
    package let sample: Digest

    package init(digest: Digest, sample: Digest) {
        self.digest = digest
        self.sample = sample
    }

    /// Identifies the base, source 0, of a tensor that `encode` reads.
    ///
    /// - Parameter encode: computes the digest if it gets one; it may release the sources.
    static func find<Result>(
        of tensor: TensorPasses, _ encode: (SourceDigest?) throws -> Result
    ) throws -> (BaseIdentity, Result) {
        guard let digest = SourceDigest(ofSource: 0, in: tensor) else {
            let base = try BaseIdentity(of: tensor)
            return (base, try encode(nil))
        }
        let sample = try sample(of: tensor.sources[0]), result = try encode(digest)
        return (BaseIdentity(digest: try digest.finalize(), sample: sample), result)
    }

    /// - Parameter isLast: whether this is the last pass over the base, which releases it.
    init(of tensor: TensorPasses, isLast: Bool = false) throws {
        sample = try Self.sample(of: tensor.sources[0])
        digest = try tensor.digest(ofSource: 0, isLast: isLast)
    }

    /// The number of pieces in a sample, and bytes per piece.
    private static let pieces = 64, pieceBytes = 64
    /// Bytes of a sample. A tensor of no more is sampled as a whole.
    static let sampleByteCount = pieces * pieceBytes

    /// SHA-256 over 64 pieces of 64 bytes, spread evenly from the first to the last byte of the tensor; over all bytes of a
    /// smaller tensor.
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
