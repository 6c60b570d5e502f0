package import Core

/// Tries settings with every command that takes them, as if the user had run it.
package struct SettingsCheck {
    private let settings: Settings
    private let commands: [CommandOptions]

    package init(_ settings: Settings) {
        self.settings = settings
        commands = settings.root.subcommands ?? []
    }

    /// Values that do not fit their options, each once.
    ///
    /// - Parameter problem: why arguments, from the command's name on, cannot be parsed; `nil` where they can.
    package func problems(_ problem: ([String]) -> String?) -> [TesseraError] {
        var problems: [TesseraError] = [], blamed: Set<String> = []
        for command in commands {
            var additions: [Settings.Addition] = []
            for argument in command.options {
                guard let setting = setting(argument, of: command) else { continue }
                do {
                    additions.append(
                        Settings.Addition(setting: setting, words: try Settings.words(setting, of: argument)))
                } catch {
                    if blamed.insert(setting.source).inserted { problems.append(error) }
                }
            }
            let words = [command.commandName] + standIns(command)
            for culprit in Settings.culprits(among: additions, to: words, at: 1, { problem($0) == nil })
            where blamed.insert(culprit.setting.source).inserted {
                let reason = problem([command.commandName] + culprit.words + words.dropFirst())
                problems.append(culprit.setting.misfit(of: command, reason))
            }
        }
        return problems
    }

    private func setting(_ argument: CommandOptions.Argument, of command: CommandOptions) -> Settings.Setting? {
        settings.all.first { $0.option == argument.option && ($0.command ?? command.commandName) == command.commandName }
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
