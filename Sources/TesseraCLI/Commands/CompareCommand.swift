package import ArgumentParser
import Checkpoints
import Core
import Engine

package struct CompareCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "compare", abstract: "Compare two checkpoints tensor by tensor.",
        discussion: "Exit code 1 means that they differ.")

    @Argument(help: "A checkpoint directory or a safetensors file.")
    var first: String

    @Argument(help: "The checkpoint to compare it with.")
    var second: String

    @Flag(help: "Print JSON.")
    var json = false

    package init() {}

    package func run() throws {
        let files = LocalFiles()
        let comparison = try CheckpointComparison(
            try Checkpoint.open(first, in: files), try Checkpoint.open(second, in: files), in: files)
        if json {
            try printJSON(comparison.differences)
        } else {
            var table = TextTable([("TENSOR", .left), ("DIFFERENCE", .left)])
            for difference in comparison.differences { table.add([difference.tensor, difference.description]) }
            if comparison.differences.isEmpty {
                print("\(comparison.tensors) tensors are identical, bit for bit")
            } else {
                for line in table.lines { print(line) }
            }
        }
        guard comparison.differences.isEmpty else {
            throw TesseraError(.difference, "\(comparison.differences.count) of \(comparison.tensors) tensors differ")
        }
    }
}
