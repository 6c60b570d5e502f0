import ArgumentParser
import Core
import Foundation
import Protocol
import TestSupport
import Testing

@testable import TesseraCLI

/// Options of the environment and of a configuration file.
@Suite struct SettingsTests {
    private struct Root: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "tool", subcommands: [WorkerCommand.self, StatusCommand.self, CoordinatorCommand.self])
    }

    private let directory: TemporaryDirectory

    private static func complaint(about arguments: [String]) -> String? {
        do {
            _ = try Root.parseAsRoot(arguments)
            return nil
        } catch {
            return Root.message(for: error)
        }
    }

    init() throws { directory = try TemporaryDirectory() }

    private func arguments(
        _ given: String, _ environment: [String: String] = [:], file: String? = nil
    ) throws -> [String] {
        var environment = environment
        environment["XDG_CONFIG_HOME"] = directory.path
        if let file {
            let path = try directory.write(file, to: "config.yml")
            environment["TESSERA_CONFIG"] = path
        }
        let settings = try Settings(
            of: Root.self, arguments: given.split(separator: " ").map(String.init), environment: environment)
        guard settings.fileProblems.isEmpty else { throw Problems(settings.fileProblems) }
        return settings.arguments()
    }

    @Test func theCommandLineWinsOverTheEnvironmentAndThatOverTheFile() throws {
        let file = "coordinator: file:1\nname: file\nthreads: 1\n"
        let environment = ["TESSERA_COORDINATOR": "env:1", "TESSERA_NAME": "env"]
        let words = try arguments("worker --coordinator=typed:1", environment, file: file)
        #expect(words.first == "worker" && words.contains("--coordinator=typed:1"))
        #expect(words.contains("--name=env") && words.contains("--threads=1"))
        #expect(!words.contains { $0.contains("file") || $0 == "--coordinator=env:1" }, "\(words)")
        let command = try WorkerCommand.parse(Array(words.dropFirst()))
        #expect(command.coordinator.description == "typed:1" && command.name == "env" && command.machine.threads == 1)
    }

    @Test func anOptionIsForTheCommandsThatHaveIt() throws {
        let words = try arguments("status", ["TESSERA_ROOT": "/data", "TESSERA_COORDINATOR": "env:1"])
        #expect(words == ["status", "--coordinator=env:1"])
        #expect(try arguments("", ["TESSERA_COORDINATOR": "env:1"]) == [])
        #expect(try arguments("status", ["TESSERA_COORDINATOR": ""]) == ["status"])
    }

    /// `coordinator` and `status` are options as well as commands.
    @Test func aSectionIsForOneCommand() throws {
        let file = """
            coordinator: all:1
            status:
              timeout: 9
            coordinator_: &x
            """
        #expect(throws: Problems.self) { try arguments("status", file: file) }
        let good = "coordinator: all:1\ntimeout: 7\nstatus:\n  timeout: 9\nworker: {root: [/a, /b]}\n"
        #expect(try arguments("status", file: good) == ["status", "--coordinator=all:1", "--timeout=9"])
        let words = try arguments("worker", file: good)
        #expect(words.contains("--root=/a") && words.contains("--root=/b") && !words.contains("--timeout=7"), "\(words)")
        let own = try arguments("coordinator", file: "coordinator:\n  listen: 0.0.0.0:1\n  status: 127.0.0.1:2\n")
        #expect(Set(own) == ["coordinator", "--listen=0.0.0.0:1", "--status=127.0.0.1:2"])
    }

    @Test func severalValuesAreSeparatedByColons() throws {
        let words = try arguments("worker", ["TESSERA_ROOT": "/a:/b", "TESSERA_COORDINATOR": "[::1]:7070"])
        #expect(words.contains("--root=/a") && words.contains("--root=/b") && words.contains("--coordinator=[::1]:7070"))
    }

    @Test func switchesAreTrueOrFalse() throws {
        #expect(try arguments("status", ["TESSERA_JSON": "true", "TESSERA_WATCH": "0"]) == ["status", "--json"])
        let settings = try Settings(of: Root.self, arguments: ["status"], environment: ["TESSERA_JSON": "maybe"])
        #expect(settings.problems(Self.complaint(about:)).map(\.problem) == ["TESSERA_JSON: 'json' is a switch"])
    }

    @Test func everythingWrongWithAFileIsSaidWithItsLine() throws {
        let file = "cordinator: x:1\nworker:\n  thread: 8\n  root:\nname: [a]\nmerge: {x: 1}\n"
        #expect {
            try arguments("status", file: file)
        } throws: { error in
            let problems = (error as? Problems)?.all ?? []
            #expect(problems.map(\.line) == [1, 3, 4, 5, 6], "\(problems)")
            #expect(problems.first?.advice == "did you mean 'coordinator'?")
            return problems.allSatisfy { $0.file?.hasSuffix("config.yml") == true }
        }
    }

    @Test(arguments: ["a: b: c\n", "- x\n", "threads: 1\nthreads: 2\n"])
    func aFileThatIsNoMapIsRefused(text: String) { #expect(throws: Problems.self) { try arguments("status", file: text) } }

    @Test func theFileIsNamedOrUsual() throws {
        let file = try directory.write("timeout: 3\n", to: "other.yml")
        #expect(try arguments("status --config \(file)") == ["status", "--timeout=3"])
        #expect(try arguments("--config=\(file) status") == ["status", "--timeout=3"])
        try FileManager.default.createDirectory(atPath: "\(directory.path)/tessera", withIntermediateDirectories: true)
        _ = try directory.write("timeout: 4\n", to: "tessera/config.yml")
        #expect(try arguments("status") == ["status", "--timeout=4"])
        #expect(throws: TesseraError.self) { try arguments("status --config /no/such/file") }
        #expect(throws: TesseraError.self) { try arguments("status --config") }
    }

    /// Under a link, the file may hold options of all commands, and the first argument is no command.
    @Test func aLinkIsOneOfTheCommands() throws {
        let file = try directory.write("root: [/a]\ntimeout: 3\n", to: "link.yml")
        let settings = try Settings(
            of: Root.self, link: "status", arguments: ["worker"], environment: ["TESSERA_CONFIG": file])
        #expect(settings.arguments() == ["--timeout=3", "worker"])
    }

    /// The same on the command line, in the environment and in the file.
    @Test(arguments: [("h", "the port is missing; write h:PORT"), ("h:99999", "is not a number from 1 to 65535")])
    func anAddressThatIsNoneIsExplained(text: String, words: String) throws {
        #expect(try #require(Self.complaint(about: ["status", "--coordinator", text])).hasPrefix("--coordinator is '\(text)': "))
        #expect(try #require(Self.complaint(about: ["worker", "--coordinator", text])).contains(words))
        let variable = try Settings(of: Root.self, arguments: ["status"], environment: ["TESSERA_COORDINATOR": text])
        let named = variable.problems(Self.complaint(about:)).first?.description
        #expect(named?.hasPrefix("TESSERA_COORDINATOR: '\(text)' does not fit --coordinator") == true, "\(named ?? "")")
        #expect(named?.contains(words) == true, "\(named ?? "")")
        let (problems, _) = try check([:], file: "coordinator: \(text)\n")
        #expect(problems.count == 1 && problems[0].contains("config.yml:1") && problems[0].contains(words), "\(problems)")
    }

    @Test func aValueThatDoesNotFitNamesItsSource() throws {
        let settings = try Settings(
            of: Root.self, arguments: ["status"], environment: ["TESSERA_TIMEOUT": "soon", "TESSERA_COORDINATOR": "h:1"])
        let errors = settings.problems(Self.complaint(about:))
        #expect(
            errors.map(\.description) == [
                "TESSERA_TIMEOUT: 'soon' does not fit --timeout — it must be a number of seconds above 0, and at most a day"
            ])
        #expect(settings.problems { _ in nil } == [])
    }

    // MARK: Looking at settings

    private func check(_ environment: [String: String], file: String? = nil) throws -> (problems: [String], warnings: [String]) {
        var environment = environment
        environment["XDG_CONFIG_HOME"] = directory.path
        if let file { environment["TESSERA_CONFIG"] = try directory.write(file, to: "config.yml") }
        let settings = try Settings(of: Root.self, arguments: ["config"], environment: environment)
        let problems = SettingsCheck(settings).problems(Self.complaint(about:))
        return (problems.map(\.description), settings.strayVariables.map(\.description))
    }

    @Test func impossibleValuesAreFoundWithTheirPlaces() throws {
        let file = "timeout: 5\nworker:\n  threads: 0\n  memory: lots\nstatus:\n  json: maybe\ntls-key: k\n"
        let (problems, _) = try check(["TESSERA_LEASE_SECONDS": "-1", "TESSERA_COORDINATOR": "h:1"], file: file)
        #expect(problems.count == 5, "\(problems)")
        #expect(problems.sorted { !$0.hasPrefix("TESSERA") && $1.hasPrefix("TESSERA") } == problems, "not by line: \(problems)")
        for words in [
            "TESSERA_LEASE_SECONDS: '-1' does not fit --lease-seconds",
            "config.yml:3: '0' does not fit --threads — it must be a number from 1 to 1024",
            "config.yml:4: 'lots' does not fit --memory", "config.yml:6: 'json' is a switch",
            // A key without a certificate.
            "config.yml:7: 'k' does not fit --tls-key",
        ] { #expect(problems.contains { $0.contains(words) }, "\(words): \(problems)") }
    }

    /// Nor do unknown and repeated keys hide values, and the other way round.
    @Test func everythingThatIsWrongIsFound() throws {
        let file = "timeuot: 5\nthreads: 0\nworker: {memory: 1}\nthreads: -1\ntimeout: never\n"
        let (problems, _) = try check([:], file: file)
        let lines = problems.compactMap { $0.split(separator: ":").dropFirst().first.flatMap { Int($0) } }
        #expect(lines == [1, 2, 3, 4, 5], "\(problems)")
    }

    /// The same of one command, which says all before it does anything.
    @Test func aCommandTellsAllThatItCannotTake() throws {
        let file = try directory.write("threads: 0\nmemory: 1\nlog-level: loud\nlog-format: xml\n", to: "all.yml")
        let settings = try Settings(
            of: Root.self, arguments: ["worker", "--coordinator=h:1"], environment: ["TESSERA_CONFIG": file])
        let problems = settings.problems(Self.complaint(about:))
        #expect(problems.map(\.line) == [1, 2, 3, 4], "\(problems)")
    }

    @Test func possibleValuesAreFine() throws {
        let file = "timeout: 5\nroot: [/a, /b]\nworker: {threads: 2}\nstatus: {json: true}\n"
        let (problems, warnings) = try check(["TESSERA_MEMORY": "1GiB", "TESSERA_TLS_PIN": "p", "TESSERA_NAME": "n"], file: file)
        #expect(problems == [] && warnings == [])
    }

    @Test func variablesThatSetNothingArePointedOut() throws {
        let (_, warnings) = try check([
            "TESSERA_CORDINATOR": "h:1", "TESSERA_HOME": "/x", "TESSERA_CONFIG": "", "TESSERA_TLS_DAYS": "9", "OTHER": "",
        ])
        #expect(
            warnings == [
                "the variable TESSERA_CORDINATOR sets no option — did you mean TESSERA_COORDINATOR?",
                "the variable TESSERA_HOME sets no option",
            ], "\(warnings)")
    }

    // MARK: Manual pages

    @Test func everyCommandHasAPage() throws {
        let pages = ManualPage.all(of: try #require(CommandOptions.of(Root.self)))
        #expect(pages.map(\.fileName) == ["tool.1", "tool-worker.1", "tool-status.1", "tool-coordinator.1"])
        let worker = try #require(pages.first { $0.fileName == "tool-worker.1" }).text
        for words in [".Nm tool worker", ".Fl -coordinator Ar host:port", ".It Fl -root Ar dir", ".Sh EXIT STATUS", ".It 69"] {
            #expect(worker.contains(words), "\(words)")
        }
        #expect(!worker.contains("pause"), "hidden options have no place in the manual")
        #expect(pages.allSatisfy { page in page.text.split(separator: "\n").allSatisfy { $0.count <= 80 } })
    }

    /// The manual has what a command has, and nothing of others.
    @Test func thePageOfALinkIsItsOwn() throws {
        struct Tool: ParsableCommand {
            static let configuration = CommandConfiguration(commandName: "tool", subcommands: [MergekitCommand.self])
        }
        let tool = try #require(CommandOptions.of(Tool.self))
        let page = try #require(ManualPage.all(of: tool).first { $0.fileName == "mergekit-yaml.1" }).text
        for words in [".It Fl j , Fl -num-threads Ar n", ".It Fl v , Fl -verbose", ".It Fl q , Fl -quiet"] {
            #expect(page.contains("\(words)\n"), "\(words): \(page)")
        }
        #expect(!page.contains("max-part-size") && !page.contains("TESSERA_MAX_PART_SIZE") && !page.contains(".Fl -config"))
    }

    /// One table for all: the page and the manual say what the code says.
    @Test func exitCodesAreToldInOneWay() throws {
        let page = try String(contentsOfFile: "\(Repository.root)/docs/commands.md", encoding: .utf8)
        let rows = page.matches(of: #/\n\| ([0-9, ]+) \| (.+) \|/#).map { "\($0.output.1): \($0.output.2)" }
        #expect(rows.map { $0.replacingOccurrences(of: "`", with: "") } == ExitStatus.all.map { "\($0.code): \($0.meaning)" })
        let codes = Set(ExitStatus.all.map(\.code))
        #expect(TesseraError.Code.allCases.allSatisfy { codes.contains("\($0.exitCode)") })
    }
}
