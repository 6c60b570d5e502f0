package import Core

/// Tries settings with every command that takes them, as if the user had run it.
package struct SettingsCheck {
    private let settings: Settings
    private let commands: [CommandOptions]

    package init(_ settings: Settings) {
        self.settings = settings
        commands = settings.root.subcommands ?? []
    }

    /// What is wrong with the file, and values that do not fit their options, each once and in the order of lines.
    ///
    /// - Parameter complaint: what is wrong with arguments, from the command's name on; `nil` where nothing is.
    package func problems(_ complaint: ([String]) -> String?) -> [TesseraError] {
        var problems = settings.fileProblems
        // Several commands may have the option.
        var seen: Set<String> = []
        for command in commands {
            let (additions, switches) = settings.additions(to: command, besides: [])
            let words = [command.commandName] + standIns(command)
            let misfits = settings.misfits(among: additions, to: words, at: 1, of: command, complaint)
            problems += (switches + misfits).filter { seen.insert("\($0.line ?? 0) \($0.problem)").inserted }
        }
        return settings.inOrder(problems)
    }

    /// Values for what the command cannot do without. They stand last, and so are those that count.
    private func standIns(_ command: CommandOptions) -> [String] {
        command.own.filter { !$0.isOptional }.flatMap { argument -> [String] in
            guard let option = argument.option else { return ["x"] }
            let standard = commands.compactMap { $0.option(option)?.defaultValue }.first
            return ["--\(option)", standard ?? "1"]
        }
    }
}
