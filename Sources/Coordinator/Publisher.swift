import Checkpoints
import Core
import FoundationEssentials
import Planning
import TensorKernels
import Work

/// Puts everything beside the weights into an output directory, and publishes it.
struct Publisher {
    let plan: Plan
    let assembler: Assembler
    /// The version that the manifest names.
    let build: String

    /// Writes config, tokenizer, index, recipe, model card, manifest and report, and gives the directory its name.
    ///
    /// - Parameters:
    ///   - blocks: of every tensor, by part and position in the part.
    ///   - statistics: what was found in each tensor.
    func publish(
        blocks: [[TensorBlocks]], statistics: [String: TensorStatistics], report: RunReport, sha256Sums: Bool
    ) throws {
        var files: [ManifestFile] = []
        func add(_ name: String, _ bytes: [UInt8]) throws {
            try write(bytes, to: name)
            files.append(ManifestFile(file: name, size: bytes.count, digest: try .sha256(of: bytes)))
        }
        for sidecar in plan.sidecars { try add(sidecar.name, sidecar.contents()) }
        if let index = plan.index { try add(index.name, try index.make(statistics)) }
        let manifest = Manifest(
            tessera: build, numericsVersion: numericsVersion, recipe: try .sha256(of: Array(plan.recipeText.utf8)),
            plan: plan.digest,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) },
            parts: plan.reused.map(\.part)
                + (try zip(plan.layout.parts, blocks).map { try ManifestPart(layout: $0, blocks: $1) }),
            files: files)
        try write(try manifest.encoded(), to: Manifest.fileName)
        try write(try report.encoded(), to: RunReport.fileName)
        if sha256Sums { try SHA256Sums.write(directory: assembler.directory) }
        try assembler.publish()
    }

    private func write(_ bytes: [UInt8], to name: String) throws {
        try writeFile("\(assembler.directory)/\(name)", bytes, sync: true)
    }
}
