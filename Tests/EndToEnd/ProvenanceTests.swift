import Foundation
import TestSupport
import Testing

/// Signed outputs and their provenance, as a user makes and checks them.
@Suite struct ProvenanceTests {
    private let directory: TemporaryDirectory
    private let key: KeyPair
    private var output: String { "\(directory.path)/out" }

    init() throws {
        directory = try TemporaryDirectory()
        key = try KeyPair()
    }

    private func flip(_ name: String) throws {
        let url = URL(fileURLWithPath: "\(output)/\(name)")
        var data = try Data(contentsOf: url)
        data[data.count / 2] ^= 1
        try data.write(to: url)
    }

    private func verify(_ arguments: [String] = []) async throws -> Tessera.Outcome {
        try await Tessera.run(["verify", output, "--key", key.publicKey] + arguments)
    }

    @Test func aSignedOutputIsVerified() async throws {
        let made = try await Tessera.run(
            ["run", "cases/linear/recipe.yml", output, "--sign-key", key.privateKey, "--provenance", "--sha256sums"])
        try #require(made.exitCode == 0, "\(made.errors)")
        let names = try FileManager.default.contentsOfDirectory(atPath: output)
        #expect(names.count == 9 && names.contains("model.sig") && names.contains("tessera.provenance.json"))
        let fine = try await verify()
        #expect(fine.exitCode == 0 && fine.output.contains("8 files are as the holder of the key has signed them"))
        #expect(try await Tessera.run(["verify", output]).exitCode == 0)
        for name in names {
            try flip(name)
            let found = try await verify(["--json"])
            // A bit of the signature or of the manifest makes it another text, or none that can be read.
            let isRead = ["model.sig", "tessera.manifest.json"].contains(name)
            #expect(isRead ? [1, 65].contains(found.exitCode) : found.exitCode == 1, "\(name): \(found.exitCode)")
            #expect(isRead || found.output.contains("differs from what was signed"), "\(name)")
            try flip(name)
        }
        #expect(try await verify().exitCode == 0)
        let stranger = try KeyPair()
        let other = try await Tessera.run(["verify", output, "--key", stranger.publicKey])
        #expect(other.exitCode == 1 && other.errors.contains("is signed with another key"))
    }

    private struct Statement: Decodable {
        struct Artifact: Decodable { let name: String; let digest: [String: String] }
        struct Predicate: Decodable { let buildDefinition: BuildDefinition }
        struct BuildDefinition: Decodable { let resolvedDependencies: [Artifact] }
        let subject: [Artifact]
        let predicate: Predicate
    }

    /// In one process and in a cluster, where the coordinator signs: the statement has the same bytes.
    @Test func theProvenanceOfTwoRunsIsTheSame() async throws {
        let made = try await Tessera.run(["run", "cases/linear/recipe.yml", output, "--provenance"])
        try #require(made.exitCode == 0, "\(made.errors)")
        let first = try Data(contentsOf: URL(fileURLWithPath: "\(output)/tessera.provenance.json"))
        let statement = try JSONDecoder().decode(Statement.self, from: first)
        #expect(
            statement.subject.map(\.name) == [
                "README.md", "config.json", "model.safetensors", "recipe.yml", "tessera.manifest.json",
            ])
        let inputs = statement.predicate.buildDefinition.resolvedDependencies
        #expect(!inputs.isEmpty)
        for (artifact, folder) in statement.subject.map({ ($0, output) }) + inputs.map({ ($0, Repository.golden) }) {
            let printed = try openssl(["dgst", "-sha256", "-r", "\(folder)/\(artifact.name)"])
            #expect(
                artifact.digest["sha256"].map { String(decoding: printed, as: UTF8.self).hasPrefix($0) } == true, "\(artifact)")
        }
        try FileManager.default.removeItem(atPath: output)
        let cluster = try await Cluster(workers: 1, coordinator: ["--sign-key", key.privateKey])
        let submitted = try await cluster.submit("cases/linear/recipe.yml", output, ["--wait", "--provenance"])
        try #require(submitted.exitCode == 0, "\(submitted.errors)")
        #expect(try Data(contentsOf: URL(fileURLWithPath: "\(output)/tessera.provenance.json")) == first)
        #expect(try await verify().exitCode == 0)
    }

    /// What a process that can write to the unfinished output puts or changes there is never signed.
    @Test(arguments: ["evil.py", "model.safetensors"])
    func whatOthersChangeIsNotSigned(name: String) async throws {
        let cluster = try await Cluster(
            workers: 1, coordinator: ["--sign-key", key.privateKey], worker: ["--pause-milliseconds", "3000"])
        let submitted = try await cluster.submit("cases/linear/recipe.yml", output, ["--shard-size", "10kB"])
        let id = submitted.output.trimmingCharacters(in: .whitespacesAndNewlines)
        try await eventually("work") { try await cluster.job(id).shards.committed > 0 }
        let path = "\(output).partial-\(id)/\(name)"
        if name == "evil.py" {
            try Data("evil".utf8).write(to: URL(fileURLWithPath: path))
        } else {
            let part = try #require(FileHandle(forUpdatingAtPath: path))
            // In the header, which nobody writes again.
            try part.seek(toOffset: 20)
            try part.write(contentsOf: Data("evil".utf8))
            try part.close()
        }
        try await eventually("the end") { try await cluster.job(id).state == "failed" }
        #expect(directory.names.filter { $0.hasPrefix("out") } == [])
    }

    @Test func aKeyThatIsNoneIsRefusedBeforeTheWork() async throws {
        let outcome = try await Tessera.run(["run", "cases/linear/recipe.yml", output, "--sign-key", key.publicKey])
        #expect(outcome.exitCode == 77 && outcome.errors.contains("chmod 600"), "\(outcome.errors)")
        #expect(directory.names == [])
        let sampled = try await verify(["--sample", "5%"])
        #expect(sampled.exitCode == 64 && sampled.errors.contains("exclude each other"))
    }
}
