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
        var files: [ManifestFile] = []
        func add(_ name: String, _ bytes: [UInt8]) throws {
            try output.putFile(name, bytes)
            files.append(ManifestFile(file: name, size: bytes.count, digest: try .sha256(of: bytes)))
        }
        for sidecar in plan.sidecars { try add(sidecar.name, sidecar.contents(from: inputs)) }
        for file in plan.derived { try add(file.name, try file.contents(job.statistics())) }
        let manifest = Manifest(
            tessera: build, numericsVersion: numericsVersion, recipe: try .sha256(of: Array(plan.recipeText.utf8)),
            plan: plan.digest,
            inputs: plan.inputs.map { ManifestInput(model: $0.reference, parts: $0.parts) },
            parts: plan.reused.map(\.part)
                + (try zip(plan.layout.parts, job.blocksByPart()).map { try ManifestPart(layout: $0, blocks: $1) }),
            files: files)
        try output.putFile(Manifest.fileName, try manifest.encoded())
        try output.putFile(RunReport.fileName, try report.encoded())
        if job.options.sha256Sums {
            let sums = try SHA256Sums.text(of: output.fileNames()) { (name) throws(TesseraError) in try output.open(name) }
            try output.putFile(SHA256Sums.fileName, Array(sums.utf8))
        }
        try output.commit()
    }
}
