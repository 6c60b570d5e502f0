import Core
import Foundation
import TestSupport
import Testing

/// Bad input ends with the right exit code, a message that helps, and nothing left behind: no OUT and no partial one.
@Suite(.serialized) struct BadInputTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for model in ["a", "b"] { try write(model) }
        try directory.write(
            "merge_method: linear\nmodels:\n- model: a\n- model: b\nparameters: {weight: 0.5}\n", to: "recipe.yml")
    }

    private static let tensors = [
        ("layers.0.weight", TestTensor([Float](repeating: 0.5, count: 600), shape: [20, 30])),
        ("norm.weight", TestTensor([1, 2, 3])),
    ]

    private func write(_ model: String, _ tensors: [(String, TestTensor)] = tensors) throws {
        try TestTensor.writeCheckpoint("\(directory.path)/\(model)", tensors)
    }

    private func change(_ file: String, _ change: (inout Data) -> Void) throws {
        let url = URL(fileURLWithPath: "\(directory.path)/\(file)")
        var data = try Data(contentsOf: url)
        change(&data)
        try data.write(to: url)
    }

    /// Runs, and submits to a cluster: both have to say the same.
    private func expect(
        _ code: Int32, _ words: String..., output: String = "out", arguments: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let before = directory.names
        func check(_ outcome: Tessera.Outcome, _ command: String) {
            #expect(outcome.exitCode == code, "\(command): \(outcome.errors)", sourceLocation: sourceLocation)
            let told = outcome.errors.split(separator: "\n").contains { $0.hasPrefix("error: ") }
            #expect(told, "\(command): \(outcome.errors)", sourceLocation: sourceLocation)
            for word in words {
                #expect(outcome.errors.contains(word), "\(command): \(outcome.errors)", sourceLocation: sourceLocation)
            }
            #expect(directory.names == before, "\(command) left something behind", sourceLocation: sourceLocation)
        }
        check(try await Tessera.run(["run", "recipe.yml", output] + arguments, in: directory.path), "run")
        let cluster = try await Cluster(workers: 1)
        check(
            try await Tessera.run(
                ["submit", "recipe.yml", output, "--wait", "--coordinator", cluster.jobs] + arguments, in: directory.path),
            "submit")
    }

    @Test func aTruncatedPart() async throws {
        try change("b/model.safetensors") { $0.removeLast(7) }
        try await expect(65, "b/model.safetensors", "tensor 'norm.weight'", "ends at byte 2412, but there are only 2405 bytes")
    }

    @Test func aCorruptHeader() async throws {
        try change("b/model.safetensors") { $0[12] = 0xff }
        try await expect(65, "b/model.safetensors", "byte 18 of the JSON: string is not valid UTF-8")
    }

    @Test func aMissingTensor() async throws {
        try write("b", [Self.tensors[0]])
        try await expect(65, "tensor 'norm.weight': missing in b, present in 1 of 2 models")
    }

    @Test func aShapeMismatch() async throws {
        try write("b", [("layers.0.weight", TestTensor([Float](repeating: 0.5, count: 600), shape: [30, 20])), Self.tensors[1]])
        try await expect(65, "tensor 'layers.0.weight': has shape [20, 30] in a and [30, 20] in b")
    }

    @Test func aModelThatIsNotThere() async throws {
        try FileManager.default.removeItem(atPath: "\(directory.path)/b")
        try await expect(66, "b: no such file or directory")
    }

    @Test func anOutputThatExists() async throws {
        try directory.write("precious", to: "out")
        try await expect(73, "out: the output exists", "--overwrite")
        // Nor is it replaced when it was not written by Tessera.
        try await expect(73, "was not written by Tessera", arguments: ["--overwrite"])
        #expect(try String(contentsOfFile: "\(directory.path)/out", encoding: .utf8) == "precious")
    }

    @Test func anOutputThatCannotBeWritten() async throws {
        try await expect(73, "the directory above the output", output: "/proc/none/out")
        try await expect(73, "/proc: cannot write into the directory", output: "/proc/out")
    }

    @Test func aRecipeWithoutSense() async throws {
        try directory.write("merge_method: tise\nmodels:\n- model: a\n", to: "recipe.yml")
        try await expect(65, "recipe.yml:1: unknown merge method 'tise' — did you mean 'ties'?")
    }

    @Test func aPyTorchCheckpoint() async throws {
        try FileManager.default.moveItem(
            atPath: "\(directory.path)/b/model.safetensors", toPath: "\(directory.path)/b/pytorch_model.bin")
        try await expect(65, "pickle files can run code; only safetensors is read", "safe_serialization=True")
    }

    @Test func integersThatDiffer() async throws {
        for (model, value) in [("a", UInt8(1)), ("b", 2)] {
            try write(model, [("ids", TestTensor(.i64, [2], bytes: [UInt8](repeating: value, count: 16)))])
        }
        try await expect(65, "tensor 'ids': holds I64 values, which cannot be averaged")
    }

    @Test func moreMemoryThanThereIs() async throws {
        let outcome = try await Tessera.run(
            ["run", "recipe.yml", "out", "--memory", "64MiB", "--threads", "16"], in: directory.path)
        #expect(outcome.exitCode == 64 && outcome.errors.contains("start it with --memory"), "\(outcome.errors)")
        #expect(directory.names == ["a", "b", "recipe.yml"])
    }

    /// A file system or limit that does not take the output: told before any work is done, and cleaned up.
    @Test(arguments: [(1, "the process limit on file sizes (ulimit -f)"), (300, "a process limit (ulimit -f) does not allow")])
    func anOutputTooLargeForTheLimit(kibibytes: Int, words: String) async throws {
        // More than the second limit, which the journal stays below.
        for model in ["a", "b"] { try write(model, [("x", TestTensor([Float](repeating: 1, count: 100_000)))]) }
        let process = Process(), pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = ["-c", "ulimit -f \(kibibytes); exec '\(Tessera.path)' run recipe.yml out"]
        process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
        process.standardError = pipe
        try process.run()
        let errors = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 74, "\(errors)")
        #expect(errors.contains(words), "\(errors)")
        #expect(directory.names == ["a", "b", "recipe.yml"])
    }

    @Test(arguments: [
        (["run"], Int32(64), "Missing expected argument"), (["dance"], 64, "dance"),
        (["run", "none.yml", "out"], 66, "none.yml"),
        (["verify", "a"], 66, "Tessera did not write it"), (["inspect", "recipe.yml"], 65, "recipe.yml"),
        (["submit", "recipe.yml", "out", "--coordinator", "127.0.0.1:1"], 69, "no coordinator answers at 127.0.0.1:1"),
        (["coordinator", "--listen", "0.0.0.0:0"], 77, "--insecure"), (["worker", "--coordinator", "nonsense"], 64, "nonsense"),
    ])
    func commandsThatCannotBe(arguments: [String], code: Int32, words: String) async throws {
        let outcome = try await Tessera.run(arguments, in: directory.path)
        #expect(outcome.exitCode == code, "\(outcome.errors)")
        #expect(outcome.errors.contains(words), "\(outcome.errors)")
        #expect(directory.names == ["a", "b", "recipe.yml"])
    }
}
