import Foundation
import TestSupport
import Testing

/// What people expect of a command line from others that they know.
@Suite struct HabitTests {
    private let directory: TemporaryDirectory
    private static let recipe = """
        # A comment.
        merge_method: linear
        models:
        - model: ./a
        - {model: ./b, parameters: {weight: 2}}
        parameters: {weight: 1}

        """

    init() throws {
        directory = try .withTwoModels(recipe: Self.recipe)
    }

    private func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Tessera.Outcome {
        try await Tessera.run(arguments, in: directory.path, environment: environment)
    }

    // MARK: Recipes

    @Test(arguments: [
        (["dtype=float17"], "--set dtype=float17: 'dtype' is 'float17'"),
        (["merge_method=linaer"], "--set merge_method=linaer: "),
        (["models.1.model=./c"], "--set models.1.model=./c: ./c: no such file"), (["models.1.parameters.weight=1"], "r.yml:4: "),
    ])
    func problemsNameTheUsersLinesOrSettings(settings: [String], words: String) async throws {
        // Without its model, a line of the file is wrong too.
        try FileManager.default.removeItem(atPath: "\(directory.path)/a")
        for command in [["plan", "r.yml"], ["run", "r.yml", "out"]] {
            let outcome = try await run(command + settings.flatMap { ["--set", $0] })
            #expect(outcome.exitCode == 65 || outcome.exitCode == 66, "\(outcome)")
            #expect(outcome.errors.contains("error: \(words)"), "\(outcome.errors)")
            #expect(outcome.errors.contains("r.yml:4: ./a: no such file"), "\(outcome.errors)")
        }
    }

    /// What the command line sets in vain is a mistake; what a file has may be a habit.
    @Test func settingsWithoutEffectAreErrors() async throws {
        for (setting, words) in [
            ("parameters.wieght=3", "the method 'linear' has no parameter 'wieght' — did you mean 'weight'?"),
            ("paramters.weight=3", "unknown or unused key 'paramters' in a recipe — did you mean 'parameters'?"),
        ] {
            for command in [["plan", "r.yml"], ["run", "r.yml", "out"]] {
                let outcome = try await run(command + ["--set", setting])
                #expect(outcome.exitCode == 65 && outcome.errors.contains("error: --set \(setting): \(words)"), "\(outcome)")
            }
        }
        #expect(directory.names == ["a", "b", "r.yml"])
        try directory.write(Self.recipe + "paramters: {weight: 3}\n", to: "r.yml")
        let done = try await run(["run", "r.yml", "out", "--set", "parameters.weight=3"])
        #expect(done.exitCode == 0 && done.errors.contains("warning: r.yml:7: unknown or unused key"), "\(done.errors)")
        let strict = try await run(["run", "r.yml", "strict", "--strict"])
        #expect(strict.exitCode == 65 && strict.errors.contains("error: r.yml:7: "), "\(strict.errors)")
    }

    /// What is read of a recipe does not hide what is missing, and the lines come in their order.
    @Test func everythingIsSaidAtOnceAndInOrder() async throws {
        let recipe = """
            merge_method: linear
            models:
            - model: ./a
              parameters: {wieght: 1}
            - model: ./b
              parameter: {weight: 1}
            - model: ./none
              parameters:
                weight: 0,6
            lambda: 0.5
            dtype: fp16

            """
        try directory.write(recipe, to: "r.yml")
        let outcome = try await run(["plan", "r.yml"])
        let lines = outcome.errors.split(separator: "\n").map(String.init)
        #expect(outcome.exitCode == 65)
        for (line, words) in [
            (4, "it has no parameter 'wieght' — did you mean 'weight'?"), (5, "needs a value for 'weight' for the model './b'"),
            (6, "unknown or unused key 'parameter' in a model — did you mean 'parameters'?"), (7, "./none: no such file"),
            (9, "'weight' is '0,6'; it must be a number — write decimals with a point: 'weight: 0.6'"),
            (10, "unknown or unused key 'lambda' in a recipe — move it under 'parameters:'"),
            (11, "'dtype' is 'fp16'; it must be a floating-point type — did you mean 'float16'?"),
        ] {
            #expect(
                lines.contains { $0.hasPrefix("error: r.yml:\(line): ") && $0.contains(words) }, "\(line) \(words): \(lines)")
        }
        let numbers = lines.compactMap { $0.split(separator: ":").dropFirst(2).first.flatMap { Int($0) } }
        #expect(numbers.count == lines.count && numbers == numbers.sorted(), "\(lines)")
        #expect(!outcome.errors.contains("it is ignored"))
    }

    @Test func aPlanIsWrappedInAPipe() async throws {
        let recipe = Self.recipe + String(repeating: "x", count: 40) + ": a key that means nothing\n"
        try directory.write(recipe, to: "r.yml")
        let plan = try await run(["plan", "r.yml", "--shard-size", "1MB"])
        #expect(plan.exitCode == 0 && plan.output.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(plan.output)")
        #expect(plan.output.contains("\nreads   ") && plan.errors.contains("warning: "), "\(plan)")
        let help = try await run(["help", "run"])
        #expect(help.output.contains("--shard-size"))
    }

    // MARK: Outputs that are there

    @Test func whatIsInTheWayDecidesTheAdvice() async throws {
        #expect(try await run(["run", "r.yml", "own"]).exitCode == 0)
        let own = try await run(["run", "r.yml", "own"])
        #expect(own.exitCode == 73 && own.errors.contains("add --overwrite to replace it"), "\(own.errors)")
        try FileManager.default.createDirectory(atPath: "\(directory.path)/foreign", withIntermediateDirectories: true)
        try directory.write("mine", to: "foreign/notes.txt")
        let foreign = try await run(["run", "r.yml", "foreign"])
        #expect(foreign.exitCode == 73 && foreign.errors.contains("move it away: not even --overwrite"), "\(foreign.errors)")
        #expect(try await run(["run", "r.yml", "foreign", "--overwrite"]).exitCode == 73)
        #expect(FileManager.default.fileExists(atPath: "\(directory.path)/foreign/notes.txt"))
    }

    /// As with mergekit, whose users make the directory first.
    @Test func anEmptyDirectoryIsReplaced() async throws {
        let path = "\(directory.path)/out"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        let refused = try await run(["run", "r.yml", "out"])
        #expect(refused.exitCode == 73 && refused.errors.contains("add --overwrite"), "\(refused.errors)")
        let done = try await run(["mergekit-yaml", "r.yml", "out", "--no-write-model-card", "--cuda"])
        #expect(done.exitCode == 0 && done.errors.contains("--cuda") && !done.errors.contains("model-card"), "\(done.errors)")
        let names = try FileManager.default.contentsOfDirectory(atPath: path)
        #expect(names.contains("model.safetensors") && !names.contains("README.md"), "\(names)")
        #expect(try await run(["verify", "out"]).exitCode == 0)
        #expect(directory.names == ["a", "b", "out", "r.yml"])
        // A directory with an empty one in it is not empty.
        try FileManager.default.createDirectory(atPath: "\(directory.path)/deep/er", withIntermediateDirectories: true)
        #expect(try await run(["mergekit-yaml", "r.yml", "deep"]).exitCode == 73)
    }

    // MARK: Looking at models

    @Test func anAdapterIsInspected() async throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/lora", withIntermediateDirectories: true)
        try directory.write(
            #"""
            {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true, "target_modules": ["q_proj", "v_proj"],
             "base_model_name_or_path": "org/base"}
            """#, to: "lora/adapter_config.json")
        try TestTensor.writeCheckpoint(
            "\(directory.path)/lora",
            [
                ("base_model.model.l.q_proj.lora_A.weight", TestTensor([1, 2], shape: [1, 2])),
                ("base_model.model.l.q_proj.lora_B.weight", TestTensor([1, 2], shape: [2, 1])),
            ])
        try FileManager.default.moveItem(
            atPath: "\(directory.path)/lora/model.safetensors", toPath: "\(directory.path)/lora/adapter_model.safetensors")
        let shown = try await run(["inspect", "lora"])
        #expect(shown.exitCode == 0, "\(shown)")
        for words in [
            "kind     LORA, rank-stabilised", "base     org/base", "rank     1\n", "alpha    8", "targets  q_proj, v_proj",
            "base_model.model.l.q_proj.lora_A.weight", "2 tensors, 4 elements",
        ] { #expect(shown.output.contains(words), "\(words): \(shown.output)") }
        let json = try await run(["inspect", "lora", "--json"])
        let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
        #expect(object?["rank"] as? Int == 4 && object?["ranks"] as? [Int] == [1] && object?["alpha"] as? Double == 8)
    }

    @Test func aRepositoryOfTheHubIsInspected() async throws {
        let snapshot = "hub/models--org--model/snapshots/0123456789abcdef"
        for folder in [snapshot, "hub/models--org--model/refs"] {
            try FileManager.default.createDirectory(atPath: "\(directory.path)/\(folder)", withIntermediateDirectories: true)
        }
        try directory.write("0123456789abcdef", to: "hub/models--org--model/refs/main")
        try FileManager.default.copyItem(
            atPath: "\(directory.path)/a/model.safetensors", toPath: "\(directory.path)/\(snapshot)/model.safetensors")
        let cache = ["HF_HUB_CACHE": "\(directory.path)/hub"]
        let found = try await run(["inspect", "org/model"], environment: cache)
        #expect(found.exitCode == 0 && found.output.contains("1 tensors, 2 elements"), "\(found)")
        let missing = try await run(["inspect", "org/other"], environment: cache)
        #expect(missing.exitCode == 66 && missing.errors.contains("hf download org/other"), "\(missing.errors)")
    }

    /// Better said before the work than after it.
    @Test func aPlotThatCannotBeWrittenIsSaidFirst() async throws {
        for place in ["none/plot.svg", "a/model.safetensors/plot.svg"] {
            let outcome = try await run(["stats", "a", "b", "--plot", place])
            #expect(outcome.exitCode == 73 && outcome.output.isEmpty, "\(outcome)")
            #expect(outcome.errors.contains("the plot cannot be written"), "\(outcome.errors)")
        }
        let picture = try await run(["stats", "a", "b", "--plot", "plot.png"])
        #expect(picture.exitCode == 64 && picture.errors.contains("writes SVG"), "\(picture.errors)")
        // What cannot be measured leaves no empty file.
        #expect(try await run(["stats", "a", "none", "--plot", "plot.svg"]).exitCode == 66)
        #expect(!directory.names.contains("plot.svg"))
    }

    // MARK: Settings

    @Test func aMisspelledVariableIsPointedOut() async throws {
        let environment = ["TESSERA_STIRCT": "true", "TESSERA_THREADS": "many"]
        let plan = try await run(["plan", "r.yml"], environment: environment)
        #expect(plan.exitCode == 0, "\(plan)")
        #expect(plan.errors.contains("warning: the variable TESSERA_STIRCT sets no option — did you mean TESSERA_STRICT?"))
        let config = try await run(["config"], environment: environment)
        #expect(config.exitCode == 64 && config.errors.contains("TESSERA_THREADS: 'many' does not fit --threads"), "\(config)")
        #expect(config.output.contains("TESSERA_THREADS") && config.errors.contains("TESSERA_STRICT?"), "\(config)")
    }
}
