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
        lines += Self.surroundings(of: command)
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
                    ? ".It Ar \(value)" : ".It Fl \(argument.flags)" + (argument.kind == "flag" ? "" : " Ar \(value)"))
            lines += prose(argument.abstract ?? "")
            // Defaults that are those of the machine the pages are made on would mislead.
            if let standard = argument.defaultValue, !standard.isEmpty, !["name", "threads"].contains(argument.option) {
                lines += prose("The default is \(standard).")
            }
        }
        return lines + [".El"]
    }

    /// What is the same for all commands, but for options that one does not have.
    private static func surroundings(of command: CommandOptions) -> [String] {
        let example = command.subcommands?.isEmpty == false ? "max-part-size" : command.options.last?.option
        var lines = [".Sh ENVIRONMENT", "The variable of an option is", ".Ev TESSERA_"]
        if let example {
            lines += [
                "and its name in capitals, with underscores for hyphens: that of", ".Fl -\(example)", "is",
                ".Ev \(Settings.variable(example)) .",
            ]
        } else {
            lines.append("and its name in capitals, with underscores for hyphens.")
        }
        lines += [
            "Several values are separated by colons.", ".Ev TESSERA_CONFIG", "names the configuration file.", ".Sh FILES",
            ".Bl -tag -width Ds", ".It Pa ~/.config/tessera/config.yml", "The configuration file, in YAML, if",
            command.takesFile ? ".Fl -config" : ".Ev TESSERA_CONFIG", "names no other.",
            "The command line wins over the environment, and the environment over the file.", ".El", ".Sh EXIT STATUS",
            ".Bl -tag -width Ds",
        ]
        for (code, meaning) in ExitStatus.all {
            lines += [".It \(code)"] + prose("\(meaning.prefix(1).uppercased())\(meaning.dropFirst()).")
        }
        return lines + [".El"]
    }

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

    /// All names, the short ones first, as mdoc wants them.
    fileprivate var flags: String {
        let all = names ?? [], short = all.filter { $0.kind != "long" }.map(\.name)
        return (short + all.filter { $0.kind == "long" }.map { "-\($0.name)" }).joined(separator: " , Fl ")
    }
}

/// What the exit codes of all commands mean: the table of docs/commands.md and of the manual pages.
enum ExitStatus {
    static let all: [(code: String, meaning: String)] =
        [("0", "success")]
        + TesseraError.Code.allCases.sorted { $0.exitCode < $1.exitCode }.map { ("\($0.exitCode)", meaning(of: $0)) }
        + [
            ("\(ReaderGone.exitCode)", "whoever read stdout has gone, as head does; nothing is said about it"),
            ("129, 130, 143", "the command was ended by SIGHUP, SIGINT or SIGTERM"),
        ]

    private static func meaning(of code: TesseraError.Code) -> String {
        switch code {
        case .difference: "something differs, with verify, compare and inspect --base"
        case .usage: "wrong use of the command"
        case .badData: "a recipe, a model or another file is malformed"
        case .inputMissing: "an input is missing"
        case .unreachable: "no coordinator answers"
        case .internal: "an internal error"
        case .cannotCreate: "the output exists or cannot be created"
        case .io: "reading or writing failed"
        case .temporary: "a later try may succeed"
        case .protocolMismatch: "the peer does not speak the protocol, or another version of it"
        case .notAllowed: "not allowed"
        case .cancelled: "the job was cancelled"
        }
    }
}
