import Core

/// A page of the manual in the language of mdoc(7), made of what a command says of itself.
package struct ManualPage {
    package let fileName: String
    package let text: String

    /// The pages of the program and of its commands.
    package static func all(of root: CommandOptions) -> [ManualPage] {
        let commands = (root.subcommands ?? []).filter { ($0.shouldDisplay ?? true) && $0.commandName != "help" }
        return [ManualPage(root, of: nil, commands: commands)]
            + commands.map { ManualPage($0, of: $0.isLink ? nil : root.commandName, commands: []) }
    }

    /// - Parameter program: whose command it is; `nil` for a program.
    private init(_ command: CommandOptions, of program: String?, commands: [CommandOptions]) {
        let name = [program, command.commandName].compactMap(\.self).joined(separator: "-")
        fileName = "\(name).1"
        // The date would make pages differ from build to build; mandoc wants one.
        var lines = [".Dd $Mdocdate$", ".Dt \(name.uppercased()) 1", ".Os", ".Sh NAME", ".Nm \(name)"]
        lines.append(".Nd \((command.abstract.map(Self.withoutStop) ?? name))")
        lines += [".Sh SYNOPSIS", ".Nm \(([program].compactMap(\.self) + [command.commandName]).joined(separator: " "))"]
        lines += Self.synopsis(of: command, commands)
        lines.append(".Sh DESCRIPTION")
        let words = [command.abstract, command.discussion].compactMap(\.self).flatMap { $0.split(separator: "\n") }
        for (index, paragraph) in words.enumerated() { lines += (index > 0 ? [".Pp"] : []) + Self.prose(String(paragraph)) }
        lines += Self.list(of: command.own.filter(\.shouldDisplay))
        if !commands.isEmpty {
            lines += [".Pp", "The commands are:", ".Bl -tag -width Ds"]
            for command in commands { lines += [".It Cm \(command.commandName)"] + Self.prose(command.abstract ?? "") }
            lines.append(".El")
        }
        lines += Self.surroundings
        text = lines.joined(separator: "\n") + "\n"
    }

    private static func synopsis(of command: CommandOptions, _ commands: [CommandOptions]) -> [String] {
        if !commands.isEmpty { return [".Ar command", ".Op Ar argument ..."] }
        let shown = command.own.filter(\.shouldDisplay)
        let options = shown.filter { $0.kind != "positional" }.map { argument in
            let value = argument.kind == "flag" ? "" : " Ar \(argument.valueName ?? "value")"
            let words = "Fl \(argument.flag)\(value)"
            return argument.isOptional ? ".Op \(words)" : ".\(words)"
        }
        let positional = shown.filter { $0.kind == "positional" }.map { argument in
            let words = "Ar \(argument.valueName ?? "value")\(argument.isRepeating ? " ..." : "")"
            return argument.isOptional ? ".Op \(words)" : ".\(words)"
        }
        return options + positional
    }

    private static func list(of arguments: [CommandOptions.Argument]) -> [String] {
        guard !arguments.isEmpty else { return [] }
        var lines = [".Bl -tag -width Ds"]
        for argument in arguments {
            let value = argument.valueName ?? "value"
            lines.append(
                argument.kind == "positional"
                    ? ".It Ar \(value)" : ".It Fl \(argument.flag)" + (argument.kind == "flag" ? "" : " Ar \(value)"))
            lines += prose(argument.abstract ?? "")
            // Defaults that are those of the machine the pages are made on would mislead.
            if let standard = argument.defaultValue, !standard.isEmpty, !["name", "threads"].contains(argument.option) {
                lines += prose("The default is \(standard).")
            }
        }
        return lines + [".El"]
    }

    /// What is the same for all commands.
    private static let surroundings =
        [
            ".Sh ENVIRONMENT",
            "The variable of an option is",
            ".Ev TESSERA_",
            "and its name in capitals, with underscores for hyphens: that of",
            ".Fl -max-part-size",
            "is",
            ".Ev TESSERA_MAX_PART_SIZE .",
            "Several values are separated by colons.",
            ".Ev TESSERA_CONFIG",
            "names the configuration file.",
            ".Sh FILES",
            ".Bl -tag -width Ds",
            ".It Pa ~/.config/tessera/config.yml",
            "The configuration file, in YAML, if",
            ".Fl -config",
            "names no other.",
            "The command line wins over the environment, and the environment over the file.",
            ".El",
            ".Sh EXIT STATUS",
            ".Bl -tag -width Ds",
            ".It 0",
            "Success.",
        ] + TesseraError.Code.allCases.sorted { $0.exitCode < $1.exitCode }.flatMap { [".It \($0.exitCode)", $0.meaning] } + [
            ".El"
        ]

    /// A paragraph: each sentence begins a line, as mdoc(7) wants it.
    private static func prose(_ text: String) -> [String] {
        var lines: [String] = [], sentence: [Substring] = []
        for word in text.split(separator: " ") {
            sentence.append(word)
            guard let last = word.last(where: { $0 != ")" && $0 != "'" }), ".?!:;".contains(last) else { continue }
            lines += sentence.joined(separator: " ").wrapped(toColumns: width)
            sentence = []
        }
        if !sentence.isEmpty { lines += sentence.joined(separator: " ").wrapped(toColumns: width) }
        return lines.map(escaped)
    }

    private static let width = 76

    /// Text on a line of its own. The hyphens of options are to stay what can be copied to a shell.
    private static func escaped(_ text: String) -> String {
        let text = text.replacing("\\", with: "\\e").replacing("--", with: "\\-\\-")
        return text.hasPrefix(".") || text.hasPrefix("'") ? "\\&\(text)" : text
    }

    private static func withoutStop(_ text: String) -> String { text.hasSuffix(".") ? String(text.dropLast()) : text }
}

extension CommandOptions {
    /// Whether it is another program's command, under a link of that name.
    fileprivate var isLink: Bool { commandName == MergekitCommand.commandName }
}

extension CommandOptions.Argument {
    /// As mdoc wants it: without the first of its dashes.
    fileprivate var flag: String {
        guard let name = option else { return names?.first?.name ?? "" }
        return "-\(name)"
    }
}

extension TesseraError.Code {
    fileprivate var meaning: String {
        switch self {
        case .difference: "Something differs."
        case .usage: "The command, or the recipe's fit to it, is wrong."
        case .badData: "A recipe, a model or another file is malformed."
        case .inputMissing: "An input is missing."
        case .unreachable: "No coordinator answers."
        case .internal: "An internal error."
        case .cannotCreate: "The output cannot be created."
        case .io: "Reading or writing failed."
        case .temporary: "A later try may succeed."
        case .protocolMismatch: "The peer does not speak this protocol."
        case .notAllowed: "Not allowed."
        case .cancelled: "Ended by a signal."
        }
    }
}
