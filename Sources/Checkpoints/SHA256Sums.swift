package import Core

/// `SHA256SUMS`: digests of whole files, as read by `sha256sum -c` and used by the Hugging Face Hub.
package enum SHA256Sums {
    package static let fileName = "SHA256SUMS"
    private static let chunkBytes = 1 << 20
    private static let byteLimit = 64 << 20

    /// Writes the digests of all files in the directory except `SHA256SUMS` and the run report, which differs between runs.
    package static func write(directory: String) throws(TesseraError) {
        var text = ""
        for name in try LocalFiles().list(directory) where name != fileName && name != "tessera.report.json" {
            text += "\(try digest(ofFile: "\(directory)/\(name)"))  \(name)\n"
        }
        try writeFile("\(directory)/\(fileName)", Array(text.utf8), sync: true)
    }

    /// The file name and digest of every line.
    static func read(directory: String) throws(TesseraError) -> [(name: String, digest: Digest)] {
        let path = "\(directory)/\(fileName)"
        let text = String(decoding: try LocalFiles().read(path, maxBytes: byteLimit), as: UTF8.self)
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

    static func digest(ofFile path: String) throws(TesseraError) -> Digest {
        let file = try ReadableFile(path)
        let hash = try SHA256()
        var position = 0
        while position < file.size {
            let end = min(file.size, position + chunkBytes)
            hash.update(try file.bytes(position..<end))
            position = end
        }
        return try hash.finalize()
    }
}
