package import ArgumentParser
import FoundationEssentials

/// A command with its options, as ArgumentParser describes it for tools.
package struct CommandOptions: Sendable, Decodable {
    package struct Argument: Sendable, Decodable {
        package struct Name: Sendable, Decodable {
            package let kind: String
            package let name: String

            /// With its dashes.
            package var text: String { (kind == "long" ? "--" : "-") + name }
        }

        /// `positional`, `option` or `flag`.
        package let kind: String
        package let shouldDisplay: Bool
        package let isOptional: Bool
        package let isRepeating: Bool
        package let names: [Name]?
        package let valueName: String?
        package let defaultValue: String?
        package let abstract: String?

        /// The long name, without dashes; `nil` for what has none.
        package var option: String? { kind == "positional" ? nil : names?.first { $0.kind == "long" }?.name }
    }

    package let commandName: String
    package let abstract: String?
    package let discussion: String?
    package let shouldDisplay: Bool?
    package let subcommands: [CommandOptions]?
    private let arguments: [Argument]?

    private struct Tool: Decodable { let command: CommandOptions }

    /// - Returns: the command with its subcommands; `nil` if ArgumentParser describes commands otherwise than it used to.
    package static func of(_ command: any ParsableCommand.Type) -> CommandOptions? {
        try? JSONDecoder().decode(Tool.self, from: Data(command._dumpHelp().utf8)).command
    }

    /// What ArgumentParser adds to every command, and what says where settings come from.
    private static let general: Set = ["help", "version", "config"]

    /// Positional arguments and options.
    package var own: [Argument] { (arguments ?? []).filter { $0.option.map { !Self.general.contains($0) } ?? true } }

    /// What may be set by environment and file.
    package var options: [Argument] { own.filter { $0.option != nil } }

    /// Whether it has `--config`.
    var takesFile: Bool { (arguments ?? []).contains { $0.option == "config" } }

    package func option(_ name: String) -> Argument? { options.first { $0.option == name } }
}
