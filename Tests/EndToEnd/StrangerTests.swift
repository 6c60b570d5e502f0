import Foundation
import TestSupport
import Testing

/// What someone who has not read the pages types, and what they are told.
@Suite struct StrangerTests {
    private let directory: TemporaryDirectory
    private static let recipe = "merge_method: linear\nmodels:\n- model: ./a\n- model: ./b\nparameters: {weight: 1}\n"

    init() throws {
        directory = try .withTwoModels(recipe: Self.recipe)
    }

    private func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Tessera.Outcome {
        try await Tessera.run(arguments, in: directory.path, environment: environment)
    }

    // MARK: Words

    @Test(arguments: [
        (["help", "rnu"], "unknown command 'rnu' — did you mean 'run'?"),
        (["methods", "tys"], "there is no merge method 'tys' — did you mean 'ties' or 'tsv'?"),
        (["methods", "TIES"], "there is no merge method 'TIES' — did you mean 'ties'?"),
        (["methods", "dare"], "there is no merge method 'dare' — did you mean 'dare_linear' or 'dare_ties'?"),
        (["run", "r.yml", "-"], "-: an output is a directory, which stdout cannot take"),
        (["verify", "r.yml"], "r.yml: is not a directory"),
    ])
    func misspelledWordsAreGuessed(command: [String], words: String) async throws {
        let outcome = try await run(command)
        #expect(outcome.exitCode == 64 && outcome.errors.contains(words) && outcome.output.isEmpty, "\(outcome)")
    }

    @Test(arguments: [
        ("merge_method: linear", "merge_method: Linear", "unknown merge method 'Linear' — did you mean 'linear'?"),
        ("merge_method: linear", "merge_method: dare", "did you mean 'dare_linear' or 'dare_ties'?"),
        ("./b", "~/none/such", "~/none/such: no such file or directory — '~' stands for no home here: write the whole path"),
        ("weight: 1", "weight: 0,6", "the parameter '6' has no value — write decimals with a point"),
        (
            "parameters:", "dtype: BF16\nparameters:",
            "'dtype' is 'BF16'; it must be a floating-point type — did you mean 'bfloat16'?"
        ),
    ])
    func recipesAreCorrected(written: String, instead: String, words: String) async throws {
        try directory.write(Self.recipe.replacingOccurrences(of: written, with: instead), to: "r.yml")
        let outcome = try await run(["plan", "r.yml"])
        #expect([65, 66].contains(outcome.exitCode) && outcome.errors.contains(words), "\(outcome.errors)")
    }

    // MARK: Ranges

    /// The option that was given is named, by its own name, and what would fit.
    @Test func valuesOutOfRangeAreExplained() async throws {
        let range = "it must be a number from 1 to 1024"
        for (command, environment, words) in [
            (["mergekit-yaml", "r.yml", "out", "-j", "0"], [:], "The value '0' is invalid for '-j <n>': \(range)"),
            (["run", "r.yml", "out", "--threads", "1025"], [:], "The value '1025' is invalid for '--threads <n>': \(range)"),
            (
                ["mergekit-yaml", "r.yml", "out"], ["TESSERA_NUM_THREADS": "0"],
                "TESSERA_NUM_THREADS: '0' does not fit --num-threads — \(range)"
            ),
            (
                ["run", "r.yml", "out"], ["TESSERA_MEMORY": "1MiB"],
                "TESSERA_MEMORY: '1MiB' does not fit --memory — it must be a size of at least 64MiB"
            ),
        ] as [([String], [String: String], String)] {
            let outcome = try await run(command, environment: environment)
            #expect(outcome.exitCode == 64 && outcome.errors.contains(words), "\(outcome.errors)")
            #expect(environment.isEmpty == false || outcome.errors.contains("tessera \(command[0])"), "\(outcome.errors)")
        }
        let help = try await run(["help", "run"])
        #expect(help.output.contains("from 1 to 1024") && help.output.contains("at least 64MiB"), "\(help.output)")
    }

    // MARK: Plans

    @Test func plansKeepResultsAndWarningsApart() async throws {
        try directory.write(Self.recipe + "wieght: 1\n", to: "r.yml")
        let plan = try await run(["plan", "r.yml"])
        #expect(plan.exitCode == 0 && plan.errors.contains("warning: r.yml:6: unknown or unused key 'wieght'"), "\(plan)")
        #expect(!plan.output.contains("warning") && plan.output.hasPrefix("linear of 2 models, plan "), "\(plan.output)")
        struct Document: Decodable {
            struct Problem: Decodable {
                let code, problem, file: String
                let line: Int
                let advice: String
            }
            let problems: [Problem]
        }
        let refused = try await run(["plan", "r.yml", "--json", "--strict"])
        let problem = try #require(try JSONDecoder().decode(Document.self, from: Data(refused.output.utf8)).problems.first)
        #expect(refused.exitCode == 65 && problem.code == "badData" && problem.file == "r.yml" && problem.line == 6)
        #expect(refused.errors.contains("error: r.yml:6: \(problem.problem) — \(problem.advice)"), "\(refused.errors)")
    }

    @Test func thePlanOfAStoreTellsWhatItWillTake() async throws {
        try directory.write("quantize: {budget: 4 bits}\nbase_model: ./a\nmodels:\n- model: ./b\n", to: "store.yml")
        let plan = try await run(["plan", "store.yml"])
        #expect(plan.exitCode == 0 && plan.output.contains("of 1 model on ./a, plan "), "\(plan)")
        // Four bits of each of two elements.
        #expect(plan.output.contains("writes  about 1 B; these shards measure 1 tensors"), "\(plan.output)")
    }

    // MARK: Places

    @Test func outputsLieInNoInput() async throws {
        let inside = try await run(["run", "r.yml", "b/inside"])
        #expect(inside.exitCode == 77 && inside.errors.contains("the output would lie in the input './b'"), "\(inside)")
        let names = try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/b")
        #expect(!names.contains { $0.hasPrefix("inside") }, "\(names)")
        // A single file has neighbours.
        try directory.write(Self.recipe.replacingOccurrences(of: "./b", with: "./b/model.safetensors"), to: "r.yml")
        let beside = try await run(["run", "r.yml", "b/inside"])
        #expect(beside.exitCode == 0, "\(beside.errors)")
        let missing = try await run(["verify", "nothere"])
        #expect(missing.exitCode == 66 && missing.errors.contains("nothere: no such directory"), "\(missing.errors)")
        let nowhere = try await run(["run", "r.yml", "/proc/out"])
        #expect(
            nowhere.exitCode == 73 && nowhere.errors.contains("/proc: cannot write into the directory: "), "\(nowhere.errors)")
    }

    /// Another user, who may not read and write everything as root may.
    private static let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"]
    private static let canBeNobody: Bool = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
        process.arguments = nobody + [Tessera.path, "--version"]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()

    private func runAsNobody(_ arguments: [String]) async throws -> Tessera.Outcome {
        let running = try RunningTessera(
            Self.nobody + [Tessera.path] + arguments, in: directory.path, environment: ["HOME": directory.path],
            executable: "/usr/bin/setpriv")
        let code = await running.exitCode()
        return Tessera.Outcome(exitCode: code, output: running.output, errors: running.errors)
    }

    private func setMode(_ mode: Int, of name: String) throws {
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: "\(directory.path)/\(name)")
    }

    @Test(.enabled(if: canBeNobody)) func whatMayNotBeReadOrWrittenIsNamed() async throws {
        #expect(try await run(["run", "r.yml", "done"]).exitCode == 0)
        try setMode(0o755, of: "")
        let unwritable = try await runAsNobody(["run", "r.yml", "out"])
        #expect(
            unwritable.exitCode == 73 && unwritable.errors.contains("\(directory.path): cannot write into the directory: "),
            "\(unwritable.errors)")
        #expect(!unwritable.errors.contains("partial"), "\(unwritable.errors)")
        try setMode(0o000, of: "b")
        let closed = try await runAsNobody(["plan", "r.yml"])
        #expect(
            closed.exitCode == 77 && closed.errors.contains("r.yml:4: \(directory.path)/b: cannot enter the directory: "),
            "\(closed.errors)")
        try setMode(0o755, of: "b")
        // Nobody knows whether it differs.
        try setMode(0o000, of: "done/model.safetensors")
        let unread = try await runAsNobody(["verify", "done"])
        #expect(unread.exitCode == 77 && unread.errors.contains("done: 1 file cannot be read; all others match"), "\(unread)")
        try setMode(0o644, of: "done/model.safetensors")
        try directory.write("edited", to: "done/README.md")
        try setMode(0o000, of: "done/model.safetensors")
        let both = try await runAsNobody(["verify", "done"])
        #expect(both.exitCode == 1, "a difference is certain: \(both)")
    }
}
