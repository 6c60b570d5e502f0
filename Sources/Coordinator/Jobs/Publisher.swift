import Checkpoints
import Core
import Planning
import Protocol
import TensorKernels
import Work

/// Puts everything beside the weights into an output, and gives the output its name.
struct Publisher {
    private let output: any OutputTransaction
    private let settings: JobManager.Settings

    init(output: any OutputTransaction, settings: JobManager.Settings) {
        self.output = output
        self.settings = settings
    }

    /// Writes config, tokenizer, index, recipe, model card, manifest, report and proofs, and commits the output.
    ///
    /// - Parameter name: what the output's signature calls it.
    func publish(_ job: Job, named name: String, report: RunReport) throws {
        let plan = job.plan
        var files: [ManifestFile] = []
        func add(_ name: String, _ bytes: [UInt8]) throws {
            try output.putFile(name, bytes)
            files.append(ManifestFile(file: name, size: bytes.count, digest: try .sha256(of: bytes)))
        }
        for sidecar in plan.sidecars { try add(sidecar.name, sidecar.contents(from: settings.inputRoots.files)) }
        for file in plan.derived { try add(file.name, try file.contents(job.statistics())) }
        let manifest = Manifest(
            tessera: settings.build, numericsVersion: numericsVersion, recipe: try .sha256(of: Array(plan.recipeText.utf8)),
            plan: plan.digest,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) },
            parts: plan.reused.map(\.part)
                + (try zip(plan.layout.parts, job.blocksByPart()).map { try ManifestPart(layout: $0, blocks: $1) }),
            files: files)
        try output.putFile(Manifest.fileName, try manifest.encoded())
        try output.putFile(RunReport.fileName, try stableJSON(report))
        try OutputProofs(output: output, inputs: settings.inputRoots, key: settings.signingKey)
            .write(for: job, manifest: manifest, name: name)
        try output.commit()
    }
}
