import Checkpoints
import Core
import FoundationEssentials
import TaskVectors
import TensorKernels
import Work

/// The size of everything that a store has on disk, before it is written.
struct StoreSize {
    /// Bytes of the vectors, with the headers of their files.
    let vectors: Int
    /// Bytes of what says how to read and to check them: index, manifest, recipe, model card and report.
    let description: Int

    /// Bytes of the description that a budget does not count.
    static let free = 16 << 10
    /// The report depends on the run, and the name of the build on the build.
    private static let reportBytes = 640

    /// What a budget counts.
    var charged: Int { vectors + max(0, description - Self.free) }

    /// - Parameter earlier: the store that is extended: what it has is not counted again.
    init(of plan: Plan, extending earlier: ExtendedStore?) throws {
        let none = try Digest.sha256(of: [])
        var vectors = 0, description = Self.reportBytes, files: [ManifestFile] = []
        for derived in plan.derived {
            let size = try derived.contents(derived.placeholders(none)).count
            files.append(ManifestFile(file: derived.name, size: size, digest: none))
            if case .packedVectors = derived { vectors += size } else { description += size }
        }
        for case (let name, let size?) in plan.sidecars.map({ ($0.name, $0.byteCount) }) {
            files.append(ManifestFile(file: name, size: size, digest: none))
            description += size
        }
        let parts = try plan.layout.parts.map { part throws(TesseraError) in
            vectors += part.fileSize
            return try ManifestPart(
                layout: part,
                blocks: zip(part.tensors, plan.blockSizes(of: part)).map { tensor, size in
                    let count = TreeDigest.blockCount(ofBytes: tensor.range.count, blockSize: size)
                    return TensorBlocks(size: size, digests: Array(repeating: none, count: count))
                })
        }
        let manifest = Manifest(
            tessera: "", numericsVersion: numericsVersion, recipe: none, plan: none,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) },
            parts: plan.reused.map(\.part) + parts, files: files)
        description += try manifest.encoded().count - (try earlier?.descriptionByteCount ?? 0)
        self.vectors = vectors
        self.description = description
    }
}

extension Plan {
    /// Bytes of a block of each of the part's tensors.
    fileprivate func blockSizes(of part: PartLayout) -> [Int] {
        var sizes: [ExactText: Int] = [:]
        for output in stages.joined().flatMap(\.tensors).flatMap(\.outputs) { sizes[ExactText(output.name)] = output.blockSize }
        return part.tensors.map { sizes[ExactText($0.name)] ?? TreeDigest.blockSize }
    }
}
