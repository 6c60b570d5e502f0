import Foundation
import TestSupport
import Testing

/// The commands around a merge, as a user meets them.
@Suite(.serialized) struct CommandTests {
    private let directory: TemporaryDirectory
    private let output: String

    init() async throws {
        directory = try TemporaryDirectory()
        output = "\(directory.path)/out"
        let outcome = try await Tessera.run(["run", "cases/linear/recipe.yml", output, "--sha256sums"])
        try #require(outcome.exitCode == 0, "\(outcome.errors)")
    }

    @Test func runSaysWhatItMade() async throws {
        let outcome = try await Tessera.run(["run", "cases/ties/recipe.yml", "\(directory.path)/ties"])
        #expect(outcome.output.contains("of tensors by ties in "))
        #expect(outcome.errors.contains("note: of entries equal to a trim threshold"))
        let names = try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/ties").sorted()
        #expect(
            names == [
                "README.md", "config.json", "model.safetensors", "recipe.yml", "tessera.manifest.json", "tessera.report.json",
            ])
    }

    @Test func verifyNamesTheTensorAndBlockOfAFlippedBit() async throws {
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        let url = URL(fileURLWithPath: "\(output)/model.safetensors")
        var data = try Data(contentsOf: url)
        data[data.count - 3] ^= 1
        try data.write(to: url)
        let outcome = try await Tessera.run(["verify", output])
        #expect(outcome.exitCode == 1)
        #expect(outcome.output.contains("model.safetensors: tensor '") && outcome.output.contains("', block 0: bytes "))
        #expect(outcome.errors.contains("error: \(output): 1 difference from the manifest"))
        let sums = try await Tessera.run(["verify", output, "--json"])
        #expect(sums.exitCode == 1 && sums.output.contains("\"kind\" : \"block\""))
    }

    @Test func verifyTellsAnEditedCardFromDamagedWeights() async throws {
        try Data("# Mine\n".utf8).write(to: URL(fileURLWithPath: "\(output)/README.md"))
        let outcome = try await Tessera.run(["verify", output])
        #expect(outcome.exitCode == 1 && outcome.errors.contains("none in the weights"), "\(outcome.errors)")
        #expect(outcome.output.contains("README.md: differs from the manifest (not the weights)"), "\(outcome.output)")
        // SHA256SUMS vouches for the card as well, and agrees with the manifest.
        #expect(outcome.output.contains("weights: match; other files: 1 difference"), "\(outcome.output)")
        #expect(try await Tessera.run(["verify", output, "--weights"]).exitCode == 0)
        let url = URL(fileURLWithPath: "\(output)/model.safetensors")
        var data = try Data(contentsOf: url)
        data[data.count - 3] ^= 1
        try data.write(to: url)
        let damaged = try await Tessera.run(["verify", output, "--weights"])
        #expect(damaged.exitCode == 1 && damaged.output.contains("weights: 1 difference; other"), "\(damaged.output)")
    }

    @Test func overwriteReplacesWhatTesseraWrote() async throws {
        let before = try outputFiles(output)
        let outcome = try await Tessera.run(["run", "cases/task-arithmetic/recipe.yml", output, "--overwrite"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        #expect(try outputFiles(output)["model.safetensors"] != before["model.safetensors"])
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        #expect(directory.names == ["out"])
    }

    @Test func compareTellsWhatDiffers() async throws {
        let same = try await Tessera.run(["compare", output, "cases/linear/expected.safetensors"])
        #expect([0, 1].contains(same.exitCode), "the last bit may differ from mergekit's")
        let self_ = try await Tessera.run(["compare", output, output])
        #expect(self_.exitCode == 0 && self_.output.contains("bit for bit"))
        let other = try await Tessera.run(["compare", "models/f32/base", "models/f32/tune-0"])
        #expect(other.exitCode == 1)
        #expect(other.output.contains("OF NORM"))
        // The verdict follows the table, and is no error.
        #expect(other.output.hasSuffix("tensors differ\n") && other.errors.isEmpty, "\(other.output)\(other.errors)")
        let rows = other.output.split(separator: "\n").filter { $0.hasSuffix(" %") }
        #expect(rows.allSatisfy { $0.count < 80 }, "\(rows)")
        let numbers = rows.compactMap { row in row.split(separator: " ").dropLast().suffix(2) }.joined()
        #expect(!numbers.isEmpty && numbers.allSatisfy { $0.filter(\.isNumber).drop { $0 == "0" }.count <= 4 }, "\(numbers)")
    }

    /// Nothing to divide by, no numbers, a share beyond any integer.
    @Test(arguments: [[Float](repeating: 0, count: 3), [1, .nan, 1], [1, .infinity, 1], [1e-30, 0, 0]])
    func compareBearsAnyNumbers(values: [Float]) async throws {
        let pairs = [("x", TestTensor(values)), ("y", TestTensor([2, 2, 2]))]
        for (name, tensor) in pairs { try TestTensor.writeCheckpoint("\(directory.path)/\(name)", [("t", tensor)]) }
        for names in [["x", "y"], ["y", "x"]] {
            let outcome = try await Tessera.run(["compare"] + names, in: directory.path)
            #expect(outcome.exitCode == 1 && outcome.output.contains(#/\nt +3 +3 /#), "\(outcome)")
            let json = try await Tessera.run(["compare", "--json"] + names, in: directory.path)
            #expect(json.exitCode == 1 && json.output.contains("\"elements\" : 3"), "\(json.errors)")
        }
    }

    @Test func inspectListsTensors() async throws {
        let outcome = try await Tessera.run(["inspect", "models/bf16/base"])
        #expect(outcome.exitCode == 0)
        #expect(outcome.output.contains("BF16"))
        let json = try await Tessera.run(["inspect", "models/deep/base", "--json"])
        let listing = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: [[String: Any]]]
        #expect((listing?["parts"]?.count ?? 0) > 1)
    }

    @Test func planShowsInputsShardsAndMemory() async throws {
        let outcome = try await Tessera.run(["plan", "cases/ties/recipe.yml"])
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        for words in [
            "INPUT", "models/f32/tune-2", "OUTPUT", "model.safetensors", "SHARD", "of input, 2.0 times",
            "needs at least --memory ", "a worker with one thread needs at least --memory ",
        ] {
            #expect(outcome.output.contains(words), "\(words)")
        }
        let json = try await Tessera.run(["plan", "cases/ties/recipe.yml", "--json"])
        let plan = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
        #expect((plan?["plan"] as? String)?.count == 64)
    }

    @Test func everyCommandHasHelp() async throws {
        for command in [
            "run", "plan", "methods", "coordinator", "worker", "submit", "status", "cancel", "verify", "inspect", "compare",
            "stats", "demo",
        ] {
            let outcome = try await Tessera.run([command, "--help"])
            #expect(outcome.exitCode == 0 && outcome.output.contains("USAGE: tessera \(command)"), "\(command)")
        }
    }

    @Test func theDemoWorks() async throws {
        let outcome = try await Tessera.run(["demo", "--output", "demo", "--pace", "20"], in: directory.path)
        #expect(outcome.exitCode == 0, "\(outcome.errors)")
        for words in ["was killed during a shard", "✓ verified", "made the same bytes", "Try next"] {
            #expect(outcome.output.contains(words), "\(outcome.output)")
        }
        #expect(outcome.output.contains("eight fine-tunes in one store of 2.25 bits per parameter"))
        // Where Python can run the models, the merge reads more images than the base of every kind, and the store loses none.
        let rows = outcome.output.split(separator: "\n").map { $0.split(separator: " ") }
            .filter { $0.count > 3 && $0.last == "%" }
        guard !rows.isEmpty else { return }
        let shares = rows.map { row in row.dropFirst().compactMap { Double($0) } }
        try #require(rows.count == 4 + 9, "\(outcome.output)")
        for share in shares[..<4] { #expect(share.count == 3 && share[1] > share[0] + 4, "\(outcome.output)") }
        #expect(shares[3][1] > shares[3][0] + 10 && rows[3].first == "mean")
        #expect(shares[12].count == 2 && shares[12][1] > shares[12][0] - 0.5 && rows[12].first == "mean", "\(outcome.output)")
    }

    @Test func methodsAreListed() async throws {
        let all = try await Tessera.run(["methods"])
        #expect(all.exitCode == 0, "\(all.errors)")
        for name in ["linear", "tsv", "self_positioning"] { #expect(all.output.contains("\n\(name) ")) }
        let one = try await Tessera.run(["methods", "ties"])
        for words in [
            "base: required; models besides the base: any number", "a sweep over 'lambda' merges once", "density    model   1",
        ] {
            #expect(one.output.contains(words), "\(one.output)")
        }
        #expect(try await Tessera.run(["methods", "tie"]).exitCode == 64)
        let json = try await Tessera.run(["methods", "--json"])
        let list = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [[String: Any]])
        // One line for each method, and one for the head of the table.
        #expect(list.count == all.output.split(separator: "\n").count - 1)
        #expect(list.contains { $0["name"] as? String == "tsv" && $0["scale"] as? String == "lambda" })
    }
}
