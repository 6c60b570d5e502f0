/// Digests of tensors and parts, built from block digests, so that workers share the hashing and a damaged block can be
/// identified.
package enum TreeDigest {
    /// The default block size in bytes: the unit of hashing, streaming and checksums. The last block of a tensor may be shorter.
    package static let blockSize = 8 << 20

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
