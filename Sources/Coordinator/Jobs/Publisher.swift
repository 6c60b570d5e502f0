import Checkpoints
import Core
import FoundationEssentials
import Planning
import Protocol
import TensorKernels

/// Puts everything beside the weights into an output, and gives the output its name.
struct Publisher {
    private let output: any OutputTransaction
    /// Where sidecar files are read.
    private let inputs: any InputFiles
    /// The version that the manifest names.
    private let build: String

    init(output: any OutputTransaction, inputs: any InputFiles, build: String) {
        self.output = output
        self.inputs = inputs
        self.build = build
    }

    /// Writes config, tokenizer, index, recipe, model card, manifest and report, and commits the output.
    func publish(_ job: Job, report: RunReport) throws {
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
        try output.putFile(
            Manifest.fileName, try manifest(plan, recipe: plan.recipeText, parts: parts, files: files).encoded())
        try output.putFile(RunReport.fileName, try report.encoded())
        if job.options.sha256Sums {
            let sums = try SHA256Sums.text(of: output.fileNames()) { (name) throws(TesseraError) in try output.open(name) }
            try output.putFile(SHA256Sums.fileName, Array(sums.utf8))
        }
        try output.commit()
    }

    /// - Returns: the files by their own names.
    private func put(_ sidecars: [SidecarFile], below folder: String = "") throws -> [ManifestFile] {
        try sidecars.map { sidecar in
            let bytes = try sidecar.contents(from: inputs)
            try output.putFile(folder + sidecar.name, bytes)
            return ManifestFile(file: sidecar.name, size: bytes.count, digest: try .sha256(of: bytes))
        }
    }

    private func manifest(_ plan: Plan, recipe: String, parts: [ManifestPart], files: [ManifestFile]) throws -> Manifest {
        Manifest(
            tessera: build, numericsVersion: numericsVersion, recipe: try .sha256(of: Array(recipe.utf8)), plan: plan.digest,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) }, parts: parts, files: files)
    }
}
