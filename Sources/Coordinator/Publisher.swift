import Checkpoints
import FoundationEssentials
import Planning
import TensorKernels

/// Puts everything beside the weights into an output directory, and publishes it.
struct Publisher {
    let plan: Plan
    let assembler: Assembler
    /// The version that the manifest names.
    let build: String

    /// Writes config, tokenizer, index, recipe, model card, manifest and report, and gives the directory its name.
    ///
    /// - Parameter digests: the block digests of every tensor, by part and position in the part.
    func publish(digests: [[[Digest]]], report: RunReport, sha256Sums: Bool) throws {
        var files: [ManifestFile] = []
        for companion in plan.companions {
            let bytes = try companion.contents()
            try write(bytes, to: companion.name)
            files.append(ManifestFile(file: companion.name, size: bytes.count, digest: try .sha256(of: bytes)))
        }
        let manifest = Manifest(
            tessera: build, numericsVersion: numericsVersion, recipe: try .sha256(of: Array(plan.recipeText.utf8)),
            plan: plan.digest,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) },
            parts: try zip(plan.layout.parts, digests).map { try ManifestPart(layout: $0, blocks: $1) }, files: files)
        try write(try manifest.encoded(), to: Manifest.fileName)
        try write(try report.encoded(), to: RunReport.fileName)
        if sha256Sums { try SHA256Sums.write(directory: assembler.directory) }
        try assembler.publish()
    }

    private func write(_ bytes: [UInt8], to name: String) throws {
        try writeFile("\(assembler.directory)/\(name)", bytes, sync: true)
    }
}
