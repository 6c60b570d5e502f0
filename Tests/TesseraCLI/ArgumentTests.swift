import ArgumentParser
import Core
import Engine
import Operators
import TestSupport
import Testing
import Transport

@testable import TesseraCLI

/// What words on the command line mean.
@Suite struct ArgumentTests {
    @Test(arguments: [
        ("1000", 1000), ("2GiB", 2 << 30), ("500MB", 500_000_000), ("5G", 5_000_000_000), ("1.5k", 1500), ("0", 0),
        ("64 MiB", 64 << 20),
    ])
    func byteCountsHaveUnits(text: String, bytes: Int) { #expect(ByteCount(argument: text)?.bytes == bytes) }

    @Test(arguments: ["", "B", "-1", "1XB", "1e30", "9999999999TB", "1.2.3", "\u{0661}MB", "1B", "5b"])
    func otherByteCountsAreRefused(text: String) { #expect(ByteCount(argument: text) == nil) }

    @Test(arguments: [
        (["--tls-cert", "c"], "belong together"), (["--tls-key", "k"], "belong together"),
        (["--tls-ca", "a", "--tls-pin", "p"], "not both"), (["--token", "t"], "whom to trust"),
        (["--tls-cert", "c", "--tls-key", "k"], "whom to trust"),
    ])
    func credentialsThatMakeNoSenseAreRefused(arguments: [String], words: String) {
        #expect {
            try WorkerCommand.parse(["--coordinator", "h:1"] + arguments)
        } throws: { WorkerCommand.message(for: $0).contains(words) }
    }

    @Test(arguments: [
        (["--tls-cert", "c", "--tls-key", "k"], "whom to admit"), (["--tls-ca", "a"], "need --tls-cert"),
        (["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a", "--token", "t"], "not both"),
        (["--lease-seconds", "9", "--heartbeat-seconds", "5"], "more than twice"),
    ])
    func coordinatorsThatMakeNoSenseAreRefused(arguments: [String], words: String) {
        #expect {
            try CoordinatorCommand.parse(arguments)
        } throws: { CoordinatorCommand.message(for: $0).contains(words) }
    }

    @Test func aTokenIsReadFromAFileThatOthersCannotRead() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write("worker 0123456789abcdef\n", to: "token")
        let command = try WorkerCommand.parse(["--coordinator", "h:1", "--tls-pin", "p", "--token", path])
        #expect(throws: TesseraError.self) { try command.credentials.token?.read() }
    }

    @Test func clientsWaitFiveSeconds() throws {
        #expect(try StatusCommand.parse([]).target.timeout == 5)
        #expect(try WaitCommand.parse(["ff"]).target.timeout == 5)
    }

    // MARK: Completion

    @Test func filesDirectoriesAndMethodsAreCompleted() throws {
        struct Tool: ParsableCommand {
            static let configuration = CommandConfiguration(
                commandName: "tool", subcommands: [RunCommand.self, MethodsCommand.self, CompareCommand.self])
        }
        let script = Tool.completionScript(for: .zsh)
        for words in [
            "*.yml *.yaml", ":output:_files -/", ":first:_files", "dare_ties", "--config[", "--tls",
        ] where words != "--tls" { #expect(script.contains(words), "\(words): \(script)") }
    }

    // MARK: Listings

    private static func difference(_ name: String, _ kind: CheckpointComparison.Difference.Kind)
        -> CheckpointComparison.Difference
    {
        CheckpointComparison.Difference(
            tensor: name, kind: kind, description: "1 of 2 elements, by at most 3", elements: 1, count: 2, largest: 3,
            relative: 0.25)
    }

    @Test func modelsThatHaveLittleInCommonAreSummarised() {
        let differences =
            (0..<30).map { Self.difference("both.\($0)", .values) } + (0..<60).map { Self.difference("left.\($0)", .onlyFirst) }
            + [Self.difference("right", .onlySecond)]
        let lines = ComparisonListing(differences, tensors: 100, listsAll: false).lines(OutputWidths(table: nil, text: 80))
        #expect(lines.count < 30 && lines.allSatisfy { $0.columns <= 80 }, "\(lines)")
        #expect(lines.contains("and 10 more; --all lists them"))
        #expect(lines[0].split(separator: " ") == ["TENSOR", "DIFFER", "OF", "AT", "MOST", "OF", "NORM"], "\(lines[0])")
        #expect(lines[1].split(separator: " ") == ["both.0", "1", "2", "3.00", "25.0", "%"], "\(lines[1])")
        #expect(
            lines.contains { $0.hasPrefix("only in the first (60): left.0, left.1, ") && $0.hasSuffix("and 55 more") }, "\(lines)"
        )
        #expect(lines.suffix(2) == ["only in the second (1): right", "91 of 100 tensors differ"])
        let all = ComparisonListing(differences, tensors: 100, listsAll: true).lines(OutputWidths(table: nil, text: 80))
        #expect(all.contains { $0.hasPrefix("both.29 ") } && all.contains { $0.contains("left.59") }, "\(all)")
    }

    @Test func parametersOfMethodsFitTheTerminal() throws {
        for method in MergeMethods.all.map(MethodSummary.init) {
            let narrow = method.lines(OutputWidths(table: 79, text: 79))
            #expect(narrow.allSatisfy { $0.columns <= 79 }, "\(narrow)")
            for parameter in method.parameters {
                let words = try #require(parameter.summary.split(separator: " ").first)
                #expect(narrow.contains { $0.contains(parameter.name) } && narrow.contains { $0.contains(words) })
            }
            let piped = method.lines(OutputWidths(table: nil, text: 80))
            #expect(method.parameters.allSatisfy { parameter in piped.contains { $0.hasSuffix(parameter.summary) } })
        }
    }

    @Test(arguments: [("plot.png", false), ("plot", false), ("plot.svg", true), ("plot.SVG", true)])
    func plotsAreSVG(name: String, fits: Bool) {
        let command = try? StatsCommand.parse(["a", "b", "--plot", name])
        #expect((command != nil) == fits)
    }

    @Test func theOptionsOfAConnectionCanBePasted() throws {
        let given = ["--coordinator", "head:7070", "--timeout", "9.5", "--tls-ca", "my ca.pem", "--token", "/t"]
        let command = try StatusCommand.parse(given)
        #expect(
            command.target.words == [
                "--coordinator", "head:7070", "--timeout", "9.5", "--tls-ca", "'my ca.pem'", "--token", "/t",
            ])
        #expect(try StatusCommand.parse([]).target.words == [])
    }

    // MARK: mergekit

    @Test(arguments: [
        "--cuda", "--lazy-unpickle --low-cpu-memory", "--cuda --copy-tokenizer --out-shard-size 1B", "--allow-crimes -v",
        "--trust-remote-code --random-seed 42 -j 8", "--lora-merge-cache /tmp/cache --lora-merge-dtype bfloat16 -q",
        "--device cuda:0 --read-to-gpu --multi-gpu --async-write --write-threads 4", "--gpu-rich --no-copy-tokenizer",
        "--transformers-cache ~/.cache/huggingface --no-lazy-unpickle --write-model-card --safe-serialization", "-v -v --no-cuda",
    ])
    func mergekitsOptionsAreTaken(words: String) throws {
        let command = try #require(
            try MergekitCommand.parse(["config.yml", "out"] + words.split(separator: " ").map(String.init)) as MergekitCommand?)
        try command.refused.check()
        let named = words.split(separator: " ").filter { $0.hasPrefix("--") }.filter { command.idle.note?.contains($0) == true }
        #expect(named.isEmpty == (command.idle.note == nil))
    }

    @Test(arguments: [("1B", 1_000_000_000), ("500M", 500_000_000), ("10k", 10_000), ("2.5B", 2_500_000_000), ("4096", 4096)])
    func partSizesOfMergekitAreThousands(text: String, bytes: Int) { #expect(ShardSize(argument: text)?.bytes == bytes) }

    @Test(arguments: ["", "B", "0", "-1B", "1GiB", "1e30"])
    func otherPartSizesOfMergekitAreRefused(text: String) { #expect(ShardSize(argument: text) == nil) }

    @Test(arguments: ["--no-safe-serialization", "--unsafe-truncate-embeddings"])
    func optionsOfMergekitThatChangeTheOutputAreRefused(option: String) throws {
        let command = try MergekitCommand.parse(["config.yml", "out", option])
        #expect(throws: TesseraError.self) { try command.refused.check() }
    }
}
