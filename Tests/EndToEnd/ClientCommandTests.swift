import Core
import Foundation
import TestSupport
import Testing

/// What users type at a shell: clients of a coordinator, recipes from elsewhere, mergekit's command line.
@Suite(.serialized) struct ClientCommandTests {
    private let directory: TemporaryDirectory
    private static let recipe = "cases/ties/recipe.yml"
    /// Longer than the test.
    private static let slow = ["--pause-milliseconds", "600000"]

    init() throws { directory = try TemporaryDirectory() }

    // MARK: Clients

    @Test func submitSaysTheJobFirstAndWaitFollowsIt() async throws {
        let cluster = try await Cluster(workers: 1, worker: ["--pause-milliseconds", "100"])
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--json"])
        let job = try JSONDecoder().decode([String: String].self, from: Data(outcome.output.utf8))
        let id = try #require(job["job"])
        let waited = try await Tessera.run(["wait", String(id.prefix(10)), "--coordinator", cluster.jobs])
        #expect(waited.exitCode == 0 && waited.output.contains("/out: "), "\(waited.output)\(waited.errors)")
        let again = try await cluster.submit(Self.recipe, "\(directory.path)/again", ["--wait"])
        let first = try #require(again.output.split(separator: "\n").first)
        #expect(first.count == id.count && again.output.contains("/again: "), "\(again.output)")
        #expect(try await Tessera.run(["wait", "ffff", "--coordinator", cluster.jobs]).exitCode == 66)
    }

    @Test func aJobThatHasEndedIsNotCancelled() async throws {
        let cluster = try await Cluster(workers: 1)
        let outcome = try await cluster.submit(Self.recipe, "\(directory.path)/out", ["--wait"])
        let id = String(try #require(outcome.output.split(separator: "\n").first))
        let cancel = try await Tessera.run(["cancel", id, "--coordinator", cluster.jobs])
        #expect(cancel.exitCode == 64 && cancel.errors.contains("has ended as 'done'"), "\(cancel.output)\(cancel.errors)")
        #expect(directory.names == ["out"])
    }

    @Test func aSignalEndsTheWaitAndNotTheJob() async throws {
        let cluster = try await Cluster(workers: 1, worker: Self.slow)
        let client = try RunningTessera(
            ["submit", Self.recipe, "\(directory.path)/out", "--wait", "--coordinator", cluster.jobs])
        let id = try await client.waitForOutput("\n").trimmingCharacters(in: .whitespacesAndNewlines)
        client.signal(SIGINT)
        #expect(await client.exitCode() == 130)
        #expect(client.errors.contains("tessera wait \(id)"), "\(client.errors)")
        #expect(try await cluster.job(id).state == "running")
    }

    @Test(arguments: [["status"], ["submit", recipe, "out"], ["cancel", "ff"], ["wait", "ff"]])
    func aPeerThatNeverAnswersIsNotWaitedForForEver(words: [String]) async throws {
        let port = try RawListener()
        let client = try RunningTessera(words + ["--coordinator", "127.0.0.1:\(port.port)", "--timeout", "1"])
        let connection = await port.accept()
        #expect(await client.exitCode() == 69)
        #expect(client.errors.contains("did not answer within"), "\(client.errors)")
        withExtendedLifetime(connection) {}
    }

    @Test func aURLIsNoAddress() async throws {
        let outcome = try await Tessera.run(["status", "--coordinator", "http://localhost:7070"])
        #expect(outcome.exitCode == 64, "\(outcome.errors)")
    }

    // MARK: Recipes

    @Test func aRecipeMayComeFromStdin() async throws {
        let file = try #require(FileHandle(forReadingAtPath: "\(Repository.golden)/\(Self.recipe)"))
        let run = try RunningTessera(["run", "-", "\(directory.path)/out"], input: file)
        #expect(await run.exitCode() == 0, "\(run.errors)")
        let usual = try await Tessera.run(["run", Self.recipe, "\(directory.path)/usual"])
        #expect(usual.exitCode == 0)
        let (out, other) = (try outputFiles("\(directory.path)/out"), try outputFiles("\(directory.path)/usual"))
        #expect(out.filter { $0.key.hasSuffix(".safetensors") } == other.filter { $0.key.hasSuffix(".safetensors") })
    }

    @Test func keysOfARecipeAreSetByTheCommandLine() async throws {
        let planned = try await Tessera.run(["plan", Self.recipe, "--set", "merge_method=no_such_method"])
        #expect(planned.exitCode == 65 && planned.errors.contains("no_such_method"), "\(planned.output)\(planned.errors)")
        let run = try await Tessera.run(["run", Self.recipe, "\(directory.path)/out", "--set", "parameters.lambda=0.25"])
        #expect(run.exitCode == 0, "\(run.errors)")
        #expect(try String(contentsOfFile: "\(directory.path)/out/recipe.yml", encoding: .utf8).contains("lambda: 0.25"))
        let wrong = try await Tessera.run(["plan", Self.recipe, "--set", "models.99.model=x"])
        #expect(wrong.exitCode == 64 && wrong.errors.contains("models.99.model=x"), "\(wrong.errors)")
    }

    // MARK: mergekit

    @Test func aLinkIsMergekitsCommand() async throws {
        let link = "\(directory.path)/mergekit-yaml", out = "\(directory.path)/out"
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: Tessera.path)
        for _ in 1...2 {
            let run = try RunningTessera(
                [Self.recipe, out, "--cuda", "--lazy-unpickle", "--out-shard-size", "1B", "-j", "1", "-q"], executable: link)
            #expect(await run.exitCode() == 0, "\(run.errors)")
            #expect(run.errors.contains("ignored") && run.errors.contains("--cuda, --lazy-unpickle"), "\(run.errors)")
        }
        let usual = try await Tessera.run(["run", Self.recipe, "\(directory.path)/usual"])
        #expect(usual.exitCode == 0)
        #expect(
            try outputFiles(out).filter { $0.key.hasSuffix(".safetensors") }
                == outputFiles("\(directory.path)/usual").filter { $0.key.hasSuffix(".safetensors") })
        let refused = try RunningTessera([Self.recipe, out, "--no-safe-serialization"], executable: link)
        #expect(await refused.exitCode() == 64)
    }
}
