package import Core

/// Checks a directory against the signature of all its files, whoever signed it.
package struct SignatureCheck: Sendable {
    private let directory: String
    private let files: any InputFiles
    private let signature: ModelSignature
    /// The signature's own path in the directory; `nil` for one that lies elsewhere.
    private let ownPath: String?

    private static let byteLimit = 256 << 20

    /// - Parameter path: the signature; `nil` for `model.sig` in the directory.
    /// - Throws: `inputMissing` where there is none, and what `ModelSignature` throws for one that is not by this key.
    package init(
        directory: String, signature path: String? = nil, by key: VerificationKey, in files: any InputFiles
    ) throws(TesseraError) {
        let path = path ?? FilePath.join(directory, ModelSignature.fileName)
        guard try files.exists(path) else {
            throw TesseraError(.inputMissing, "there is no signature", file: path, advice: "name it with --signature")
        }
        self.directory = directory
        self.files = files
        signature = try ModelSignature(try files.read(path, maxBytes: Self.byteLimit), file: path, by: key)
        let canonical = try files.canonicalPath(of: path), whole = try files.canonicalPath(of: directory)
        ownPath = canonical.flatMap { canonical in whole.flatMap { FilePath.relative(canonical, to: $0) } }
    }

    /// The number of signed files.
    package var fileCount: Int { signature.files.count }

    /// Reads every file of the directory.
    ///
    /// - Throws: what listing the directory throws. A file that cannot be read is a finding.
    package func findings() throws(TesseraError) -> [VerifyReport.Finding] {
        let present = try files.below(directory).filter { !isIgnored($0) }, known = Set(present.map { ExactText($0) })
        let signed = Set(signature.files.map { ExactText($0.name) })
        var findings = present.filter { !signed.contains(ExactText($0)) }
            .map { VerifyReport.Finding(kind: .extra, file: $0, message: "is not in the signature") }
        let found = signature.files.filter { known.contains(ExactText($0.name)) }
        findings += signature.files.filter { !known.contains(ExactText($0.name)) }
            .map { VerifyReport.Finding(kind: .missing, file: $0.name, message: "is signed, but missing") }
        let whole = try files.canonicalPath(of: directory) ?? directory
        let results = FileDigest.results(of: found.map(\.name)) { (name) throws(TesseraError) in
            let path = FilePath.join(directory, name)
            let isInPlace = try files.canonicalPath(of: path) == FilePath.join(whole, name)
            guard isInPlace || signature.allowsLinks else {
                throw TesseraError(.difference, "is a link, or lies behind one, and the signature covers none")
            }
            return try SHA256Sums.digest(of: try files.open(path))
        }
        for (file, result) in zip(found, results) {
            switch result {
            case .failure(let error): findings.append(.init(kind: .unreadable, file: file.name, message: error.problem))
            case .success(file.digest): continue
            case .success: findings.append(.init(kind: .contents, file: file.name, message: "differs from what was signed"))
            }
        }
        return findings
    }

    /// As the tool does it: a path that is left out takes everything below it along.
    private func isIgnored(_ path: String) -> Bool {
        let own = ownPath.map { [$0] } ?? []
        return (own + signature.ignored + ModelSignature.hostPaths).contains { left in
            path.utf8.elementsEqual(left.utf8) || path.utf8.starts(with: "\(left)/".utf8)
        }
    }
}
