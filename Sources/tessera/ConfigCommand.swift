import ArgumentParser
import Core
import FoundationEssentials
import TesseraCLI

/// `tessera config`: which options are set beside the command line, and where.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Show the options that environment and configuration file set.",
        discussion: """
            The command line wins over the environment, the environment over the file, and the file over the defaults. The \
            variable of an option is TESSERA_ and its name in capitals, with _ for -; several values are separated by colons. \
            The file is the one that --config or TESSERA_CONFIG names, or $XDG_CONFIG_HOME/tessera/config.yml (as a rule \
            ~/.config/tessera/config.yml) if it exists. It is YAML: 'option: value' for all commands that have the option, and \
            the same under a command's name for that command. Values that do not fit their options are errors, and variables \
            that set no option are pointed out.
            """)

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var general: GeneralArguments

    private struct Report: Encodable {
        let file: String?
        let settings: [Settings.Setting]
        let problems: [TesseraError]
        let warnings: [TesseraError]
    }

    func run() throws {
        let settings = try Settings(
            of: TesseraCommand.self, arguments: Array(CommandLine.arguments.dropFirst()),
            environment: ProcessInfo.processInfo.environment)
        let problems = SettingsCheck(settings).problems { TesseraCommand.problem(in: $0) }
        if json {
            try printJSON(
                Report(file: settings.file, settings: settings.all, problems: problems, warnings: settings.strayVariables))
        } else {
            show(settings)
            Terminal.warn(settings.strayVariables)
        }
        guard problems.isEmpty else { throw Problems(problems) }
    }

    private func show(_ settings: Settings) {
        print("file: \(settings.file ?? "none")")
        guard !settings.all.isEmpty else { return print("no options are set") }
        var table = TextTable([("OPTION", .left), ("VALUE", .left), ("COMMAND", .left), ("FROM", .left)])
        for setting in settings.all {
            table.add([setting.option, setting.values.joined(separator: ", "), setting.command ?? "all", setting.source])
        }
        for line in table.lines(fitting: Terminal.outputWidth) { print(line) }
    }
}
