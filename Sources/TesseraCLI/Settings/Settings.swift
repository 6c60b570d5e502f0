package import ArgumentParser
package import Core
import FoundationEssentials
import Recipes

/// Options that environment and configuration file give to a command. The command line wins over the environment, the environment
/// over the file, and the file over the defaults.
package struct Settings {
    package struct Setting: Sendable, Encodable {
        /// The command that it is for; `nil` for all that have the option.
        package let command: String?
        package let option: String
        package let values: [String]
        /// The variable, or the file and line.
        package let source: String
    }

    /// The configuration file in use.
    package let file: String?
    /// What comes first wins.
    package let all: [Setting]
    /// Variables that look like those of options and are none. Such as look misspelled come with advice.
    package let strayVariables: [TesseraError]
    let root: CommandOptions
    /// The command under whose name the program was started.
    private let link: String?
    private let given: [String]

    /// - Parameters:
    ///   - type: the program with all of its commands.
    ///   - link: the command under whose name the program was started; `nil` where the first argument is the command.
    ///   - arguments: what the user typed after its name.
    /// - Throws: what is wrong with the file, and values in the environment that do not fit.
    package init(
        of type: any ParsableCommand.Type, link: String? = nil, arguments: [String], environment: [String: String]
    ) throws {
        guard let root = CommandOptions.of(type) else {
            throw TesseraError(.internal, "the description of the commands cannot be read")
        }
        self.root = root
        self.link = link
        let commands = root.subcommands ?? [root]
        var arguments = arguments
        let named = try Self.takeFile(from: &arguments)
        given = arguments
        let path = named ?? environment["TESSERA_CONFIG"].flatMap { $0.isEmpty ? nil : $0 } ?? Self.usualFile(environment)
        strayVariables = Self.strayVariables(environment, commands)
        var settings = try Self.variables(environment, commands)
        if let path {
            let bytes = try LocalFiles().read(path, maxBytes: 1 << 20)
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw TesseraError(.badData, "is not UTF-8 text", file: path)
            }
            let entries = try SettingsFile(text, path: path, commands: commands).entries
            // What is said of one command wins over what is said of all.
            for entry in entries.filter({ $0.command != nil }) + entries.filter({ $0.command == nil }) {
                settings.append(
                    Setting(
                        command: entry.command, option: entry.option, values: entry.values, source: "\(path):\(entry.line)"))
            }
        }
        file = path
        all = settings
    }

    /// Whether there is an environment or a file to look at. Most commands need none, and describing all options takes time.
    package static func mayApply(arguments: [String], environment: [String: String]) -> Bool {
        environment.keys.contains { $0.hasPrefix("TESSERA_") } || arguments.contains { $0.hasPrefix("--config") }
            || usualFile(environment) != nil
    }

    /// The variable of an option: `TESSERA_` and the option in capitals.
    package static func variable(_ option: String) -> String {
        "TESSERA_" + option.uppercased().replacing("-", with: "_")
    }

    // MARK: Sources

    /// Takes `--config FILE` out of the arguments, wherever it stands.
    private static func takeFile(from arguments: inout [String]) throws(TesseraError) -> String? {
        let end = arguments.firstIndex(of: "--") ?? arguments.count
        guard let index = arguments[..<end].firstIndex(where: { $0 == "--config" || $0.hasPrefix("--config=") }) else {
            return nil
        }
        let word = arguments.remove(at: index)
        if word.hasPrefix("--config=") { return String(word.dropFirst("--config=".count)) }
        guard index < arguments.count else { throw TesseraError(.usage, "--config needs a file") }
        return arguments.remove(at: index)
    }

    /// The file of the XDG base directory specification, if it is there: `HOME` may be another user's, as with setpriv.
    private static func usualFile(_ environment: [String: String]) -> String? {
        let base =
            environment["XDG_CONFIG_HOME"].flatMap { FilePath.isAbsolute($0) ? $0 : nil }
            ?? environment["HOME"].map { "\($0)/.config" }
        guard let path = base.map({ "\($0)/tessera/config.yml" }) else { return nil }
        return (try? LocalFiles().status(of: path)) == nil ? nil : path
    }

    private static func variables(_ environment: [String: String], _ commands: [CommandOptions]) throws -> [Setting] {
        var found: [String: Setting] = [:]
        for argument in commands.flatMap(\.options) {
            guard let option = argument.option, found[option] == nil else { continue }
            let name = variable(option)
            guard let value = environment[name], !value.isEmpty else { continue }
            let values = argument.isRepeating ? value.split(separator: ":").map(String.init) : [value]
            found[option] = Setting(command: nil, option: option, values: values, source: name)
        }
        return found.values.sorted { $0.option < $1.option }
    }

    /// Used by scripts and tests, as their documents say.
    private static let otherVariables = ["CONFIG", "TLS_DAYS", "SEEDS", "RECORD", "LAB_INSIDE", "FUZZER"]

    private static func strayVariables(_ environment: [String: String], _ commands: [CommandOptions]) -> [TesseraError] {
        let prefix = variable(""), known = Set(commands.flatMap(\.options).compactMap(\.option).map(variable))
        let names = known.map { String($0.dropFirst(prefix.count)) } + otherVariables
        return environment.keys.sorted().filter { $0.hasPrefix(prefix) }.compactMap { name in
            let own = String(name.dropFirst(prefix.count))
            guard !names.contains(own) else { return nil }
            return TesseraError(
                .usage, "the variable \(name) sets no option",
                advice: Suggestion.closest(to: own, in: names).map { "did you mean \(prefix)\($0)?" })
        }
    }

    // MARK: Use

    /// What the user typed, completed by what environment and file say.
    ///
    /// - Throws: `usage` for a flag that is neither true nor false.
    package func arguments() throws(TesseraError) -> [String] {
        guard let (command, index) = target else { return given }
        var arguments = given
        arguments.insert(contentsOf: try additions(to: command).flatMap(\.words), at: index)
        return arguments
    }

    struct Addition {
        let setting: Setting
        let words: [String]
    }

    /// The command that is meant, and where its options may stand.
    private var target: (command: CommandOptions, index: Int)? {
        guard let name = link ?? given.first, let command = root.subcommands?.first(where: { $0.commandName == name }) else {
            return nil
        }
        return (command, link == nil ? 1 : 0)
    }

    private func additions(to command: CommandOptions) throws(TesseraError) -> [Addition] {
        var additions: [Addition] = []
        for argument in command.options {
            guard let option = argument.option, !isGiven(argument),
                let setting = all.first(where: {
                    $0.option == option && ($0.command ?? command.commandName) == command.commandName
                })
            else { continue }
            additions.append(Addition(setting: setting, words: try Self.words(setting, of: argument)))
        }
        return additions
    }

    private func isGiven(_ argument: CommandOptions.Argument) -> Bool {
        let words = given.prefix { $0 != "--" }
        return (argument.names ?? []).contains { name in
            words.contains { word in
                word == name.text || word.hasPrefix("\(name.text)=") || (name.kind == "long" && word == "--no-\(name.name)")
                    || (name.kind == "short" && word.hasPrefix(name.text))
            }
        }
    }

    static func words(_ setting: Setting, of argument: CommandOptions.Argument) throws(TesseraError) -> [String] {
        guard argument.kind == "flag" else { return setting.values.map { "--\(setting.option)=\($0)" } }
        switch setting.values.joined().lowercased() {
        case "true", "yes", "on", "1": return ["--\(setting.option)"]
        case "false", "no", "off", "0": return []
        default:
            throw TesseraError(.usage, "\(setting.source): '\(setting.option)' is a switch", advice: "write true or false")
        }
    }

    /// Which setting makes the arguments wrong that are right without it.
    ///
    /// - Parameter problem: why arguments cannot be parsed; `nil` where they can.
    package func culprit(_ problem: ([String]) -> String?) -> TesseraError? {
        guard let (command, index) = target, let additions = try? additions(to: command) else { return nil }
        let culprit = Self.culprits(among: additions, to: given, at: index) { problem($0) == nil }.first
        return culprit.map { $0.setting.misfit(of: command, problem(Array(given[..<index]) + $0.words + given[index...])) }
    }

    /// The fewest settings without which the arguments can be parsed.
    ///
    /// - Parameter index: where settings stand in the arguments.
    /// - Returns: none where nothing is wrong, or something else is.
    static func culprits(
        among additions: [Addition], to given: [String], at index: Int, _ parses: ([String]) -> Bool
    ) -> [Addition] {
        func fit(without left: Set<Int>) -> Bool {
            var arguments = given
            let chosen = additions.indices.filter { !left.contains($0) }.flatMap { additions[$0].words }
            arguments.insert(contentsOf: chosen, at: index)
            return parses(arguments)
        }
        guard !fit(without: []) else { return [] }
        // Options may depend on each other, so each is tried together with the others.
        var sets: [Set<Int>] = [[]]
        for _ in 0..<mostCulprits {
            sets = Array(Set(sets.flatMap { set in additions.indices.map { set.union([$0]) } }.filter { !sets.contains($0) }))
                .sorted { $0.sorted().lexicographicallyPrecedes($1.sorted()) }
            if let found = sets.first(where: { fit(without: $0) }) { return found.sorted().map { additions[$0] } }
        }
        return []
    }

    private static let mostCulprits = 3
}

extension Settings.Setting {
    /// - Parameter problem: what ArgumentParser says of the value.
    func misfit(of command: CommandOptions, _ problem: String?) -> TesseraError {
        let shown = values.map { "'\($0)'" }.joined(separator: ", ")
        // What a command's own check says tells more than that the value is invalid.
        let reason =
            problem.flatMap { $0.hasPrefix("--\(option) ") ? ": \($0.hasSuffix(".") ? String($0.dropLast()) : $0)" : nil } ?? ""
        return TesseraError(
            .usage, "\(source): \(shown) does not fit --\(option)\(reason)",
            advice: "'tessera help \(command.commandName)' tells what fits")
    }
}
