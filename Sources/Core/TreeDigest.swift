/// Digests of tensors and parts, built from digests of blocks so that hashing spreads over workers and a bad block is found
/// alone.
package enum TreeDigest {
    /// Bytes of a block, unless the tensor's own are smaller: the unit of hashing, of streaming and of checksums on the wire. The
    /// last block of a tensor may be shorter.
    package static let blockSize = 8 << 20

    package static func blockCount(ofBytes byteCount: Int, blockSize: Int = blockSize) -> Int {
        (byteCount + blockSize - 1) / blockSize
    }

    /// SHA-256 over the digests of the tensor's blocks, in order. A tensor without bytes has no blocks.
    package static func tensor(blocks: [Digest]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        for block in blocks { hash.update(block) }
        return try hash.finalize()
    }

    /// SHA-256 over the digest of the part's header and those of its tensors, in the order of the file.
    package static func part(header: Digest, tensors: [Digest]) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        hash.update(header)
        for tensor in tensors { hash.update(tensor) }
        return try hash.finalize()
    }
}
