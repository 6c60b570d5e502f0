package import Core

/// An input checkpoint as pinned by the plan and the manifest.
package struct ManifestInput: Sendable, Hashable, Codable {
    package struct Part: Sendable, Hashable, Codable {
        package let file: String
        /// Bytes.
        package let size: Int
        package let headerDigest: Digest
        /// `ContentSample` of the file; `nil` in manifests of earlier versions.
        package let sample: Digest?
        /// SHA-256 of the whole file, if the job was to read all of its inputs before.
        package let sha256: Digest?
        /// `HubBlob` for a file of the hub's cache.
        package let blob: String?

        package init(
            file: String, size: Int, headerDigest: Digest, sample: Digest? = nil, sha256: Digest? = nil, blob: HubBlob? = nil
        ) {
            self.file = file
            self.size = size
            self.headerDigest = headerDigest
            self.sample = sample
            self.sha256 = sha256
            self.blob = blob?.text
        }

        /// The same without what it holds: as a store's index names its inputs, which is the same however they are pinned.
        package var unpinned: Part { Part(file: file, size: size, headerDigest: headerDigest) }

        /// Whether both are of the same file, as far as is known of them.
        package func isSame(as other: Part) -> Bool {
            func agree<Value: Equatable>(_ one: Value?, _ other: Value?) -> Bool { one == nil || other == nil || one == other }
            return size == other.size && headerDigest == other.headerDigest && agree(sample, other.sample)
                && agree(sha256, other.sha256)
        }
    }

    /// The model reference as written in the recipe.
    package let model: String
    package let parts: [Part]

    package init(model: String, parts: [Part]) {
        self.model = model
        self.parts = parts
    }
}

/// An output tensor and its digests.
package struct ManifestTensor: Sendable, Hashable, Codable {
    package let name: String
    package let dtype: DType
    package let shape: [Int]
    /// `TreeDigest.tensor` over the blocks.
    package let digest: Digest
    /// SHA-256 of each block, so that a damaged block can be identified.
    package let blocks: [Digest]
    /// The block size in bytes, if not `TreeDigest.blockSize`.
    package let blockSize: Int?

    package var byteCount: Int { Shape.count(shape) * dtype.bitWidth / 8 }
}

/// The digests of a tensor's blocks and the block size.
package struct TensorBlocks: Sendable, Hashable {
    /// Bytes; the last block may be shorter.
    package let size: Int
    package let digests: [Digest]

    package init(size: Int = TreeDigest.blockSize, digests: [Digest]) {
        self.size = size
        self.digests = digests
    }
}

/// An output part.
package struct ManifestPart: Sendable, Hashable, Codable {
    package private(set) var file: String
    /// Bytes.
    package let size: Int
    package let headerDigest: Digest
    /// `TreeDigest.part` over the header and the tensors.
    package let digest: Digest
    /// In file order.
    package let tensors: [ManifestTensor]

    /// - Parameter blocks: the block digests of each tensor, in the order of `layout.tensors`.
    package init(layout: PartLayout, blocks: [TensorBlocks]) throws(TesseraError) {
        var tensors: [ManifestTensor] = []
        for (entry, blocks) in zip(layout.tensors, blocks) {
            tensors.append(
                ManifestTensor(
                    name: entry.name, dtype: entry.dtype, shape: entry.shape,
                    digest: try TreeDigest.tensor(blocks: blocks.digests),
                    blocks: blocks.digests, blockSize: blocks.size == TreeDigest.blockSize ? nil : blocks.size))
        }
        file = layout.fileName
        size = layout.fileSize
        headerDigest = layout.headerDigest
        digest = try TreeDigest.part(header: layout.headerDigest, tensors: tensors.map(\.digest))
        self.tensors = tensors
    }

    /// Where the tensors begin, in bytes from the beginning of the file.
    package var dataStart: Int { size - tensors.reduce(0) { $0 + $1.byteCount } }

    /// The part as a manifest in the part's own folder has it.
    package var besideManifest: ManifestPart {
        var part = self
        part.file = FilePath.components(of: file).last ?? file
        return part
    }
}

/// Any other output file.
package struct ManifestFile: Sendable, Hashable, Codable {
    package let file: String
    /// Bytes.
    package let size: Int
    /// SHA-256 of the whole file.
    package let digest: Digest

    package init(file: String, size: Int, digest: Digest) {
        self.file = file
        self.size = size
        self.digest = digest
    }
}

/// `tessera.manifest.json`: what an output was made from and what every byte of it must be.
///
/// The same recipe over the same inputs gives the same manifest: no time and no host is in it, and no path but those that the
/// recipe itself names.
package struct Manifest: Sendable, Hashable, Codable, VersionedFile {
    package static let fileName = "tessera.manifest.json"
    /// What says how a store's files hold its task vectors.
    package static let storeIndexName = "task-vectors.json"
    /// Ends the name of a file with a store's packed vectors.
    package static let packedVectorsSuffix = ".packed"
    /// Output files that the manifest does not list: itself, the run report, and what is made of the whole output.
    package static let unlistedFiles: Set<String> = [
        fileName, "tessera.report.json", Provenance.fileName, SHA256Sums.fileName, ModelSignature.fileName,
    ]

    /// The files of an output, by their paths in it; `nil` for a directory without a readable manifest.
    package static func files(ofOutput directory: String) -> Set<String>? {
        guard let manifest = try? Manifest.read(directory: directory, in: LocalFiles()) else { return nil }
        return unlistedFiles.union(manifest.parts.map(\.file)).union(manifest.files.map(\.file))
    }
    package static let formatName = "tessera.manifest"
    package static let formatVersion = 1
    package static let title = "a Tessera manifest"

    package let format: String
    package let version: Int
    /// The version of Tessera that wrote the output.
    package let tessera: String
    package let numericsVersion: Int
    /// SHA-256 of the recipe's text.
    package let recipe: Digest
    package let plan: Digest
    package let inputs: [ManifestInput]
    package let parts: [ManifestPart]
    package let files: [ManifestFile]

    package init(
        tessera: String, numericsVersion: Int, recipe: Digest, plan: Digest, inputs: [ManifestInput], parts: [ManifestPart],
        files: [ManifestFile]
    ) {
        format = Self.formatName
        version = Self.formatVersion
        self.tessera = tessera
        self.numericsVersion = numericsVersion
        self.recipe = recipe
        self.plan = plan
        self.inputs = inputs
        self.parts = parts
        self.files = files.sorted { $0.file.precedesInBytes($1.file) }
    }

    package func encoded() throws(TesseraError) -> [UInt8] { try stableJSON(self) }

    /// - Throws: `inputMissing` if the directory has no manifest, `badData` if it is damaged or has a newer format.
    package static func read(directory: String, in store: any InputFiles) throws(TesseraError) -> Manifest {
        let path = "\(directory)/\(fileName)"
        guard try store.exists(path) else {
            guard let kind = try store.status(of: directory)?.kind else {
                throw TesseraError(.inputMissing, "no such directory", file: directory, advice: "name the directory of an output")
            }
            guard kind == .directory else {
                throw TesseraError(
                    .usage, "is not a directory", file: directory, advice: "name the directory of an output, not a file in it")
            }
            throw TesseraError(
                .inputMissing, "has no \(fileName): Tessera did not write it, or did not finish", file: directory,
                advice: "name an output of Tessera; 'tessera inspect' looks into other checkpoints")
        }
        let manifest = try Manifest.decode(path, in: store)
        try manifest.check(file: path)
        return manifest
    }

    /// Bounds every number that is computed with, and keeps the names of files inside the directory.
    private func check(file: String) throws(TesseraError) {
        func damaged(_ problem: String, _ tensor: String? = nil) -> TesseraError {
            TesseraError(.badData, "\(problem); the manifest is damaged", file: file, tensor: tensor)
        }
        var left = SizeLimit.total
        for (name, size) in parts.map({ ($0.file, $0.size) }) + files.map({ ($0.file, $0.size) }) {
            guard FilePath.isPlain(name) else { throw damaged("names the file '\(name)', which is not a file beside it") }
            guard (0...left).contains(size) else { throw damaged("says that \(name) has \(size) bytes") }
            left -= size
        }
        for part in parts {
            var left = part.size
            for tensor in part.tensors {
                let byteCount: Int, blockSize = tensor.blockSize ?? TreeDigest.blockSize
                do throws(TesseraError) {
                    byteCount = try tensor.dtype.byteCount(ofShape: tensor.shape)
                } catch {
                    throw damaged(error.problem, tensor.name)
                }
                guard byteCount <= left else { throw damaged("says that \(part.file) is too small for this tensor", tensor.name) }
                guard (1...TreeDigest.blockSize).contains(blockSize) else {
                    throw damaged("has a block size of \(blockSize) bytes", tensor.name)
                }
                let count = TreeDigest.blockCount(ofBytes: byteCount, blockSize: blockSize)
                guard tensor.blocks.count == count else {
                    throw damaged("has \(tensor.blocks.count) digests for \(count) blocks", tensor.name)
                }
                left -= byteCount
            }
        }
    }
}
