import Foundation
import TestSupport
import Testing

/// `Deploy/install` puts a build in place, and takes it away again.
@Suite struct InstallTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func install(_ arguments: [String], prefix: String? = nil) async throws -> Tessera.Outcome {
        let running = try RunningTessera(
            ["--prefix=\(prefix ?? directory.path)"] + arguments, executable: "\(Repository.root)/Deploy/install")
        let code = await running.exitCode()
        return Tessera.Outcome(exitCode: code, output: running.output, errors: running.errors)
    }

    @Test func whatIsInstalledIsTakenAwayAgain() async throws {
        _ = try directory.write("mine", to: "notes")
        for _ in 1...2 {
            let outcome = try await install(["--binary", Tessera.path])
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
        for name in [
            "share/bash-completion/completions/tessera", "share/zsh/site-functions/_mergekit-yaml",
            "share/fish/vendor_completions.d/tessera.fish", "share/man/man1/tessera.1", "share/man/man1/tessera-run.1",
        ] {
            #expect(try !Data(contentsOf: URL(fileURLWithPath: "\(directory.path)/\(name)")).isEmpty, "\(name)")
        }
        let resources = "\(directory.path)/lib/tessera/tessera_Demo.resources/digits"
        #expect(FileManager.default.fileExists(atPath: "\(resources)/base/model.safetensors"), "the demo has its models")
        let version = try RunningTessera(["--version"], executable: "\(directory.path)/bin/tessera")
        #expect(await version.exitCode() == 0)
        let mergekit = try RunningTessera(["--help"], executable: "\(directory.path)/bin/mergekit-yaml")
        #expect(await mergekit.exitCode() == 0)
        #expect(mergekit.output.contains("--out-shard-size"))
        let removed = try await install(["--uninstall"])
        #expect(removed.exitCode == 0, "\(removed.errors)")
        #expect(directory.names == ["notes"])
        #expect(try await install(["--uninstall"]).exitCode == 1)
    }

    /// A list that someone changed must not lead out of the prefix.
    @Test func aDamagedListRemovesNothingElse() async throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/lib/tessera", withIntermediateDirectories: true)
        let outside = try TemporaryDirectory()
        _ = try outside.write("mine", to: "notes")
        _ = try directory.write("../\(outside.path.split(separator: "/").last ?? "")/notes\n", to: "lib/tessera/installed")
        #expect(try await install(["--uninstall"]).exitCode == 1)
        #expect(outside.names == ["notes"])
    }

    /// pip puts a command of that name there.
    @Test func anotherProgramsCommandStays() async throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/bin", withIntermediateDirectories: true)
        let own = try directory.write("mergekit's own", to: "bin/mergekit-yaml")
        let outcome = try await install(["--binary", Tessera.path])
        #expect(outcome.exitCode == 0 && outcome.output.contains("stays as it is"), "\(outcome.output)\(outcome.errors)")
        let pages = try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/share/man/man1")
        #expect(pages.contains("tessera.1") && !pages.contains("mergekit-yaml.1"), "\(pages)")
        #expect(try await install(["--uninstall"]).exitCode == 0)
        #expect(try String(contentsOfFile: own, encoding: .utf8) == "mergekit's own")
    }

    /// One sentence, and nothing is touched.
    @Test func whatCannotBeInstalledIsRefused() async throws {
        for (arguments, prefix, code, words) in [
            (["--binary=/bin/true"], nil, Int32(1), "/bin/true is not tessera"),
            (["--binary", Tessera.path], "/proc/none", 1, "cannot write into /proc/none; --prefix names another"),
            (["--perfix", "/x"], nil, 64, "unknown word '--perfix'"), (["--binary="], nil, 1, "--binary needs a file"),
        ] as [([String], String?, Int32, String)] {
            let outcome = try await install(arguments, prefix: prefix)
            #expect(outcome.exitCode == code && outcome.errors.hasPrefix("error: \(words)"), "\(outcome)")
            #expect(outcome.errors.split(separator: "\n").count { $0.hasPrefix("error") } == 1, "\(outcome.errors)")
        }
        #expect(directory.names == [])
    }
}
