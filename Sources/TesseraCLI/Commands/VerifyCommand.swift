package import ArgumentParser
import Checkpoints
import Core
import Engine
import Planning

package struct VerifyCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check every byte against the manifest, or against a signature.",
        discussion: """
            Exit code 1 means that something differs; each finding names the file, tensor and block, and the last line says \
            whether the weights are concerned or only files beside them, such as an edited README.md. With --weights, only the \
            weights decide the exit code. With --key, every file must be as the holder of the key has signed it, with Tessera or \
            with the model-signing tool. With --repair, what is damaged is computed again and put in place of the old, if it has \
            exactly the digests of the manifest.
            """)

    @Argument(help: "An output directory written by Tessera, or with --key any directory of a model.", completion: .directory)
    var directory: String

    @Option(help: ArgumentHelp("Read only this share of the blocks, such as 5%.", valueName: "share"))
    var sample: Share?

    @Flag(help: "Succeed if the weights match: report edited configs, tokenizers and model cards, but accept them.")
    var weights = false

    @Option(help: ArgumentHelp("Check the signature too, by this public key (PEM).", valueName: "file"), completion: .file())
    var key: String?

    @Option(help: ArgumentHelp("The signature, if it is not the directory's model.sig.", valueName: "file"), completion: .file())
    var signature: String?

    @Option(
        help: ArgumentHelp(
            "Mend what is damaged, by the recipe that the output was made with. Its inputs must be what they were.",
            valueName: "recipe"), completion: .recipes)
    var repair: String?

    @Option(
        name: .customLong("max-part-size"),
        help: ArgumentHelp("With --repair: the --max-part-size that the output was made with.", valueName: "size"))
    var maxPartSize: ByteCount?

    @Option(help: ArgumentHelp("With --repair: the --seed that the output was made with.", valueName: "n"))
    var seed: UInt64?

    @OptionGroup var machine: MachineArguments

    @Flag(help: "Print the report as JSON.")
    var json = false

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func validate() throws {
        guard key != nil || signature == nil else { throw ValidationError("--signature needs --key.") }
        guard key == nil || sample == nil else {
            throw ValidationError("A signature covers whole files: --sample and --key exclude each other.")
        }
        guard key == nil || !weights else {
            throw ValidationError("A signature covers all files: --weights and --key exclude each other.")
        }
        guard repair == nil || sample == nil else {
            throw ValidationError("--repair mends all that is damaged: --sample and --repair exclude each other.")
        }
    }

    package func run() async throws {
        let files = LocalFiles()
        let check = try key.map { key throws(TesseraError) in
            try SignatureCheck(
                directory: directory, signature: signature, by: try VerificationKey(path: key), in: files)
        }
        // What others have signed has no manifest.
        let hasManifest = try check == nil || files.exists(FilePath.join(directory, Manifest.fileName))
        var report = try hasManifest ? verified(in: files) : VerifyReport()
        if let repair, !report.findings.isEmpty { try await mend(&report, by: repair) }
        if let check { report.add(try check.findings(), signedFiles: check.fileCount) }
        if json { try printJSON(report) } else { show(report) }
        let decisive = report.findings.filter { $0.isOfWeights || !weights }
        // What cannot be read may be as it should be; a difference is certain.
        let unread = decisive.filter { $0.code != nil }
        if let code = unread.first?.code, unread.count == decisive.count {
            throw TesseraError(
                code, "\(unread.count) \(unread.count == 1 ? "file" : "files") cannot be read; all others match", file: directory,
                advice: code == .notAllowed ? "check the permissions" : nil)
        }
        guard decisive.isEmpty else {
            throw TesseraError(
                .difference,
                "\(decisive.count) \(decisive.count == 1 ? "difference" : "differences") from the "
                    + (check == nil ? "manifest" : "signature or the manifest")
                    + (decisive.contains { $0.isOfWeights } ? "" : ", none in the weights"),
                file: directory)
        }
    }

    private func verified(in files: LocalFiles) throws -> VerifyReport {
        let verification = try Verification(directory: directory, in: files, sample: sample?.value)
        let progress = ByteProgress("verified", of: verification.byteCount)
        defer { progress.finish() }
        return try verification.run(threads: machine.threads, progress: progress.add)
    }

    private func mend(_ report: inout VerifyReport, by recipe: String) async throws {
        let recipe = try RecipeText(path: recipe)
        let request = PlanRequest(
            recipe: recipe.text, recipeName: recipe.name, workingDirectory: currentDirectory(), maxPartBytes: maxPartSize?.bytes,
            seed: seed ?? 0)
        let repair = try Repair(
            directory: directory, request: request, threads: machine.threads, memory: machine.memory.bytes)
        let mended = try await repair.mend(report.findings)
        let again = try Verification(directory: directory, in: LocalFiles(), only: Set(mended)).run(threads: machine.threads)
        report.mended(mended, checkedAgain: again)
    }

    private func show(_ report: VerifyReport) {
        for name in report.mendedFiles ?? [] { print("\(name.printable): mended") }
        for finding in report.findings { print(Self.line(finding).printable) }
        guard report.findings.isEmpty else {
            let damaged = report.findings.count { $0.isOfWeights }, others = report.findings.count - damaged
            func count(_ number: Int) -> String { "\(number) \(number == 1 ? "difference" : "differences")" }
            print("weights: \(damaged == 0 ? "match" : count(damaged)); other files: \(others == 0 ? "match" : count(others))")
            return
        }
        if report.files > 0 {
            let amount = report.checkedBytes < report.totalBytes - (1 << 20) ? "\(Quantity.bytes(report.checkedBytes)) of " : ""
            print(
                "\(directory.printable): \(report.tensors) tensors in \(report.files) files match the manifest "
                    + "(\(amount)\(Quantity.bytes(report.totalBytes)) checked)"
            )
        }
        if let count = report.signedFiles {
            print("\(directory.printable): \(count) files are as the holder of the key has signed them")
        }
    }

    private static func line(_ finding: VerifyReport.Finding) -> String {
        var place = finding.file
        if let tensor = finding.tensor { place += ": tensor '\(tensor)'" }
        if let block = finding.block { place += ", block \(block)" }
        return "\(place): \(finding.message)\(finding.isOfWeights ? "" : " (not the weights)")"
    }
}

/// `5%` or `0.05`.
struct Share: ExpressibleByArgument {
    let value: Double

    init(value: Double) { self.value = value }

    var defaultValueDescription: String { "\(Quantity.decimal(value * 100, places: 0))%" }

    init?(argument: String) {
        let isPercent = argument.hasSuffix("%")
        guard let number = Double(isPercent ? String(argument.dropLast()) : argument) else { return nil }
        let value = isPercent ? number / 100 : number
        guard (0...1).contains(value) else { return nil }
        self.value = value
    }
}
