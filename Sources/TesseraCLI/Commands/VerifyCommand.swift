package import ArgumentParser
import Checkpoints
import Core
import Synchronization

package struct VerifyCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check every byte against the manifest.",
        discussion: "Exit code 1 means that something differs; each finding names the file, tensor and block.")

    @Argument(help: "An output directory written by Tessera.")
    var directory: String

    @Option(help: ArgumentHelp("Read only this share of the blocks, such as 5%.", valueName: "share"))
    var sample: Share?

    @Option(help: ArgumentHelp("Number of threads to read and hash with.", valueName: "n"))
    var threads = availableProcessors()

    @Flag(help: "Print the report as JSON.")
    var json = false

    package init() {}

    package func run() throws {
        let report = try Verification(directory: directory, in: LocalFiles(), sample: sample?.value).run(threads: threads)
        if json {
            try printJSON(report)
        } else {
            for finding in report.findings { print(Self.line(finding)) }
            if report.findings.isEmpty {
                let amount =
                    report.checkedBytes < report.totalBytes - (1 << 20) ? "\(Quantity.bytes(report.checkedBytes)) of " : ""
                print(
                    "\(directory): \(report.tensors) tensors in \(report.files) files match the manifest "
                        + "(\(amount)\(Quantity.bytes(report.totalBytes)) checked)"
                )
            }
        }
        guard report.findings.isEmpty else {
            throw TesseraError(
                .difference,
                "\(report.findings.count) \(report.findings.count == 1 ? "difference" : "differences") from the manifest",
                file: directory)
        }
    }

    private static func line(_ finding: VerifyReport.Finding) -> String {
        var place = finding.file
        if let tensor = finding.tensor { place += ": tensor '\(tensor)'" }
        if let block = finding.block { place += ", block \(block)" }
        return "\(place): \(finding.message)"
    }
}

/// `5%` or `0.05`.
struct Share: ExpressibleByArgument {
    let value: Double

    init?(argument: String) {
        let isPercent = argument.hasSuffix("%")
        guard let number = Double(isPercent ? String(argument.dropLast()) : argument) else { return nil }
        let value = isPercent ? number / 100 : number
        guard (0...1).contains(value) else { return nil }
        self.value = value
    }
}
