import Checkpoints
import Core
import Planning
import Protocol
import Work

/// What an output has beside its manifest for the tools of others: provenance, checksums and a signature, as asked for.
struct OutputProofs {
    private let output: any OutputTransaction
    private let inputs: Roots
    private let key: SigningKey?

    /// - Parameter key: signs the output; `nil` for one that is not signed.
    init(output: any OutputTransaction, inputs: Roots, key: SigningKey?) {
        self.output = output
        self.inputs = inputs
        self.key = key
    }

    /// Reads the output once, and for provenance the inputs as well. Everything else of the output must be written.
    ///
    /// - Throws: `badData` for an input that was changed after planning, and what reading and writing throw.
    func write(for job: Job, manifest: Manifest, name: String) throws(TesseraError) {
        let options = job.options, needsProvenance = options.provenance == true
        guard needsProvenance || options.sha256Sums || key != nil else { return }
        var files = try FileDigest.of(try output.fileNames()) { (name) throws(TesseraError) in try output.open(name) }
        func add(_ name: String, _ bytes: [UInt8]) throws(TesseraError) {
            try output.putFile(name, bytes)
            files.append(FileDigest(name: name, digest: try .sha256(of: bytes)))
            files.sort { $0.name.precedesInBytes($1.name) }
        }
        if needsProvenance {
            let statement = try Provenance.statement(
                of: manifest, files: files.filter { $0.name != RunReport.fileName }, inputs: try inputDigests(of: job.plan),
                maxPartBytes: options.maxPartBytes ?? PlanRequest.defaultMaxPartBytes, seed: options.seed ?? 0)
            try add(Provenance.fileName, statement)
        }
        if options.sha256Sums { try add(SHA256Sums.fileName, Array(SHA256Sums.text(of: files).utf8)) }
        if let key { try output.putFile(ModelSignature.fileName, ModelSignature.signing(files, of: name, with: key)) }
    }

    /// The digest of every input file, called by the model's reference and the file's name. A file that several models share is
    /// read once, and named for each.
    private func inputDigests(of plan: Plan) throws(TesseraError) -> [FileDigest] {
        var positions: [InputFile: Int] = [:], files: [InputFile] = [], names: [(name: ExactText, file: Int)] = []
        for input in plan.inputs {
            for (part, file) in zip(input.parts, input.files) {
                let position = positions[file] ?? files.count
                if position == files.count {
                    positions[file] = position
                    files.append(file)
                }
                names.append((ExactText("\(input.reference)/\(part.file)"), position))
            }
        }
        let source = FetchSource(roots: inputs), all = files
        let digests = try FileDigest.of(all.indices.map { "\($0)" }) { (index) throws(TesseraError) in
            try source.open(all[Int(index) ?? 0])
        }
        var seen: Set<ExactText> = []
        return names.filter { seen.insert($0.name).inserted }.map {
            FileDigest(name: $0.name.string, digest: digests[$0.file].digest)
        }
    }
}
