import Checkpoints
import Core
import Planning
import Protocol
import TensorKernels
import Work

/// Puts everything beside the weights into an output.
struct Publisher {
    private let output: any OutputTransaction
    private let settings: JobManager.Settings

    init(output: any OutputTransaction, settings: JobManager.Settings) {
        self.output = output
        self.settings = settings
    }

    /// Writes config, tokenizer, index, recipe, model card, manifest, report and proofs. May be called again after an error.
    ///
    /// - Parameter name: what the output's signature calls it.
    func write(_ job: Job, named name: String, report: RunReport) throws {
        let plan = job.plan
        var parts = plan.reused.map(\.part)
        parts += try zip(plan.layout.parts, job.blocksByPart()).map { try ManifestPart(layout: $0, blocks: $1) }
        var files: [ManifestFile] = []
        // A checkpoint of a sweep has a manifest of its own, which the manifest of the whole lists.
        let width = parts.count / max(1, plan.swept.count)
        for (index, checkpoint) in plan.swept.enumerated() {
            let own = parts[index * width..<(index + 1) * width].map(\.besideManifest)
            var listed = try put(checkpoint.sidecars, below: "\(checkpoint.folder)/")
            let manifest = try manifest(plan, recipe: checkpoint.recipeText, parts: own, files: listed)
            listed += try put([SidecarFile(name: Manifest.fileName, bytes: manifest.encoded())], below: "\(checkpoint.folder)/")
            files += listed.map { ManifestFile(file: "\(checkpoint.folder)/\($0.file)", size: $0.size, digest: $0.digest) }
        }
        files += try put(plan.sidecars)
        files += try put(plan.derived.map { SidecarFile(name: $0.name, bytes: try $0.contents(job.statistics())) })
        let manifest = try manifest(plan, recipe: plan.recipeText, parts: parts, files: files)
        let unlisted = [(Manifest.fileName, try manifest.encoded()), (RunReport.fileName, try stableJSON(report))]
        for (file, bytes) in unlisted { try output.putFile(file, bytes) }
        try OutputProofs(output: output, inputs: settings.inputRoots, key: settings.signingKey).write(
            for: job, manifest: manifest,
            unlisted: unlisted.map { FileDigest(name: $0, digest: try .sha256(of: $1)) }, name: name)
    }

    /// - Returns: the files by their own names.
    private func put(_ sidecars: [SidecarFile], below folder: String = "") throws -> [ManifestFile] {
        try sidecars.map { sidecar in
            let bytes = try sidecar.contents(from: settings.inputRoots.files)
            try output.putFile(folder + sidecar.name, bytes)
            return ManifestFile(file: sidecar.name, size: bytes.count, digest: try .sha256(of: bytes))
        }
    }

    private func manifest(_ plan: Plan, recipe: String, parts: [ManifestPart], files: [ManifestFile]) throws -> Manifest {
        Manifest(
            tessera: settings.build, numericsVersion: numericsVersion, recipe: try .sha256(of: Array(recipe.utf8)),
            plan: plan.digest,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) }, parts: parts, files: files)
    }
}
