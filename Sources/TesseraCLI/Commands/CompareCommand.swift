package import ArgumentParser
import Core
import Engine
import Planning

package struct CompareCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "compare", abstract: "Compare two models tensor by tensor.",
        discussion: """
            A model is a checkpoint, MODEL+ADAPTER, or STORE#TASK for a task of a store, which is rebuilt as it is read. Exit \
            code 1 means that they differ. 'tessera stats' tells how far fine-tunes are from their base.
            """)

    @Argument(help: "A checkpoint directory, a safetensors file, or another model.", completion: .file())
    var first: String

    @Argument(help: "The model to compare it with.", completion: .file())
    var second: String

    @Option(
        help: ArgumentHelp("The base of a store's tasks, if it is not where the store says.", valueName: "dir"),
        completion: .directory)
    var base: String?

    @Flag(help: "List every tensor that differs, and not only the first of them.")
    var all = false

    @Flag(help: "Print JSON, with exact numbers.")
    var json = false

    @OptionGroup var machine: MachineArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        let directory = currentDirectory()
        let left = try OpenedModels.open([first], base: base, workingDirectory: directory)
        let right = try OpenedModels.open([second], base: base, workingDirectory: directory)
        let progress = ByteProgress("compared", of: CheckpointComparison.byteCount(left, right))
        let comparison = try await CheckpointComparison(
            left, right, threads: machine.threads, memory: machine.memory.bytes, progress: progress.add)
        progress.finish()
        let differing = comparison.differences.count
        if json {
            try printJSON(comparison.differences)
        } else if differing == 0 {
            print("\(comparison.tensors) tensors are identical, bit for bit")
        } else {
            let listing = ComparisonListing(comparison.differences, tensors: comparison.tensors, listsAll: all)
            for line in listing.lines(.stdout) { print(line) }
        }
        if differing > 0 { throw ExitCode(TesseraError.Code.difference.exitCode) }
    }
}

/// The differences of two models for people: the first of each kind, and how many more there are.
struct ComparisonListing {
    private let differences: [CheckpointComparison.Difference]
    private let tensors: Int
    private let listsAll: Bool

    /// Rows of the table, and names of tensors that one model lacks.
    private static let shownRows = 20, shownNames = 5

    /// - Parameter tensors: of both models together.
    init(_ differences: [CheckpointComparison.Difference], tensors: Int, listsAll: Bool) {
        self.differences = differences
        self.tensors = tensors
        self.listsAll = listsAll
    }

    func lines(_ widths: OutputWidths) -> [String] {
        var values = TextTable([("TENSOR", .left), ("DIFFER", .right), ("OF", .right), ("AT MOST", .right), ("OF NORM", .right)])
        var lines = list(.values, in: &values, widths) { difference in
            [
                difference.tensor, difference.elements.map { "\($0)" } ?? "–", difference.count.map { "\($0)" } ?? "–",
                difference.largest.map { Quantity.significant($0) } ?? "–",
                difference.relative.map { "\(Quantity.significant($0 * 100)) %" } ?? "–",
            ]
        }
        var forms = TextTable([("TENSOR", .left), ("TYPES AND SHAPES", .left)])
        lines += list(.form, in: &forms, widths) { [$0.tensor, $0.description] }
        for (kind, place) in [(CheckpointComparison.Difference.Kind.onlyFirst, "first"), (.onlySecond, "second")] {
            let names = differences.filter { $0.kind == kind }.map(\.tensor.printable)
            guard !names.isEmpty else { continue }
            let shown = listsAll ? names : Array(names.prefix(Self.shownNames))
            let rest = names.count - shown.count
            let text =
                "only in the \(place) (\(names.count)): " + shown.joined(separator: ", ")
                + (rest > 0 ? " and \(rest) more" : "")
            lines += text.wrapped(toColumns: widths.text, indent: 2)
        }
        return lines + ["\(differences.count) of \(tensors) tensors differ"]
    }

    /// The first differences of a kind as a table.
    private func list(
        _ kind: CheckpointComparison.Difference.Kind, in table: inout TextTable, _ widths: OutputWidths,
        _ row: (CheckpointComparison.Difference) -> [String]
    ) -> [String] {
        let all = differences.filter { $0.kind == kind }, shown = listsAll ? all : Array(all.prefix(Self.shownRows))
        guard !all.isEmpty else { return [] }
        for difference in shown { table.add(row(difference)) }
        let rest = all.count - shown.count
        return table.lines(fitting: widths.table) + (rest > 0 ? ["and \(rest) more; --all lists them"] : []) + [""]
    }
}
