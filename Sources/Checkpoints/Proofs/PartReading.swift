package import Core

extension ManifestPart {
    /// SHA-256 of the whole part, in one reading that also holds the header and every block against this entry of the manifest:
    /// what gets signed is what was checked.
    ///
    /// - Throws: `cannotCreate` for a part with other bytes than the entry's, and what reading throws.
    package func wholeDigest(of source: any ByteSource) throws(TesseraError) -> Digest {
        let headerBytes = size - tensors.reduce(0) { $0 + $1.byteCount }
        guard source.size == size, headerBytes >= 0 else { throw changed("its size") }
        let whole = try SHA256()
        let header = try source.bytes(0..<headerBytes)
        whole.update(header)
        guard try Digest.sha256(of: header) == headerDigest else { throw changed("the header") }
        var position = headerBytes
        for tensor in tensors {
            let end = position + tensor.byteCount
            for (index, start) in stride(from: position, to: end, by: tensor.blockSize ?? TreeDigest.blockSize).enumerated() {
                let block = try source.bytes(start..<min(end, start + (tensor.blockSize ?? TreeDigest.blockSize)))
                whole.update(block)
                guard tensor.blocks.indices.contains(index), try Digest.sha256(of: block) == tensor.blocks[index] else {
                    throw changed("tensor '\(tensor.name)'")
                }
            }
            position = end
        }
        try source.checkUnchanged()
        return try whole.finalize()
    }

    private func changed(_ what: String) -> TesseraError {
        TesseraError(
            .cannotCreate, "\(what) is no longer what the workers computed", file: file,
            advice: "make sure that nobody else writes to the output while a job runs, and submit the job again")
    }
}
