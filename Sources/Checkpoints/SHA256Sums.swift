package import Core

/// `SHA256SUMS`: digests of whole files, as read by `sha256sum -c` and used by the Hugging Face Hub.
package enum SHA256Sums {
    package static let fileName = "SHA256SUMS"
    private static let byteLimit = 64 << 20

    /// The sums of every file but `SHA256SUMS` itself and the report of the run, which differs from run to run.
    package static func text(of files: [FileDigest]) -> String {
        files.filter { $0.name != fileName && $0.name != "tessera.report.json" }.map { "\($0.digest)  \($0.name)\n" }.joined()
    }

    /// The file name and digest of every line.
    static func read(directory: String, in files: any InputFiles) throws(TesseraError) -> [(name: String, digest: Digest)] {
        let path = "\(directory)/\(fileName)"
        let text = String(decoding: try files.read(path, maxBytes: byteLimit), as: UTF8.self)
        var lines: [(name: String, digest: Digest)] = []
        for (number, line) in text.split(separator: "\n").enumerated() {
            let name = line.dropFirst(2 * Digest.byteCount)
            guard let digest = Digest(hex: String(line.prefix(2 * Digest.byteCount))),
                name.hasPrefix("  ") || name.hasPrefix(" *")
            else {
                throw TesseraError(.badData, "is not a checksum line", file: path, line: number + 1)
            }
            lines.append((String(name.dropFirst(2)), digest))
        }
        return lines
    }

    /// SHA-256 of the whole file.
    ///
    /// - Throws: what reading throws; `badData` for a file that changes meanwhile.
    package static func digest(of source: any ByteSource) throws(TesseraError) -> Digest {
        let hash = try SHA256()
        try source.forEachPiece { hash.update($0) }
        return try hash.finalize()
    }
}
