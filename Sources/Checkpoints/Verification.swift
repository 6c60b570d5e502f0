package import Core
import Dispatch
import Synchronization

/// The result of verifying an output directory.
package struct VerifyReport: Sendable, Hashable, Codable {
    package struct Finding: Sendable, Hashable, Codable {
        package enum Kind: String, Sendable, Hashable, Codable {
            case missing, extra, size, header, block, contents, unreadable
        }

        package let kind: Kind
        package let file: String
        package let tensor: String?
        /// The index of the block in the tensor, from 0.
        package let block: Int?
        /// What differs, for people.
        package let message: String
        /// Whether the weights are concerned, or what says where they are and what they should be. Other files, such as configs,
        /// tokenizers and model cards, may be edited without harm to the weights.
        package let isOfWeights: Bool
        /// Why an unreadable file cannot be read: nothing is known of its bytes.
        package let code: TesseraError.Code?

        package init(
            kind: Kind, file: String, tensor: String? = nil, block: Int? = nil, message: String, code: TesseraError.Code? = nil
        ) {
            self.code = code
            self.kind = kind
            self.file = file
            self.tensor = tensor
            self.block = block
            self.message = message
            isOfWeights = Self.weightFiles.contains { file.hasSuffix($0) }
        }

        private static let weightFiles = [
            ".safetensors", Checkpoint.indexName, Manifest.fileName, Manifest.storeIndexName,
            Manifest.packedVectorsSuffix,
        ]
    }

    package let tensors: Int
    package let files: Int
    package let totalBytes: Int
    /// Less than `totalBytes` if only a sample of the blocks was read.
    package let checkedBytes: Int
    package private(set) var findings: [Finding]
    /// Files that a signature covers; `nil` where none was checked.
    package private(set) var signedFiles: Int?
    /// Files that were damaged and are good now; `nil` where nothing was to be mended.
    package private(set) var mendedFiles: [String]?
}

extension VerifyReport {
    /// Of a directory without a manifest.
    package init() { self.init(tensors: 0, files: 0, totalBytes: 0, checkedBytes: 0, findings: []) }

    /// After the files with these names were made anew: what another check found of them and of the directory takes the place of
    /// what was found before.
    package mutating func mended(_ names: [String], checkedAgain: VerifyReport) {
        mendedFiles = names.sortedByBytes()
        let kept = findings.filter { !names.contains($0.file) && $0.kind != .extra && !checkedAgain.findings.contains($0) }
        findings = kept + checkedAgain.findings
    }

    package mutating func add(_ findings: [Finding], signedFiles: Int) {
        self.findings += findings
        self.signedFiles = signedFiles
    }
}

/// Checks an output directory against its manifest.
package struct Verification: Sendable {
    private let directory: String
    private let files: any InputFiles
    private let manifest: Manifest
    private let pieces: [Piece]

    /// A unit of checking.
    private enum Piece: Sendable {
        case header(ManifestPart)
        case block(part: ManifestPart, tensor: ManifestTensor, index: Int, range: Range<Int>)
        case file(ManifestFile)

        var byteCount: Int {
            switch self {
            case .header: 0
            case .block(_, _, _, let range): range.count
            case .file(let file): file.size
            }
        }
    }

    /// The number of bytes to read.
    package var byteCount: Int { pieces.reduce(0) { $0 + $1.byteCount } }

    /// - Parameters:
    ///   - files: where the directory is read.
    ///   - names: the files to read; `nil` for all.
    ///   - sample: the share of the blocks to read, 0...1; `nil` for all. Headers and small files are always read.
    /// - Throws: `inputMissing` or `badData` if the directory has no readable manifest.
    package init(directory: String, in files: any InputFiles, only names: Set<String>? = nil, sample: Double? = nil)
        throws(TesseraError)
    {
        self.directory = directory
        self.files = files
        manifest = try Manifest.read(directory: directory, in: files)
        var pieces: [Piece] = []
        var generator = SystemRandomNumberGenerator()
        for part in manifest.parts where names?.contains(part.file) ?? true {
            pieces.append(.header(part))
            var position = part.dataStart
            for tensor in part.tensors {
                let size = tensor.blockSize ?? TreeDigest.blockSize
                for (index, start) in stride(from: 0, to: tensor.byteCount, by: size).enumerated() {
                    let end = min(tensor.byteCount, start + size)
                    if let sample, Double.random(in: 0..<1, using: &generator) >= sample { continue }
                    pieces.append(.block(part: part, tensor: tensor, index: index, range: position + start..<position + end))
                }
                position += tensor.byteCount
            }
        }
        self.pieces = pieces + manifest.files.filter { names?.contains($0.file) ?? true }.map(Piece.file)
    }

    /// Reads and checks all pieces on `threads` threads.
    ///
    /// - Parameter progress: called from any thread with the size of each finished piece, in bytes.
    package func run(threads: Int, progress: @escaping @Sendable (Int) -> Void = { _ in }) throws(TesseraError) -> VerifyReport {
        let next = Atomic(0)
        let found = Mutex<[Int: [VerifyReport.Finding]]>([:])
        DispatchQueue.concurrentPerform(iterations: max(1, threads)) { _ in
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < pieces.count else { return }
                let findings = check(pieces[index])
                if !findings.isEmpty { found.withLock { $0[index] = findings } }
                progress(pieces[index].byteCount)
            }
        }
        let inOrder = found.withLock { found in found.keys.sorted().flatMap { found[$0] ?? [] } }
        let total = manifest.parts.reduce(0) { $0 + $1.size } + manifest.files.reduce(0) { $0 + $1.size }
        return VerifyReport(
            tensors: manifest.parts.reduce(0) { $0 + $1.tensors.count }, files: manifest.files.count + manifest.parts.count,
            totalBytes: total, checkedBytes: byteCount, findings: Self.unique(inOrder + (try checkNames()) + (try checkSums())))
    }

    // MARK: Checks

    private func check(_ piece: Piece) -> [VerifyReport.Finding] {
        let name =
            switch piece {
            case .header(let part), .block(let part, _, _, _): part.file
            case .file(let file): file.file
            }
        let path = "\(directory)/\(name)"
        do throws(TesseraError) {
            guard try files.exists(path) else {
                return [.init(kind: .missing, file: name, message: "the file is missing")]
            }
            switch piece {
            case .header(let part): return try check(header: part, path: path)
            case .block(let part, let tensor, let index, let range):
                return try check(part, tensor, block: index, range, path: path)
            case .file(let file): return try check(file: file, path: path)
            }
        } catch {
            return [.init(kind: .unreadable, file: name, message: error.problem, code: error.code)]
        }
    }

    private func check(header part: ManifestPart, path: String) throws(TesseraError) -> [VerifyReport.Finding] {
        let file = try files.open(path)
        guard file.size == part.size else {
            return [.init(kind: .size, file: part.file, message: "has \(file.size) bytes; the manifest says \(part.size)")]
        }
        var findings: [VerifyReport.Finding] = []
        if try Digest.sha256(of: file.bytes(0..<part.dataStart)) != part.headerDigest {
            findings.append(.init(kind: .header, file: part.file, message: "the header differs from the manifest"))
        }
        // The manifest itself may have been edited, so its digests must agree with each other.
        var tensorDigests: [Digest] = []
        for tensor in part.tensors {
            tensorDigests.append(tensor.digest)
            if try TreeDigest.tensor(blocks: tensor.blocks) != tensor.digest {
                findings.append(
                    .init(
                        kind: .contents, file: Manifest.fileName, tensor: tensor.name,
                        message: "the digests of this tensor are inconsistent"))
            }
        }
        if try TreeDigest.part(header: part.headerDigest, tensors: tensorDigests) != part.digest {
            findings.append(
                .init(kind: .contents, file: Manifest.fileName, message: "the digests of \(part.file) are inconsistent"))
        }
        return findings
    }

    private func check(
        _ part: ManifestPart, _ tensor: ManifestTensor, block: Int, _ range: Range<Int>, path: String
    ) throws(TesseraError) -> [VerifyReport.Finding] {
        let file = try files.open(path)
        // A wrong file size is reported once, with the header.
        guard file.size == part.size else { return [] }
        guard tensor.blocks.indices.contains(block), try Digest.sha256(of: file.bytes(range)) == tensor.blocks[block] else {
            return [
                .init(
                    kind: .block, file: part.file, tensor: tensor.name, block: block,
                    message: "bytes \(range.lowerBound)–\(range.upperBound - 1) differ from the manifest")
            ]
        }
        return []
    }

    private func check(file: ManifestFile, path: String) throws(TesseraError) -> [VerifyReport.Finding] {
        try SHA256Sums.digest(of: try files.open(path)) == file.digest
            ? [] : [.init(kind: .contents, file: file.file, message: "differs from the manifest")]
    }

    /// Some readers would load parts that the manifest does not list.
    private func checkNames() throws(TesseraError) -> [VerifyReport.Finding] {
        let known = Set(manifest.parts.map(\.file) + manifest.files.map(\.file)).union(Manifest.unlistedFiles)
        return try files.below(directory).filter { !known.contains($0) }
            .map { .init(kind: .extra, file: $0, message: "is not in the manifest") }
    }

    private func checkSums() throws(TesseraError) -> [VerifyReport.Finding] {
        guard try files.exists("\(directory)/\(SHA256Sums.fileName)") else { return [] }
        var findings: [VerifyReport.Finding] = []
        let whole = Dictionary(manifest.files.map { ($0.file, $0.digest) }, uniquingKeysWith: { first, _ in first })
        for (name, digest) in try SHA256Sums.read(directory: directory, in: files) {
            if let known = whole[name], known != digest {
                findings.append(
                    .init(kind: .contents, file: SHA256Sums.fileName, message: "the line for \(name) differs from the manifest"))
            }
        }
        return findings
    }

    private static func unique(_ findings: [VerifyReport.Finding]) -> [VerifyReport.Finding] {
        var seen: Set<VerifyReport.Finding> = []
        return findings.filter { seen.insert($0).inserted }
    }
}
