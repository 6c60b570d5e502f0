package import Core

/// What a file holds according to its name in the cache of the Hugging Face hub: `models--ORG--NAME/blobs/DIGEST`. The cache
/// names what LFS keeps by SHA-256, 64 digits, and all else by the id that git gives it, 40 digits.
package enum HubBlob: Sendable, Hashable {
    case sha256(Digest)
    case git(String)

    /// - Parameter path: without links, as those of a snapshot lead to the blobs.
    /// - Returns: `nil` for a path of another kind.
    package init?(path: String) {
        let steps = FilePath.components(of: path).suffix(3)
        guard steps.count == 3, let repository = steps.first, let name = steps.last, repository.contains("--"),
            steps[steps.startIndex + 1] == "blobs"
        else { return nil }
        if let digest = Digest(hex: name) {
            self = .sha256(digest)
        } else if name.utf8.count == 40, name.allSatisfy({ $0.isHexDigit && !$0.isUppercase }) {
            self = .git(name)
        } else {
            return nil
        }
    }

    /// As the manifest has it.
    package var text: String {
        switch self {
        case .sha256(let digest): "sha256:\(digest)"
        case .git(let id): "git:\(id)"
        }
    }

    /// - Parameter sha256: of the whole file.
    /// - Throws: `badData` when the file holds something else, and what reading throws.
    package func check(_ source: any ByteSource, sha256: Digest, file: String) throws(TesseraError) {
        let found: HubBlob
        switch self {
        case .sha256: found = .sha256(sha256)
        case .git: found = .git(try Self.gitID(of: source))
        }
        guard found == self else {
            throw TesseraError(
                .badData, "is not what its name in the hub's cache says: it is \(found.text)", file: file,
                advice: "the download is damaged, or somebody wrote to it: remove the file, and download it again")
        }
    }

    /// SHA-1 over `blob SIZE`, a zero byte and the contents.
    private static func gitID(of source: any ByteSource) throws(TesseraError) -> String {
        let hash = try MessageDigest(.sha1)
        hash.update(Array("blob \(source.size)\0".utf8))
        try source.forEachPiece { hash.update($0) }
        return try hash.finalize().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
