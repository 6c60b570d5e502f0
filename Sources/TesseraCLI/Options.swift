import ArgumentParser
import CLinux
import Core
import FoundationEssentials
import Protocol
import Work

/// The options shared by `run` and `submit`.
struct JobArguments: ParsableArguments {
    @OptionGroup var source: RecipeArguments

    @Argument(help: "The directory to create. It must not exist.", completion: .directory)
    var output: String

    @Flag(help: "Replace OUT if Tessera wrote it, and the unfinished output of another recipe.")
    var overwrite = false

    @Flag(name: .customLong("sha256sums"), help: "Also write SHA256SUMS, for sha256sum -c.")
    var sha256Sums = false

    @Flag(
        help: """
            Also write tessera.provenance.json, an SLSA provenance statement with the digest of every input and output file. \
            This reads all of them once more.
            """)
    var provenance = false

    @Flag(help: "Also write the recipe as mergekit_config.yml, where the tools of mergekit look for it.")
    var mergekitConfig = false

    @Flag(name: .customLong("no-model-card"), help: "Do not write a model card, README.md.")
    var noModelCard = false

    @Option(
        help: ArgumentHelp(
            """
            How inputs are recognised on other hosts and after a restart: by a digest of a sample of each file (sampled), or of \
            all of it (full), which reads everything once before the work begins.
            """, valueName: "how"))
    var inputs = InputReading.sampled

    @Flag(help: "Reject a recipe with unknown or unused keys.")
    var strict = false

    @Option(
        name: .customLong("max-part-size"),
        help: ArgumentHelp("Maximum size of an output part: 5GB, 512MiB. (A billion bytes are 1GB.)", valueName: "size"))
    var maxPartSize = ByteCount(5_000_000_000)

    @Option(name: .customLong("shard-size"), help: Self.shardSizeHelp, transform: Self.shardSize)
    var shardSize: ByteCount?

    static let shardSizeHelp = ArgumentHelp(
        """
        Target size of a shard's output, at least 1kB. Smaller shards suit many workers and take less memory; larger ones cost \
        less to keep. No shard is smaller than a tensor.
        """, valueName: "size")

    @Sendable static func shardSize(_ text: String) throws(OutOfRange) -> ByteCount {
        guard let size = ByteCount(argument: text), size.bytes >= 1000 else {
            throw OutOfRange("a size of at least 1kB, such as 64MB")
        }
        return size
    }

    @Option(help: ArgumentHelp("Seed for random methods such as dare_ties.", valueName: "n"))
    var seed: UInt64 = 0

    @Option(
        help: ArgumentHelp(
            "Submissions with the same key are one job. The default is derived from plan, OUT and options.", valueName: "key"))
    var idempotencyKey: String?

    @Option(help: ProgressStyle.help)
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as JSON.")
    var json = false

    /// - Parameters:
    ///   - audit: `JobOptions.audit`.
    ///   - name: `JobOptions.name`.
    func submission(audit: Double? = nil, name: String? = nil) throws -> Submit {
        let recipe = try source.read()
        return Submit(
            recipe: recipe.text, recipeName: recipe.name, recipeOrigins: recipe.origins, workingDirectory: currentDirectory(),
            output: output,
            options: JobOptions(
                overwrite: overwrite, sha256Sums: sha256Sums, strict: strict, maxPartBytes: maxPartSize.bytes,
                shardBytes: shardSize?.bytes, seed: seed, provenance: provenance ? true : nil,
                fullInputs: inputs == .full ? true : nil, audit: audit, name: name,
                mergekitConfig: mergekitConfig ? true : nil, modelCard: noModelCard ? false : nil), idempotencyKey: idempotencyKey
        )
    }
}

/// What every command has. The file is read before the command line is (`Settings`): this is for help and completion.
package struct GeneralArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp("The configuration file, instead of ~/.config/tessera/config.yml.", valueName: "file"),
        completion: .file(extensions: ["yml", "yaml"]))
    var config: String?

    package init() {}
}

/// How much of the inputs is read to recognise them.
enum InputReading: String, CaseIterable, ExpressibleByArgument {
    case sampled, full
}

/// Where this user's digests of input files are kept: the caches of the XDG base directory specification.
func cachedDigests() -> InputDigests {
    let environment = ProcessInfo.processInfo.environment
    let base =
        environment["XDG_CACHE_HOME"].flatMap { FilePath.isAbsolute($0) ? $0 : nil } ?? environment["HOME"].map { "\($0)/.cache" }
    guard let base else { return InputDigests() }
    return InputDigests(directories: ["\(base)/tessera"])
}

/// Who signs outputs. The key stays with the process that publishes them.
struct SigningArguments: ParsableArguments {
    @Option(
        name: .customLong("sign-key"),
        help: ArgumentHelp(
            "Sign every file of an output with this private key (PEM, P-256, P-384 or P-521, mode 600), into model.sig.",
            valueName: "file"), completion: .file())
    var file: String?

    func key() throws(TesseraError) -> SigningKey? {
        guard let file else { return nil }
        return try SigningKey(path: file)
    }
}

/// How many threads and how much memory to use.
struct MachineArguments: ParsableArguments {
    @Option(help: Self.threadsHelp, transform: Self.threadCount)
    var threads = availableProcessors()

    @Option(
        help: ArgumentHelp("Memory for buffers, at least 64MiB.", valueName: "size"),
        transform: { text throws(OutOfRange) in
            let bytes = ByteCount(argument: text)
            guard let bytes, bytes.bytes >= WorkerMemory.smallest else {
                throw OutOfRange("a size of at least 64MiB, such as 2GiB")
            }
            return bytes
        })
    var memory = ByteCount(2 << 30)

    static let threadsHelp = ArgumentHelp("Number of compute threads, from 1 to 1024.", valueName: "n")

    static func threadCount(_ text: String) throws(OutOfRange) -> Int {
        guard let count = Int(text), (1...1024).contains(count) else { throw OutOfRange("a number from 1 to 1024") }
        return count
    }
}

/// Why the value of an option does not fit. ArgumentParser names the option, as the user wrote it, and the value.
struct OutOfRange: Error, CustomStringConvertible {
    let description: String

    /// - Parameter wanted: what the value must be.
    init(_ wanted: String) { description = "it must be \(wanted)" }
}

/// The absolute path of an existing directory.
func canonicalDirectory(_ path: String) throws -> String { try Roots([path]).directories[0] }

package func currentDirectory() -> String { FileManager.default.currentDirectoryPath }

/// The number of processors this process may use.
package func availableProcessors() -> Int { max(1, Int(allowed_processors())) }

package func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self).printableJSON)
}

/// The host name and process id, which distinguishes two workers on one host.
func defaultName() -> String { "\(ProcessInfo.processInfo.hostName)-\(ProcessInfo.processInfo.processIdentifier)" }
