package import ArgumentParser
import Checkpoints
import Core
import Engine
import Planning
import Recipes
import TaskVectors

package struct InspectCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "List the tensors of a checkpoint or an adapter, or the tasks of a store.",
        discussion: """
            Reads headers only. For a store or one of its tasks, --errors reads the base and the fine-tunes as well, and \
            measures how much each tensor lost.
            """)

    @Argument(
        help: """
            A checkpoint or an adapter (a directory, a safetensors file, or a repository in the Hugging Face cache), a \
            task-vector store, or STORE#TASK for one of its tasks.
            """,
        completion: .file())
    var path: String

    @Option(
        help: ArgumentHelp(
            "The base of the store. Without --errors, checks byte by byte that it is the base.", valueName: "dir"),
        completion: .directory)
    var base: String?

    @Flag(help: "Of a store: list each tensor, over all tasks.")
    var tensors = false

    @Flag(help: "Of a store: measure the error of each tensor.")
    var errors = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var machine: MachineArguments

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() async throws {
        let files = LocalFiles()
        // What lies at the path goes before what '#' means.
        if try !files.exists(path), let reference = ModelReference(parsing: path), let task = reference.task {
            let store = try TaskVectorStore.open(reference.path, in: files)
            return try await list(tensorsOf: [store.task(named: task)], in: store)
        }
        if try TaskVectorStore.isStore(path, in: files) {
            let store = try TaskVectorStore.open(path, in: files)
            if tensors || errors { return try await list(tensorsOf: store.index.tasks, in: store) }
            return try list(store: store)
        }
        let unfit = [("--base", base != nil), ("--tensors", tensors), ("--errors", errors)].first { $0.1 }
        if let unfit {
            throw TesseraError(.usage, "'\(unfit.0)' applies only to a task-vector store", file: path, advice: "remove it")
        }
        let place = try files.exists(path) ? path : ModelPath.locate(path, workingDirectory: currentDirectory())
        if try AdapterSummary.isAdapter(place, in: files) { return try list(adapter: AdapterSummary(place, in: files)) }
        try list(checkpoint: Checkpoint.open(place, in: files))
    }

    // MARK: Adapters

    private func list(adapter: AdapterSummary) throws {
        if json { return try printJSON(adapter) }
        for line in AdapterListing(adapter).lines(.stdout) { print(line) }
    }

    // MARK: Stores

    private func list(store: TaskVectorStore) throws {
        var listing = try StoreListing(store)
        if let base { try listing.compare(base: base, in: store) }
        if json {
            try printJSON(listing)
        } else {
            for line in listing.lines(.stdout) { print(line) }
        }
        if listing.base.matches == false { throw ExitCode(TesseraError.Code.difference.exitCode) }
    }

    private func list(tensorsOf tasks: [StoreIndex.Task], in store: TaskVectorStore) async throws {
        var listing = StoreTensorListing(store, tasks: tasks)
        if errors {
            let measured = ByteProgress("measured", of: listing.bytesToRead)
            for task in tasks {
                let base = base ?? store.index.base.model
                let errors = try await StoreErrors(
                    of: task, in: store, base: base, workingDirectory: currentDirectory(), threads: machine.threads,
                    memory: machine.memory.bytes, progress: measured.add)
                listing.add(errors, of: task)
            }
            measured.finish()
        }
        if json { return try printJSON(listing) }
        for line in listing.lines(.stdout) { print(line) }
    }

    // MARK: Checkpoints

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

    private func list(checkpoint: Checkpoint) throws {
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
            table.add([name, entry.dtype.rawValue, shapeText(entry.shape), Quantity.bytes(entry.byteCount)])
            elements += entry.elementCount
        }
        for line in table.lines(fitting: Terminal.outputWidth) { print(line) }
        let bytes = checkpoint.parts.reduce(0) { $0 + $1.header.fileSize }
        print("")
        print(
            "\(checkpoint.tensorNames.count) tensors, \(elements) elements, "
                + "\(Quantity.bytes(bytes)) in \(checkpoint.parts.count) \(checkpoint.parts.count == 1 ? "part" : "parts")"
        )
    }
}

/// `4096 × 1024`.
func shapeText(_ shape: [Int]) -> String { shape.isEmpty ? "scalar" : shape.map(String.init).joined(separator: " × ") }
