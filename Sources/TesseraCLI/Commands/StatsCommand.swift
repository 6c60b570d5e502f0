package import ArgumentParser
import Core
import Engine
import Glibc
import Planning

package struct StatsCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Measure how far models moved from their base, and in which directions.",
        discussion: """
            Prints norms and relative changes of the task vectors for the model, each layer and each kind of module, their \
            cosines, and how often two models moved an entry to the same side. Reads every model once. docs/inspection.md \
            explains the numbers.
            """)

    @Argument(help: "The model that the others were trained from.", completion: .file())
    var base: String

    @Argument(help: "Models: checkpoints, MODEL+ADAPTER, or STORE#TASK for a task of a store.", completion: .file())
    var models: [String]

    @Flag(help: "List each tensor, too.")
    var tensors = false

    @Flag(help: "Print CSV: one row for each model and part, and one for each two models and part.")
    var csv = false

    @Flag(help: "Print JSON.")
    var json = false

    @Option(
        help: ArgumentHelp("Also draw the changes over the layers, and the cosines, as SVG.", valueName: "file.svg"),
        completion: .file(extensions: ["svg"]))
    var plot: String?

    @OptionGroup var machine: MachineArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func validate() throws {
        guard !csv || !json else { throw ValidationError("--csv and --json exclude each other.") }
        guard plot.map({ $0.lowercased().hasSuffix(".svg") }) ?? true else {
            throw ValidationError("--plot writes SVG: give the file a name that ends in .svg.")
        }
        guard models.count <= ModelMeasurement.modelLimit else {
            throw ValidationError("At most \(ModelMeasurement.modelLimit) models are compared at a time.")
        }
    }

    package func run() async throws {
        if let plot { try checkPlace(for: plot) }
        let opened = try OpenedModels.open([base] + models, base: base, workingDirectory: currentDirectory())
        for remark in opened.remarks { Terminal.remark(remark) }
        let progress = ByteProgress("measured", of: ModelMeasurement.byteCount(opened))
        let measurement = try await ModelMeasurement(
            opened, threads: machine.threads, memory: machine.memory.bytes, progress: progress.add)
        progress.finish()
        let report = ChangeReport(references: opened.references, measurement)
        guard !report.tensors.isEmpty else {
            throw TesseraError(
                .badData, "the models have no tensor of numbers in common with the base", file: base,
                advice: Self.reasons(report.leftOut))
        }
        if csv {
            print(report.csv)
        } else if json {
            try printJSON(report)
        } else {
            print(ChangeTables(report: report, width: Terminal.size(STDOUT_FILENO).width).text(listsTensors: tensors))
        }
        if !json, let reasons = Self.reasons(report.leftOut) { Terminal.remark("left out: \(reasons)") }
        if let plot { try writeFile(plot, Array(ChangePlot(report).document.utf8)) }
    }

    /// - Throws: `cannotCreate` where the file cannot be written: better said before the work than after it.
    private func checkPlace(for path: String) throws(TesseraError) {
        let isThere = access(path, F_OK) == 0, descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            throw TesseraError(
                .cannotCreate, "the plot cannot be written: \(String(cString: strerror(errno)))", file: path,
                advice: "name a file in a directory that you may write to")
        }
        close(descriptor)
        if !isThere { unlink(path) }
    }

    private static func reasons(_ leftOut: [ModelMeasurement.LeftOut]) -> String? {
        guard let first = leftOut.first else { return nil }
        let rest = leftOut.count - 1
        return "\(first.tensor) (\(first.reason))" + (rest > 0 ? " and \(rest) more" : "")
    }
}
