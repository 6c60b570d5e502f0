package import Core

/// A file, by its path in a directory, and SHA-256 of the whole of it.
package struct FileDigest: Sendable, Hashable {
    package let name: String
    package let digest: Digest

    package init(name: String, digest: Digest) {
        self.name = name
        self.digest = digest
    }

    /// Computes the digest of each file, on all processors, one file on each.
    ///
    /// - Parameter digest: of one of the files, by its name; called from several threads.
    /// - Throws: what `digest` throws, for the first name that has a problem.
    package static func of(
        _ names: [String], digest: @Sendable (String) throws(TesseraError) -> Digest
    ) throws(TesseraError) -> [FileDigest] {
        var files: [FileDigest] = []
        for (name, result) in zip(names, results(of: names, digest: digest)) {
            files.append(FileDigest(name: name, digest: try result.get()))
        }
        return files
    }

    /// The digest of each file, or why there is none, in the order of `names`.
    static func results(
        of names: [String], digest: @Sendable (String) throws(TesseraError) -> Digest
    ) -> [Result<Digest, TesseraError>] {
        names.concurrentMap { name in
            do throws(TesseraError) {
                return .success(try digest(name))
            } catch {
                return .failure(error)
            }
        }
    }
}
