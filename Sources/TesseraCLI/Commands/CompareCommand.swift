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

    @Argument(help: "A checkpoint directory, a safetensors file, or another model.")
    var first: String

    @Argument(help: "The model to compare it with.")
    var second: String

    @Option(help: ArgumentHelp("The base of a store's tasks, if it is not where the store says.", valueName: "dir"))
    var base: String?

    @Flag(help: "Print JSON, with exact numbers.")
    var json = false

    @OptionGroup var machine: MachineArguments

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
            var table = TextTable([("TENSOR", .left), ("DIFFERENCE", .left)])
            for difference in comparison.differences { table.add([difference.tensor, difference.description]) }
            for line in table.lines { print(line) }
            print("")
            print("\(differing) of \(comparison.tensors) tensors differ")
        }
        if differing > 0 { throw ExitCode(TesseraError.Code.difference.exitCode) }
    }
}
