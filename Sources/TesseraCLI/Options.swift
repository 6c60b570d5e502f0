public import ArgumentParser
import CLinux
import Core
import FoundationEssentials
public import Logging
import Protocol
import Work

/// What `run` and `submit` share.
struct JobArguments: ParsableArguments {
    @Argument(help: "The recipe, a YAML file.")
    var recipe: String

    @Argument(help: "The directory to make. It must not exist.")
    var output: String

    @Flag(help: "Replace OUT if Tessera wrote it.")
    var overwrite = false

    @Flag(name: .customLong("sha256sums"), help: "Also write SHA256SUMS, for sha256sum -c.")
    var sha256Sums = false

    @Flag(help: "Refuse a recipe with keys that mean nothing.")
    var strict = false

    @Option(name: .customLong("max-part-size"), help: ArgumentHelp("Bytes of a part at most.", valueName: "size"))
    var maxPartSize = ByteCount(5_000_000_000)

    @Option(
        name: .customLong("shard-size"),
        help: ArgumentHelp("Bytes of output that make a shard.", valueName: "size", visibility: .hidden))
    var shardSize: ByteCount?

    @Option(help: ArgumentHelp("What random methods such as dare_ties draw from.", valueName: "n"))
    var seed: UInt64 = 0

    @Option(
        help: ArgumentHelp(
            "How to show progress: \(ProgressStyle.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "style"))
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as JSON.")
    var json = false

    func submission() throws -> Submit {
        Submit(
            recipe: try readText(recipe), recipeName: recipe, workingDirectory: currentDirectory(), output: output,
            options: JobOptions(
                overwrite: overwrite, sha256Sums: sha256Sums, strict: strict, maxPartBytes: maxPartSize.bytes,
                shardBytes: shardSize?.bytes, seed: seed))
    }
}

/// How much of the machine to use.
struct MachineArguments: ParsableArguments {
    @Option(help: ArgumentHelp("Threads that compute.", valueName: "n"))
    var threads = availableProcessors()

    @Option(help: ArgumentHelp("Memory for buffers.", valueName: "size"))
    var memory = ByteCount(2 << 30)

    func validate() throws {
        guard (1...1024).contains(threads) else { throw ValidationError("--threads lies between 1 and 1024.") }
        guard memory.bytes >= 64 << 20 else { throw ValidationError("--memory is at least 64MiB.") }
    }
}

struct LogArguments: ParsableArguments {
    @Option(help: ArgumentHelp("How much to log to stderr.", valueName: "level"))
    var logLevel = Logger.Level.info

    func logger(_ label: String) -> Logger {
        var log = Logger(label: label, factory: { StreamLogHandler.standardError(label: $0) })
        log.logLevel = logLevel
        return log
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// A log for commands whose user watches the progress instead.
package let quietLog = Logger(label: "tessera", factory: { _ in SwiftLogNoOpLogHandler() })

/// The recipe's text.
func readText(_ path: String) throws(TesseraError) -> String {
    let bytes = try readFile(path, maxBytes: 1 << 20)
    guard let text = String(validating: bytes, as: UTF8.self) else {
        throw TesseraError(.badData, "is not UTF-8 text", file: path)
    }
    return text
}

/// The absolute path of a directory that is there.
func canonicalDirectory(_ path: String) throws -> String { try Roots([path]).directories[0] }

package func currentDirectory() -> String { FileManager.default.currentDirectoryPath }

/// Processors that this process may use.
package func availableProcessors() -> Int { max(1, Int(allowed_processors())) }

func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

/// The host's name and the process, so that two workers on one host can be told apart.
func defaultName() -> String { "\(ProcessInfo.processInfo.hostName)-\(ProcessInfo.processInfo.processIdentifier)" }
