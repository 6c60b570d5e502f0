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
        func isAsListed(_ range: Range<Int>, _ listed: Digest?) throws(TesseraError) -> Bool {
            let bytes = try source.bytes(range)
            whole.update(bytes)
            return try Digest.sha256(of: bytes) == listed
        }
        guard try isAsListed(0..<headerBytes, headerDigest) else { throw changed("the header") }
        var position = headerBytes
        for tensor in tensors {
            let end = position + tensor.byteCount
            for (index, start) in stride(from: position, to: end, by: tensor.blockSize ?? TreeDigest.blockSize).enumerated() {
                let range = start..<min(end, start + (tensor.blockSize ?? TreeDigest.blockSize))
                let listed = tensor.blocks.indices.contains(index) ? tensor.blocks[index] : nil
                guard try isAsListed(range, listed) else { throw changed("tensor '\(tensor.name)'") }
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
