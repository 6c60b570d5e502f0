package import ArgumentParser
import Checkpoints
import Core
import TaskVectors

package struct InspectCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "List the tensors of a checkpoint or the tasks of a store; reads headers only.")

    @Argument(help: "A checkpoint directory, a safetensors file, or a task-vector store.")
    var path: String

    @Option(help: ArgumentHelp("Check, byte by byte, whether this is the base of the store.", valueName: "dir"))
    var base: String?

    @Flag(help: "Print JSON.")
    var json = false

    private struct Listing: Encodable {
        struct Part: Encodable {
            let file: String
            let bytes: Int
            let tensors: [Tensor]
        }

        struct Tensor: Encodable {
            let name: String
            let dtype: DType
            let shape: [Int]
            let bytes: Int
        }

        let parts: [Part]
    }

    private func list(store: TaskVectorStore) throws {
        var listing = StoreListing(store)
        if let base { try listing.compare(base: base, in: store) }
        if json { try printJSON(listing) } else { print(listing.text) }
        if listing.base.matches == false { throw ExitCode(1) }
    }

    package init() {}

    package func run() throws {
        let files = LocalFiles()
        if try TaskVectorStore.isStore(path, in: files) { return try list(store: TaskVectorStore.open(path, in: files)) }
        guard base == nil else {
            throw TesseraError(.usage, "'--base' applies only to a task-vector store", file: path, advice: "remove it")
        }
        let checkpoint = try Checkpoint.open(path, in: files)
        if json {
            return try printJSON(
                Listing(
                    parts: checkpoint.parts.map { part in
                        Listing.Part(
                            file: part.fileName, bytes: part.header.fileSize,
                            tensors: part.header.tensors.map {
                                Listing.Tensor(name: $0.name, dtype: $0.dtype, shape: $0.shape, bytes: $0.byteCount)
                            })
                    }))
        }
        var table = TextTable([("TENSOR", .left), ("DTYPE", .left), ("SHAPE", .left), ("SIZE", .right)])
        var elements = 0
        for name in checkpoint.tensorNames.sorted(by: { $0.precedesNaturally($1) }) {
            guard let (_, entry) = checkpoint.tensor(named: name) else { continue }
            let shape = entry.shape.isEmpty ? "scalar" : entry.shape.map(String.init).joined(separator: " × ")
            table.add([name, entry.dtype.rawValue, shape, Quantity.bytes(entry.byteCount)])
            elements += entry.elementCount
        }
        for line in table.lines { print(line) }
        let bytes = checkpoint.parts.reduce(0) { $0 + $1.header.fileSize }
        print("")
        print(
            "\(checkpoint.tensorNames.count) tensors, \(elements) elements, "
                + "\(Quantity.bytes(bytes)) in \(checkpoint.parts.count) \(checkpoint.parts.count == 1 ? "part" : "parts")"
        )
    }
}
