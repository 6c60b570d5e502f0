package import Core
import Recipes
import Yams

/// A configuration file: YAML with the names of options. An option at the top holds for all commands that have it, one under a
/// command's name for that command.
///
/// ```yaml
/// coordinator: head:7070
/// worker:
///   root: [/data, /scratch]
///   threads: 32
/// ```
package struct SettingsFile {
    package struct Entry {
        /// `nil` for all commands.
        let command: String?
        package let option: String
        let values: [String]
        let line: Int
    }

    let path: String
    package private(set) var entries: [Entry] = []
    /// Keys that are no option, values of the wrong kind, and keys that occur twice, of which the last counts.
    package private(set) var problems: [TesseraError] = []

    /// - Throws: for a file that is no map.
    package init(_ text: String, path: String, commands: [CommandOptions]) throws(Problems) {
        self.path = path
        var documents: [Node] = []
        do {
            if let wrong = try Aliases.problem(in: text, file: path) { throw wrong }
            documents = try RepeatedKeys.compose(text) { key, line in
                complain("the key '\(key)' occurs twice", line, "keep one of them")
            }
        } catch {
            throw Problems([Self.malformed(error, path)])
        }
        guard documents.count <= 1 else {
            throw Problems([
                TesseraError(
                    .badData, "contains \(documents.count) YAML documents", file: path, advice: "write 'option: value' lines once"
                )
            ])
        }
        let root = documents.first
        guard let root, !root.isNothing else { return }
        guard case .mapping(let mapping) = root else {
            throw Problems([
                TesseraError(.badData, "is not a map of options", file: path, line: 1, advice: "write 'option: value' lines")
            ])
        }
        for (key, value) in mapping where !RepeatedKeys.isIgnored(key) { readTop(key, value, commands) }
    }

    private mutating func readTop(_ key: Node, _ value: Node, _ commands: [CommandOptions]) {
        let name = key.string ?? "", line = key.mark?.line ?? 1
        // Some commands have the name of an option: what follows tells which is meant.
        if case .mapping(let section) = value, let command = commands.first(where: { $0.commandName == name }) {
            for (key, value) in section where !RepeatedKeys.isIgnored(key) {
                read(key, value, of: command.commandName, in: [command], known: command.options.compactMap(\.option))
            }
        } else if case .mapping = value {
            complain("unknown command '\(name)'", line, Self.advice(name, commands.map(\.commandName)))
        } else {
            let known = commands.flatMap { $0.options.compactMap(\.option) }
            read(key, value, of: nil, in: commands, known: known)
        }
    }

    private mutating func read(
        _ key: Node, _ value: Node, of command: String?, in commands: [CommandOptions], known: [String]
    ) {
        let name = key.string ?? "", line = key.mark?.line ?? 1
        guard let option = commands.lazy.compactMap({ $0.option(name) }).first else {
            let place = command.map { " of '\($0)'" } ?? ""
            return complain("unknown option '\(name)'\(place)", line, Self.advice(name, known))
        }
        switch value {
        case .scalar(let scalar) where !value.isNothing:
            entries.append(Entry(command: command, option: name, values: [scalar.string], line: line))
        case .sequence(let sequence) where option.isRepeating:
            let values = sequence.compactMap { $0.scalar?.string }
            guard values.count == sequence.count else { return complain("'\(name)' is a list of values", line, nil) }
            entries.append(Entry(command: command, option: name, values: values, line: line))
        case .sequence: complain("'\(name)' takes one value", line, "write '\(name): value'")
        default: complain("'\(name)' has no value", line, "write '\(name): value', or remove the line")
        }
    }

    private mutating func complain(_ problem: String, _ line: Int, _ advice: String?) {
        problems.append(TesseraError(.usage, problem, file: path, line: line, advice: advice))
    }

    private static func advice(_ name: String, _ known: [String]) -> String {
        Suggestion.closest(to: name, in: known).map { "did you mean '\($0)'?" } ?? "'tessera help COMMAND' lists the options"
    }

    private static func malformed(_ error: any Error, _ path: String) -> TesseraError {
        switch error {
        case YamlError.scanner(_, let what, let mark, _), YamlError.parser(_, let what, let mark, _),
            YamlError.composer(_, let what, let mark, _):
            TesseraError(
                .badData, "is not valid YAML: \(what)", file: path, line: mark.line, advice: "write 'option: value' lines")
        case YamlError.duplicatedKeysInMapping(let keys, let context):
            TesseraError(
                .badData, "the key '\(keys.joined(separator: ", "))' occurs twice", file: path, line: context.mark.line,
                advice: "keep one of them")
        case let error as TesseraError: error
        default: TesseraError(.badData, "is not valid YAML", file: path, advice: "write 'option: value' lines")
        }
    }
}

extension Node {
    fileprivate var isNothing: Bool {
        guard case .scalar(let scalar) = self, scalar.style == .plain || scalar.style == .any else { return false }
        return ["", "~", "null"].contains(scalar.string)
    }
}
