package import ArgumentParser
import Core
import Engine
import Work

/// mergekit's command line, for those who have it in their scripts and fingers.
package struct MergekitCommand: AsyncParsableCommand {
    /// A link of this name to the binary is this command.
    package static let commandName = "mergekit-yaml"

    package static let configuration = CommandConfiguration(
        commandName: commandName, abstract: "Merge on this machine, with mergekit's options.",
        discussion: """
            As 'tessera run CONFIG OUT --overwrite --mergekit-config'. Options that choose devices, threads of writing or ways \
            of loading change nothing: tensors are streamed, on the processor. A link named mergekit-yaml to the tessera binary \
            is this command.
            """, version: tesseraVersion)

    @Argument(help: "The configuration (a YAML file).", completion: .recipes)
    var config: String

    @Argument(
        help: "The directory to create. An output of Tessera or an empty directory that is there is replaced.",
        completion: .directory)
    var out: String

    @Option(
        name: .customLong("out-shard-size"),
        help: ArgumentHelp("Maximum size of an output part, in bytes: 500M, 5B.", valueName: "size"))
    var outShardSize = ShardSize(bytes: 5_000_000_000)

    @Option(name: .customLong("random-seed"), help: ArgumentHelp("Seed for random methods such as dare_ties.", valueName: "n"))
    var randomSeed: UInt64 = 0

    @Option(
        name: [.customShort("j"), .customLong("num-threads")], help: MachineArguments.threadsHelp,
        transform: MachineArguments.threadCount)
    var threads = availableProcessors()

    @Flag(name: [.customShort("v"), .customLong("verbose")], help: "Show progress, also where stderr is not a terminal.")
    var verbose: Int

    @Flag(name: [.customShort("q"), .customLong("quiet")], help: "Show no progress.")
    var quiet = false

    @OptionGroup(title: "Options that change nothing", visibility: .hidden) var idle: IdleMergekitOptions
    @OptionGroup(visibility: .hidden) var refused: RefusedMergekitOptions

    package init() {}

    package func run() async throws {
        try refused.check()
        if let note = idle.note { Terminal.remark(note) }
        var words = [
            config, out, "--overwrite", "--mergekit-config", "--max-part-size", "\(outShardSize.bytes)", "--seed",
            "\(randomSeed)",
        ]
        if !idle.writeModelCard { words.append("--no-model-card") }
        words += ["--threads", "\(threads)", "--progress", (quiet ? .none : verbose > 0 ? .plain : ProgressStyle.auto).rawValue]
        // mergekit's users replace finished outputs, and have no word for giving up an unfinished one.
        try await RunCommand.parse(words).run(discardsOtherWork: false)
    }
}

/// A size as mergekit reads it: thousands, millions and billions of bytes.
struct ShardSize: ExpressibleByArgument, Sendable {
    let bytes: Int

    init(bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        let factors: [Character: Int] = ["K": 1_000, "M": 1_000_000, "B": 1_000_000_000, "G": 1_000_000_000]
        let factor = argument.last.flatMap { factors[Character($0.uppercased())] }
        let digits = factor == nil ? Substring(argument) : argument.dropLast()
        guard let value = Double(digits), value > 0, value * Double(factor ?? 1) < 1e18 else { return nil }
        bytes = Int(value * Double(factor ?? 1))
    }

    var defaultValueDescription: String { Quantity.bytes(bytes) }
}

/// Options of mergekit about devices, downloads, ways of loading and writing, and the model card.
struct IdleMergekitOptions: ParsableArguments {
    @Flag(inversion: .prefixedNo) var cuda = false
    @Flag(name: .customLong("low-cpu-memory"), inversion: .prefixedNo) var lowMemory = false
    @Flag(name: .customLong("read-to-gpu"), inversion: .prefixedNo) var readToGPU = false
    @Flag(name: .customLong("multi-gpu"), inversion: .prefixedNo) var multiGPU = false
    @Flag(name: .customLong("gpu-rich")) var richInGPUs = false
    @Option var device: String?
    @Flag(inversion: .prefixedNo) var lazyUnpickle = false
    @Flag(inversion: .prefixedNo) var asyncWrite = false
    @Option var writeThreads: Int?
    @Flag(inversion: .prefixedNo) var cloneTensors = false
    @Flag(inversion: .prefixedNo) var trustRemoteCode = false
    @Flag(inversion: .prefixedNo) var allowCrimes = false
    @Option var loraMergeCache: String?
    @Option var loraMergeDtype: String?
    @Option var transformersCache: String?
    @Flag(inversion: .prefixedNo) var copyTokenizer = true
    @Flag(inversion: .prefixedNo) var writeModelCard = true

    /// What to tell the user; `nil` where nothing was asked for.
    var note: String? {
        let given: [(String, Bool)] = [
            ("--cuda", cuda), ("--low-cpu-memory", lowMemory), ("--read-to-gpu", readToGPU), ("--multi-gpu", multiGPU),
            ("--gpu-rich", richInGPUs), ("--device", device != nil && device != "cpu"), ("--lazy-unpickle", lazyUnpickle),
            ("--async-write", asyncWrite), ("--write-threads", writeThreads != nil), ("--clone-tensors", cloneTensors),
            ("--trust-remote-code", trustRemoteCode), ("--allow-crimes", allowCrimes),
            ("--lora-merge-cache", loraMergeCache != nil), ("--lora-merge-dtype", loraMergeDtype != nil),
            ("--transformers-cache", transformersCache != nil), ("--no-copy-tokenizer", !copyTokenizer),
        ]
        let names = given.filter(\.1).map(\.0)
        guard !names.isEmpty else { return nil }
        return "ignored, as Tessera has no use for \(names.count == 1 ? "it" : "them"): \(names.joined(separator: ", "))"
    }
}

/// Options of mergekit that would give another output than asked for.
struct RefusedMergekitOptions: ParsableArguments {
    @Flag(inversion: .prefixedNo) var safeSerialization = true
    @Flag(inversion: .prefixedNo) var unsafeTruncateEmbeddings = false

    func check() throws(TesseraError) {
        if !safeSerialization {
            throw TesseraError(
                .usage, "--no-safe-serialization: outputs are always safetensors, as pickle files can run code when they are read"
            )
        }
        if unsafeTruncateEmbeddings {
            throw TesseraError(
                .usage, "--unsafe-truncate-embeddings: embeddings are never cut without regard to their tokens",
                advice: "say in the configuration which tokenizer the output has: tokenizer: {source: union}")
        }
    }
}
