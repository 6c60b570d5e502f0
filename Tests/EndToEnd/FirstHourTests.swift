import Foundation
import TestSupport
import Testing

/// What tripped people up in their first hour.
@Suite struct FirstHourTests {
    private static let recipe = "merge_method: linear\nmodels: [{model: ./a}, {model: ./b}]\nparameters: {weight: 1}\n"
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for (seed, name) in ["a", "b"].enumerated() {
            var random = SplitMix(seed: UInt64(seed))
            let values = (0..<64).map { _ in Float.random(in: -1...1, using: &random) }
            try TestTensor.writeCheckpoint("\(directory.path)/\(name)", [("w", TestTensor(values))])
        }
        try directory.write(Self.recipe, to: "r.yml")
    }

    private func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Tessera.Outcome {
        try await Tessera.run(arguments, in: directory.path, environment: environment)
    }

    /// Completion of names puts slashes there.
    @Test(arguments: ["out/", "./out//", "new/out/"])
    func slashesAtTheEndOfOutMeanNothing(output: String) async throws {
        let outcome = try await run(["run", "r.yml", output])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        let path = "\(directory.path)/\(output.hasPrefix("new") ? "new/out" : "out")"
        #expect(FileManager.default.fileExists(atPath: "\(path)/model.safetensors"))
        let names = try FileManager.default.contentsOfDirectory(
            atPath: URL(fileURLWithPath: path).deletingLastPathComponent().path)
        #expect(!names.contains { $0.contains("partial") }, "\(names)")
    }

    @Test func anOutputNeedsAName() async throws {
        let outcome = try await run(["run", "r.yml", ""])
        #expect(outcome.exitCode == 64 && outcome.errors.contains("the output has no name"), "\(outcome.errors)")
    }

    /// Whatever `--overwrite` replaces, it is not what the merge is made of.
    @Test(arguments: [["run", "again.yml", "first", "--overwrite"], ["mergekit-yaml", "again.yml", "first/"]])
    func anInputIsNotOverwritten(command: [String]) async throws {
        #expect(try await run(["run", "r.yml", "first"]).exitCode == 0)
        let before = try outputFiles("\(directory.path)/first")
        try directory.write(Self.recipe.replacingOccurrences(of: "./a", with: "./first"), to: "again.yml")
        let outcome = try await run(command)
        #expect(outcome.exitCode == 73 && outcome.errors.contains("holds the input './first'"), "\(outcome.errors)")
        #expect(try outputFiles("\(directory.path)/first") == before)
    }

    @Test func anUnknownCommandIsNamed() async throws {
        let outcome = try await run(["rum", "r.yml", "out"])
        #expect(
            outcome.exitCode == 64 && outcome.errors.contains("unknown command 'rum' — did you mean 'run'?"), "\(outcome.errors)")
    }

    /// What does not reach the disk is not success.
    @Test(arguments: [["methods"], ["plan", "r.yml", "--json"]])
    func aFullDiskOnStdoutIsAnError(command: [String]) async throws {
        let shell = try RunningTessera(
            ["-c", "exec \"$0\" \"$@\" > /dev/full", Tessera.path] + command, in: directory.path, executable: "/bin/bash")
        #expect(await shell.exitCode() == 74)
        #expect(shell.errors.contains("stdout"), "\(shell.errors)")
    }

    /// As with setpriv and sudo, which keep another user's HOME; here it leads nowhere.
    @Test func aHomeOfOthersIsNone() async throws {
        try FileManager.default.createSymbolicLink(atPath: "\(directory.path)/home", withDestinationPath: "home")
        let outcome = try await run(["plan", "r.yml"], environment: ["HOME": "\(directory.path)/home"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
    }
}
