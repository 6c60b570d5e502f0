import Foundation
import TestSupport
import Testing

/// Every error says what to do about it, and a command whose reader has gone says nothing.
@Suite struct AdviceTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for model in ["a", "b"] { try TestTensor.writeCheckpoint("\(directory.path)/m/\(model)", [("w", TestTensor([1, 2]))]) }
        try FileManager.default.createDirectory(atPath: "\(directory.path)/empty", withIntermediateDirectories: true)
        try directory.write(
            "merge_method: linear\nmodels:\n- model: m/a\n- model: m/b\nparameters: {weight: 0.5}\n", to: "recipe.yml")
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let arguments: [String]
        let exitCode: Int32
        let words: String

        var testDescription: String { arguments.joined(separator: " ") }
    }

    private static let cases = [
        Case(
            arguments: ["plan", "nope.yml"], exitCode: 66,
            words: "No such file or directory — name a YAML file, or - to read the recipe from stdin"),
        Case(arguments: ["plan", "recpie.yml"], exitCode: 66, words: "— did you mean 'recipe.yml'?"),
        Case(arguments: ["plan", "."], exitCode: 65, words: ".: is a directory, not a file — did you mean './recipe.yml'?"),
        Case(arguments: ["plan", "empty"], exitCode: 65, words: "empty: is a directory, not a file — name a YAML file"),
        Case(
            arguments: ["inspect", "m"], exitCode: 66,
            words: "m: is no checkpoint, but a directory of checkpoints — name one of them: m/a, m/b"),
        Case(
            arguments: ["inspect", "empty"], exitCode: 66,
            words: "— name a directory with model.safetensors or model.safetensors.index.json"),
        Case(arguments: ["verify", "m/a"], exitCode: 66, words: "— name an output of Tessera; 'tessera inspect' looks into"),
        Case(arguments: ["verify", "nope"], exitCode: 66, words: "nope: no such directory — name the directory of an output"),
        Case(
            arguments: ["run", "recipe.yml", "/proc/xx"], exitCode: 73,
            words: "/proc: cannot write into the directory: its file system takes no new directories — choose another place"),
        Case(
            arguments: ["plan", "recipe.yml", "--shard-size", "3"], exitCode: 64,
            words: "it must be a size of at least 1kB, such as 64MB"),
        Case(arguments: ["plan"], exitCode: 64, words: "error: Missing expected argument '<recipe>'\n"),
        Case(arguments: ["plan", "recipe.yml", "--nope"], exitCode: 64, words: "error: Unknown option '--nope'\n"),
    ]

    @Test(arguments: cases) func theErrorSaysWhatToDo(_ wrong: Case) async throws {
        let outcome = try await Tessera.run(wrong.arguments, in: directory.path)
        #expect(outcome.exitCode == wrong.exitCode && outcome.errors.contains(wrong.words), "\(outcome)")
        // One form for all.
        #expect(outcome.errors.hasPrefix("error: ") && !outcome.errors.contains("Error:"), "\(outcome.errors)")
    }

    /// As `tessera inspect m/a | head -1` once `head` has what it wants.
    @Test(arguments: [["inspect", "m/a"], ["plan", "recipe.yml"], ["plan", "recipe.yml", "--json"], ["methods"]])
    func aReaderThatHasGoneIsNoError(arguments: [String]) async throws {
        let pipe = Pipe()
        try pipe.fileHandleForReading.close()
        let command = try RunningTessera(arguments, in: directory.path, output: pipe.fileHandleForWriting)
        #expect(await command.exitCode() == 141)
        #expect(command.errors.isEmpty, "\(command.errors)")
    }

    /// It would go on for ever.
    @Test func aWatchEndsWithItsReader() async throws {
        let cluster = try await Cluster(), pipe = Pipe()
        try pipe.fileHandleForReading.close()
        let watch = try RunningTessera(
            ["status", "--watch", "--coordinator", cluster.jobs], output: pipe.fileHandleForWriting)
        #expect(await watch.exitCode() == 141)
        #expect(watch.errors.isEmpty, "\(watch.errors)")
    }
}
