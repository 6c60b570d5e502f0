package import ArgumentParser
import Checkpoints
import Core
import Planning
import Protocol

package struct PlanCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Show what a recipe would do.",
        discussion: "Reads the headers of the inputs and a sample of each file. All problems are reported at once.")

    @OptionGroup var source: RecipeArguments

    @Flag(help: "Reject a recipe with unknown or unused keys.")
    var strict = false

    @Option(
        name: .customLong("max-part-size"),
        help: ArgumentHelp("Maximum size of an output part: 5GB, 512MiB. (A billion bytes are 1GB.)", valueName: "size"))
    var maxPartSize = ByteCount(5_000_000_000)

    @Option(name: .customLong("shard-size"), help: JobArguments.shardSizeHelp, transform: JobArguments.shardSize)
    var shardSize: ByteCount?

    @Option(help: ArgumentHelp("Seed for random methods such as dare_ties.", valueName: "n"))
    var seed: UInt64 = 0

    @Flag(help: "Print the plan as JSON.")
    var json = false

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() throws {
        let recipe = try source.read()
        var request = PlanRequest(
            recipe: recipe.text, recipeName: recipe.name, workingDirectory: currentDirectory(),
            maxPartBytes: maxPartSize.bytes, shardBytes: shardSize?.bytes, strict: strict, seed: seed)
        request.recipeOrigins = recipe.origins
        let summary: PlanSummary
        do {
            summary = PlanSummary(try Planner.plan(request))
        } catch let problems as Problems {
            if json { try printJSON(["problems": problems.all]) }
            throw problems
        }
        if json {
            try printJSON(summary)
        } else {
            for line in summary.lines(.stdout) { print(line) }
            Terminal.warn(summary.warnings)
        }
    }
}

/// A plan as shown to the user.
struct PlanSummary: Encodable {
    struct Input: Encodable {
        let model: String
        let parts: Int
        let bytes: Int
        /// Whether the method is given it beside the models.
        let isGiven: Bool
    }

    struct Part: Encodable {
        let file: String
        let tensors: Int
        let bytes: Int
    }

    struct Shard: Encodable {
        let label: String
        let tensors: Int
        let bytesInput: Int
        let bytesOutput: Int
    }

    struct File: Encodable {
        let file: String
        /// "made", "copied" or "left out".
        let fate: String
        /// Why it is left out.
        let reason: String?
    }

    let plan: Digest
    let method: String
    /// The model that the others are compared with; `nil` where the method has no use for one, or counts it as any other.
    let base: String?
    let inputs: [Input]
    let parts: [Part]
    /// What stands beside the weights, and what does not come along.
    let files: [File]
    let stages: [[Shard]]
    /// Whether these stages only measure the models, and the output is laid out after them.
    let measuresOnly: Bool
    /// Of the output; those that are measured, while nothing else is known.
    let tensors: Int
    /// Input bytes counted once, and input bytes counted once per read.
    let bytesInput: Int
    let bytesRead: Int
    let bytesWritten: Int
    /// About how many bytes the output will have, where that is known before it is laid out.
    let bytesExpected: Int?
    /// The minimum `--memory` of `tessera run` with this machine's number of threads; `nil` where none would do.
    let bytesMemory: Int?
    /// The minimum `--memory` of a worker with one thread; `nil` where none would do.
    let bytesWorkerMemory: Int?
    let threads: Int
    let remarks: [String]
    let warnings: [TesseraError]

    init(_ plan: Plan) {
        self.plan = plan.digest
        method = plan.method
        base = plan.base
        bytesExpected = plan.expectedBytes
        let models = plan.inputs.count - plan.givenCount
        inputs = plan.inputs.enumerated().map { index, input in
            Input(model: input.reference, parts: input.parts.count, bytes: input.byteCount, isGiven: index >= models)
        }
        parts = plan.layout.parts.map { Part(file: $0.fileName, tensors: $0.tensors.count, bytes: $0.fileSize) }
        files =
            (plan.swept.first?.sidecars ?? plan.sidecars)
            .map { File(file: $0.name, fate: $0.copiedFrom == nil ? "made" : "copied", reason: nil) }
            + plan.leftOut.map { File(file: $0.name, fate: "left out", reason: $0.reason) }
        stages = plan.stages.map { stage in
            stage.map {
                Shard(label: $0.label, tensors: $0.tensors.count, bytesInput: $0.sourceByteCount, bytesOutput: $0.byteCount)
            }
        }
        measuresOnly = plan.hasMoreStages
        tensors = plan.hasMoreStages ? plan.stages.joined().reduce(0) { $0 + $1.tensors.count } : plan.tensorCount
        bytesInput = plan.stages.joined().reduce(0) { $0 + $1.sourceByteCount }
        bytesRead = plan.bytesRead
        bytesWritten = plan.bytesWritten
        threads = availableProcessors()
        bytesMemory = WorkerMemory.least(for: plan.largestNeed, threads: threads, isConnected: false)
        bytesWorkerMemory = WorkerMemory.least(for: plan.largestNeed, threads: 1, isConnected: true)
        remarks = plan.remarks
        warnings = plan.warnings
    }

    /// The maximum number of shards listed individually.
    private static let listedShards = 40

    func lines(_ widths: OutputWidths) -> [String] { tables(width: widths.table) + prose(widths) }

    private func tables(width: Int?) -> [String] {
        let count = inputs.count { !$0.isGiven && $0.model != base }, models = "\(count) \(count == 1 ? "model" : "models")"
        var lines = ["\(method) of \(models)\(base.map { " on \($0)" } ?? ""), plan \(plan.hex.prefix(12))", ""]
        var rows = TextTable([("INPUT", .left), ("PARTS", .right), ("SIZE", .right)])
        for input in inputs { rows.add([input.model, "\(input.parts)", Quantity.bytes(input.bytes)]) }
        lines += rows.lines(fitting: width) + [""]
        if !parts.isEmpty {
            var output = TextTable([("OUTPUT", .left), ("TENSORS", .right), ("SIZE", .right)])
            for part in parts { output.add([part.file, "\(part.tensors)", Quantity.bytes(part.bytes)]) }
            lines += output.lines(fitting: width) + [""]
        }
        for (number, stage) in stages.enumerated() {
            let title = stages.count == 1 ? "SHARD" : "SHARD OF STAGE \(number + 1)"
            var table = TextTable([(title, .left), ("TENSORS", .right), ("IN", .right), ("OUT", .right)])
            for shard in stage.prefix(Self.listedShards) {
                table.add([
                    shard.label, "\(shard.tensors)", Quantity.bytes(shard.bytesInput),
                    measuresOnly ? "–" : Quantity.bytes(shard.bytesOutput),
                ])
            }
            lines += table.lines(fitting: width)
            if stage.count > Self.listedShards { lines.append("and \(stage.count - Self.listedShards) more") }
        }
        return lines
    }

    private static func option(_ bytes: Int?) -> String {
        bytes.map { "at least \(WorkerMemory.option($0))" } ?? "more memory than it could have"
    }

    private func prose(_ widths: OutputWidths) -> [String] {
        var lines: [String] = []
        for fate in ["made", "copied", "left out"] {
            let names = files.filter { $0.fate == fate }.map { file in file.file + (file.reason.map { " (\($0))" } ?? "") }
            guard !names.isEmpty else { continue }
            if fate == "made" { lines.append("") }
            lines += "\(fate): \(names.joined(separator: ", ").printable)".wrapped(toColumns: widths.text, indent: 2)
        }
        let passes = bytesInput > 0 ? Quantity.decimal(Double(bytesRead) / Double(bytesInput), places: 1) : "0"
        let facts = [
            ("reads", "\(Quantity.bytes(bytesRead)): \(Quantity.bytes(bytesInput)) of input, \(passes) times"),
            (
                "writes",
                measuresOnly
                    ? (bytesExpected.map { "about \(Quantity.bytes($0)); " } ?? "")
                        + "these shards measure \(tensors) tensors, and the output is laid out by what they find"
                    : "\(Quantity.bytes(bytesWritten)) in \(tensors) tensors"
            ),
            ("memory", "'tessera run' with \(Quantity.threads(threads)) needs \(Self.option(bytesMemory))"),
            ("", "a worker with one thread needs \(Self.option(bytesWorkerMemory))"),
        ]
        lines.append("")
        for (label, text) in facts + remarks.map({ ("note", $0.printable) }) {
            lines += widths.labelled(label, text, column: 8)
        }
        return lines
    }
}
