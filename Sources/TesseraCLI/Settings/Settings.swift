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
        /// Of the file; `nil` for a variable.
        let line: Int?

        private enum CodingKeys: CodingKey {
            case command, option, values, source
        }
    }

    /// The configuration file in use.
    package let file: String?
    /// What comes first wins.
    package let all: [Setting]
    /// Variables that look like those of options and are none. Such as look misspelled come with advice.
    package let strayVariables: [TesseraError]
    /// What is wrong with the file apart from values. The entries that make sense count.
    package let fileProblems: [TesseraError]
    let root: CommandOptions
    /// The command under whose name the program was started.
    private let link: String?
    private let given: [String]

    /// - Parameters:
    ///   - type: the program with all of its commands.
    ///   - link: the command under whose name the program was started; `nil` where the first argument is the command.
    ///   - arguments: what the user typed after its name.
    /// - Throws: for a file that cannot be read, or is no map of options.
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
        var settings = try Self.variables(environment, commands), problems: [TesseraError] = []
        if let path {
            let bytes = try LocalFiles().read(path, maxBytes: 1 << 20)
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw TesseraError(.badData, "is not UTF-8 text", file: path)
            }
            let file = try SettingsFile(text, path: path, commands: commands), entries = file.entries
            problems = file.problems
            // What is said of one command wins over what is said of all.
            for entry in entries.filter({ $0.command != nil }) + entries.filter({ $0.command == nil }) {
                settings.append(
                    Setting(
                        command: entry.command, option: entry.option, values: entry.values, source: "\(path):\(entry.line)",
                        line: entry.line))
            }
        }
        file = path
        all = settings
        fileProblems = problems
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
            found[option] = Setting(command: nil, option: option, values: values, source: name, line: nil)
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
    package func arguments() -> [String] {
        guard let (command, index) = target else { return given }
        var arguments = given
        arguments.insert(contentsOf: additions(to: command, besides: given).fitting.flatMap(\.words), at: index)
        return arguments
    }

    /// What is wrong with the file, and the settings that make the arguments wrong which are right without them, in the order of
    /// the file's lines.
    ///
    /// - Parameter complaint: what is wrong with arguments; `nil` where nothing is.
    package func problems(_ complaint: ([String]) -> String?) -> [TesseraError] {
        guard let (command, index) = target else { return inOrder(fileProblems) }
        let (additions, problems) = additions(to: command, besides: given)
        return inOrder(
            fileProblems + problems + misfits(among: additions, to: given, at: index, of: command, complaint))
    }

    func inOrder(_ problems: [TesseraError]) -> [TesseraError] { file.map { Problems(problems).byLine(of: $0) } ?? problems }

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

    /// - Returns: what the settings add to the arguments, and flags that are neither true nor false.
    func additions(
        to command: CommandOptions, besides given: [String]
    ) -> (fitting: [Addition], problems: [TesseraError]) {
        var additions: [Addition] = [], problems: [TesseraError] = []
        for argument in command.options {
            guard let option = argument.option, !Self.isGiven(argument, in: given),
                let setting = all.first(where: {
                    $0.option == option && ($0.command ?? command.commandName) == command.commandName
                })
            else { continue }
            if let words = Self.words(setting, of: argument) {
                additions.append(Addition(setting: setting, words: words))
            } else {
                problems.append(problem("'\(option)' is a switch", with: setting, "write true or false"))
            }
        }
        return (additions, problems)
    }

    private func problem(_ problem: String, with setting: Setting, _ advice: String) -> TesseraError {
        guard let file, let line = setting.line else {
            return TesseraError(.usage, "\(setting.source): \(problem)", advice: advice)
        }
        return TesseraError(.usage, problem, file: file, line: line, advice: advice)
    }

    private static func isGiven(_ argument: CommandOptions.Argument, in given: [String]) -> Bool {
        let words = given.prefix { $0 != "--" }
        return (argument.names ?? []).contains { name in
            words.contains { word in
                word == name.text || word.hasPrefix("\(name.text)=") || (name.kind == "long" && word == "--no-\(name.name)")
                    || (name.kind == "short" && word.hasPrefix(name.text))
            }
        }
    }

    /// - Returns: `nil` for a flag that is neither true nor false.
    private static func words(_ setting: Setting, of argument: CommandOptions.Argument) -> [String]? {
        guard argument.kind == "flag" else { return setting.values.map { "--\(setting.option)=\($0)" } }
        switch setting.values.joined().lowercased() {
        case "true", "yes", "on", "1": return ["--\(setting.option)"]
        case "false", "no", "off", "0": return []
        default: return nil
        }
    }

    /// The settings without which the arguments are right.
    ///
    /// - Parameter index: where settings stand in the arguments.
    /// - Returns: none where nothing is wrong, or something else is.
    func misfits(
        among additions: [Addition], to given: [String], at index: Int, of command: CommandOptions,
        _ complaint: ([String]) -> String?
    ) -> [TesseraError] {
        func refusal(of chosen: [Addition]) -> String? {
            var arguments = given
            arguments.insert(contentsOf: chosen.flatMap(\.words), at: index)
            return complaint(arguments)
        }
        guard refusal(of: []) == nil else { return [] }
        var rest = additions, found: [TesseraError] = []
        // The parser stops at the first, and names it.
        while let text = refusal(of: rest) {
            let named = rest.indices.compactMap { index in
                Self.place(of: rest[index].setting.option, in: text).map { (place: $0, index: index) }
            }
            guard let first = named.min(by: { $0.place < $1.place }) else { break }
            let setting = rest.remove(at: first.index).setting, shown = setting.values.map { "'\($0)'" }.joined(separator: ", ")
            found.append(
                problem(
                    "\(shown) does not fit --\(setting.option)", with: setting,
                    Self.reason(text) ?? "'tessera help \(command.commandName)' tells what fits"))
        }
        return found
    }

    /// Where a text names an option.
    private static func place(of option: String, in text: String) -> String.Index? {
        text.ranges(of: "--\(option)").first { range in
            text[range.upperBound...].first.map { !($0.isLetter || $0.isNumber || $0 == "-") } ?? true
        }?.lowerBound
    }

    /// What would fit: the end of ArgumentParser's `The value 'x' is invalid for '--option <name>': REASON`, or a sentence of the
    /// command's own.
    private static func reason(_ complaint: String) -> String? {
        let sentence = complaint.hasSuffix(".") ? complaint.dropLast() : complaint[...]
        guard sentence.hasPrefix("The value ") else { return sentence.hasPrefix("--") ? String(sentence) : nil }
        return sentence.firstRange(of: ">': ").map { String(sentence[$0.upperBound...]) }
    }
}
