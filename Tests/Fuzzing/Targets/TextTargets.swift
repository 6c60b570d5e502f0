import ArgumentParser
import Core
import Protocol
import Recipes
import TesseraCLI

extension FuzzTarget {
    /// A recipe, and values for its keys as `--set` has them, one on each line.
    static let overrides = FuzzTarget("overrides") { input in
        let parts = sections(input, 2).compactMap { String(validating: $0, as: UTF8.self) }
        guard parts.count == 2 else { return }
        let overrides = try parts[1].split(separator: "\n").prefix(16).map { text throws(TesseraError) in
            try RecipeOverride(String(text))
        }
        let changed = try RecipeOverride.apply(overrides, to: parts[0], file: "recipe.yml")
        let reading = try JobRecipe.read(text: changed.text, file: "recipe.yml")
        for problem in reading.problems { _ = changed.origins?.located(problem, in: "recipe.yml") }
    }

    /// A configuration file of commands.
    static let settings = FuzzTarget("settings") { input in
        guard let text = String(validating: input, as: UTF8.self) else { return }
        let known = Set(commands.flatMap { $0.options.compactMap(\.option) })
        for entry in try SettingsFile(text, path: "config.yml", commands: commands).entries {
            precondition(known.contains(entry.option), "an option that no command has")
        }
    }

    private struct Tool: ParsableCommand {
        static let configuration = CommandConfiguration(
            subcommands: [CoordinatorCommand.self, WorkerCommand.self, RunCommand.self, SubmitCommand.self])
    }

    private static let commands = CommandOptions.of(Tool.self)?.subcommands ?? []

    /// A file of tokens, and a token.
    static let tokens = FuzzTarget("tokens") { input in
        let parts = sections(input, 2).compactMap { String(validating: $0, as: UTF8.self) }
        guard parts.count == 2 else { return }
        let tokens = try AccessTokens(parsing: parts[0], path: "tokens")
        guard let token = AccessToken(parts[1]), let peer = try tokens.identify(token) else { return }
        precondition(!peer.roles.isEmpty, "a holder without a role")
    }
}
