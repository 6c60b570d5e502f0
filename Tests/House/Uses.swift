/// Where names are used, as far as words and the labels of calls tell. Types are not resolved: a use of any `name` counts for all
/// declarations of that name, but a call counts only for functions with its labels.
struct Uses {
    struct Function {
        struct Parameter {
            /// Empty without a label.
            var label: String
            var mayBeLeftOut: Bool
        }

        let name: String
        let parameters: [Parameter]
        /// Variadic parameters take any number of arguments.
        let isVariadic: Bool
    }

    private struct Call: Hashable {
        let labels: [String]
        let hasTrailingClosure: Bool
    }

    /// How often each word occurs beyond its declarations.
    private var words: [String: Int] = [:]
    private var calls: [String: Set<Call>] = [:]
    /// Functions that are passed on by their name alone.
    private var references: Set<String> = []

    init(_ files: [SwiftCode]) {
        for code in files {
            let tokens = code.tokens.map(\.text)
            for declaration in code.declarations { words[declaration.name, default: 0] -= 1 }
            for index in tokens.indices where SwiftCode.isWord(tokens[index]) {
                words[tokens[index], default: 0] += 1
                if index > 0, tokens[index - 1] == "func" { continue }
                if index + 1 < tokens.count, tokens[index + 1] == "(" {
                    calls[tokens[index], default: []].insert(Self.call(tokens[(index + 1)...]))
                } else {
                    references.insert(tokens[index])
                }
            }
        }
    }

    func contains(_ name: String) -> Bool { words[name, default: 0] > 0 }

    func contains(_ function: Function) -> Bool {
        references.contains(function.name)
            || calls[function.name, default: []].contains { function.accepts($0.labels, $0.hasTrailingClosure) }
    }

    /// The functions of a file by their lines.
    static func functions(of code: SwiftCode) -> [Int: Function] {
        let tokens = code.tokens
        var functions: [Int: Function] = [:]
        for index in tokens.indices.dropLast(2) where tokens[index].text == "func" && SwiftCode.isWord(tokens[index + 1].text) {
            guard let start = tokens[index...].firstIndex(where: { $0.text == "(" }) else { continue }
            let arguments = arguments(tokens[start...].prefix(limit).map(\.text), isDeclaration: true).arguments
            functions[tokens[index].line] = Function(
                name: tokens[index + 1].text,
                parameters: arguments.map { .init(label: $0.first == "_" ? "" : $0.first ?? "", mayBeLeftOut: $0.contains("=")) },
                isVariadic: arguments.contains { $0.suffix(3) == [".", ".", "."] })
        }
        return functions
    }

    /// Longer argument lists are cut off; none is near.
    private static let limit = 4000

    private static func call(_ tokens: ArraySlice<String>) -> Call {
        let (arguments, rest) = arguments(Array(tokens.prefix(limit)), isDeclaration: false)
        if arguments.count == 1, arguments[0].last == ":" {  // name(_:label:)
            return Call(labels: arguments[0].filter { $0 != ":" }.map { $0 == "_" ? "" : $0 }, hasTrailingClosure: false)
        }
        let labels = arguments.map { $0.count > 1 && $0[1] == ":" ? $0[0] : "" }
        return Call(labels: labels, hasTrailingClosure: rest == "{")
    }

    /// Splits what stands between the parentheses that `tokens` begin with at its commas. Also the token behind them.
    private static func arguments(_ tokens: [String], isDeclaration: Bool) -> (arguments: [[String]], next: String?) {
        var arguments: [[String]] = [], depth = 0, argument: [String] = []
        for (index, token) in tokens.enumerated() {
            if ["(", "[", "{"].contains(token) { depth += 1 }
            if [")", "]", "}"].contains(token) { depth -= 1 }
            if isDeclaration && token == "<" { depth += 1 }
            if isDeclaration && token == ">" && tokens[index - 1] != "-" { depth -= 1 }
            if depth == 0 {
                if !argument.isEmpty { arguments.append(argument) }
                return (arguments, index + 1 < tokens.count ? tokens[index + 1] : nil)
            }
            if token == "," && depth == 1 {
                arguments.append(argument)
                argument = []
            } else if index > 0 {
                argument.append(token)
            }
        }
        return (arguments, nil)
    }
}

extension Uses.Function {
    /// Whether the labels of a call are those of the parameters, less some with defaults and less trailing closures.
    fileprivate func accepts(_ labels: [String], _ hasTrailingClosure: Bool) -> Bool {
        if isVariadic { return true }
        var rest = labels[...], missing: [Parameter] = []
        for parameter in parameters {
            if rest.first == parameter.label { rest.removeFirst() } else { missing.append(parameter) }
        }
        guard rest.isEmpty else { return false }
        let required = missing.filter { !$0.mayBeLeftOut }
        return required.isEmpty || hasTrailingClosure
    }
}
