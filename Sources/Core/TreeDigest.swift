/// Digests of tensors and parts, built from block digests, so that workers share the hashing and a damaged block can be
/// identified.
package enum TreeDigest {
    /// The default block size in bytes: the unit of hashing, streaming and checksums. The last block of a tensor may be shorter.
    package static let blockSize = 8 << 20

    /// The block size of a tensor whose blocks are made two at a time, because two hashes take little longer than one. All
    /// blocks are about as long as each other, and a few of them are an even number; a pair is no larger than `blockSize`.
    ///
    /// - Parameter step: bytes, a power of two; blocks end at multiples of `step`.
    package static func pairedBlockSize(ofBytes byteCount: Int, step: Int) -> Int {
        guard byteCount > shortestPair else { return blockSize }
        let pairs = (byteCount + blockSize - 1) / blockSize
        return (byteCount + 2 * pairs * step - 1) / (2 * pairs * step) * step
    }

    /// Bytes. In a shorter tensor, what two hashes at once save is not worth a second digest.
    private static let shortestPair = 1 << 20

    package static func blockCount(ofBytes byteCount: Int, blockSize: Int = blockSize) -> Int {
        (byteCount + blockSize - 1) / blockSize
    }

    /// SHA-256 over the digests of the tensor's blocks, in order. An empty tensor has no blocks.
    package static func tensor(blocks: [Digest]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        for block in blocks { hash.update(block) }
        return try hash.finalize()
    }

    /// SHA-256 over the digest of the part's header and the digests of its tensors, in file order.
    package static func part(header: Digest, tensors: [Digest]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        hash.update(header)
        for tensor in tensors { hash.update(tensor) }
        return try hash.finalize()
    }
}
