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
    /// What is signed is the coordinator's own: files that others put into the unfinished output, or changed there, end the job.
    ///
    /// - Parameter unlisted: the files that are not in the manifest.
    /// - Throws: `badData` for an input that was changed after planning, `cannotCreate` for an output that others have changed,
    ///   and what reading and writing throw.
    func write(for job: Job, manifest: Manifest, unlisted: [FileDigest], name: String) throws(TesseraError) {
        let options = job.options, needsProvenance = options.provenance == true
        guard needsProvenance || options.sha256Sums || key != nil else { return }
        var files = try digests(of: manifest, unlisted)
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

    /// The digest of every file of the output, each checked against what was written.
    private func digests(of manifest: Manifest, _ unlisted: [FileDigest]) throws(TesseraError) -> [FileDigest] {
        let parts = Dictionary(manifest.parts.map { (ExactText($0.file), $0) }, uniquingKeysWith: { first, _ in first })
        let listed = Dictionary(
            (manifest.files.map { FileDigest(name: $0.file, digest: $0.digest) } + unlisted).map {
                (ExactText($0.name), $0.digest)
            },
            uniquingKeysWith: { first, _ in first })
        let present = try output.fileNames(), names = Set(present.map { ExactText($0) })
        for name in present where parts[ExactText(name)] == nil && listed[ExactText(name)] == nil {
            throw Self.changed(name, "was put into the output by others while the job ran")
        }
        for name in Array(parts.keys) + Array(listed.keys) where !names.contains(name) {
            throw Self.changed(name.string, "was removed from the output by others while the job ran")
        }
        return try FileDigest.of(
            present,
            digest: { (name) throws(TesseraError) in
                let file = try output.open(name)
                if let part = parts[ExactText(name)] { return try part.wholeDigest(of: file) }
                let digest = try SHA256Sums.digest(of: file)
                guard digest == listed[ExactText(name)] else {
                    throw Self.changed(name, "was changed by others while the job ran")
                }
                return digest
            })
    }

    private static func changed(_ name: String, _ what: String) -> TesseraError {
        TesseraError(
            .cannotCreate, what, file: name,
            advice: "make sure that nobody else writes to the output while a job runs, and submit the job again")
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
        let digests = try FileDigest.of(
            all.indices.map { "\($0)" },
            digest: { (index) throws(TesseraError) in try SHA256Sums.digest(of: try source.open(all[Int(index) ?? 0])) })
        var seen: Set<ExactText> = []
        return names.filter { seen.insert($0.name).inserted }.map {
            FileDigest(name: $0.name.string, digest: digests[$0.file].digest)
        }
    }
}
