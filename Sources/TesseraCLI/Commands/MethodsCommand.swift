package import ArgumentParser
import Core
import Operators
import Recipes

package struct MethodsCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "methods", abstract: "List the merge methods and their parameters.",
        discussion: "docs/methods.md says what each computes, and when to choose it.")

    @Argument(help: "Show the parameters of this method.", completion: .list(MergeMethods.all.map { $0.name }))
    var name: String?

    @Flag(help: "Print methods and parameters as JSON.")
    var json = false

    @OptionGroup var general: GeneralArguments

    package init() {}

    package func run() throws {
        let methods = MergeMethods.all.filter { name == nil || $0.name == name }.map(MethodSummary.init)
        guard let first = methods.first else {
            let names = MergeMethods.all.map { $0.name }
            throw TesseraError(
                .usage, "there is no merge method '\(name ?? "")'",
                advice: Suggestion.guess(for: name ?? "", in: names) ?? "'tessera methods' lists the methods")
        }
        if json {
            try printJSON(methods)
        } else if name != nil {
            for line in first.lines(.stdout) { print(line) }
        } else {
            let indent = (methods.map(\.name.count).max() ?? 0) + 2
            let width = Terminal.outputWidth.map { max(20, $0 - indent) } ?? .max
            for (name, summary) in [("METHOD", "WHAT IT DOES")] + methods.map({ ($0.name, $0.summary) }) {
                let words = summary.wrapped(toColumns: width)
                let gap = String(repeating: " ", count: indent - name.count)
                print(name + gap + words.joined(separator: "\n" + String(repeating: " ", count: indent)))
            }
        }
    }
}

/// A method as shown to the user.
struct MethodSummary: Encodable {
    struct Setting: Encodable {
        let name: String
        /// "tensor", "model" or "input", as in docs/methods.md.
        let scope: String
        /// What a value is, such as "number" or the words that are possible.
        let kind: String
        /// As recipes write it; `nil` for none.
        let standard: String?
        let isRequired: Bool
        let summary: String

        enum CodingKeys: String, CodingKey {
            case name, scope, kind, summary
            case standard = "default"
            case isRequired = "required"
        }

        init(_ parameter: Parameter) {
            name = parameter.name
            scope =
                switch parameter.scope {
                case .shared: "tensor"
                case .perModel: "model"
                case .perInput: "input"
                }
            kind =
                switch parameter.kind {
                case .number: "number"
                case .integer: "integer"
                case .flag: "true or false"
                case .choice(let words): words.joined(separator: ", ")
                case .tensorNames: "parts of tensor names"
                case .tensors: "path of a checkpoint"
                case .coefficients: "path of a JSON file"
                }
            standard = parameter.kind == .tensorNames ? nil : parameter.defaultValue.map(Self.text)
            isRequired = parameter.isRequired
            summary = parameter.summary
        }

        private static func text(_ value: ParameterValue) -> String {
            switch value {
            case .number(let number): Int(exactly: number).map { "\($0)" } ?? "\(number)"
            case .numbers(let numbers): "\(numbers)"
            case .flag(let flag): "\(flag)"
            case .text(let text): text
            }
        }
    }

    let name: String
    let summary: String
    /// "required", "optional", or "input" where a base counts as any other model.
    let base: String
    let leastModels: Int
    /// `nil` for any number.
    let mostModels: Int?
    let parameters: [Setting]
    /// Whether results depend on `--seed`.
    let random: Bool
    /// The parameter whose values a sweep computes in one merge, if any.
    let scale: String?

    init(_ method: any MergeMethod.Type) {
        name = method.name
        summary = method.summary
        base =
            switch method.inputs.base {
            case .required: "required"
            case .optional: "optional"
            case .plainInput: "input"
            }
        leastModels = method.inputs.models.lowerBound
        mostModels = method.inputs.models.upperBound == .max ? nil : method.inputs.models.upperBound
        parameters = method.parameters.map(Setting.init)
        random = method.isRandom
        scale = method.scale
    }

    func lines(_ widths: OutputWidths) -> [String] {
        let most = mostModels.map { $0 == leastModels ? "" : " to \($0)" } ?? " or more"
        let count = leastModels == 0 && mostModels == nil ? "any number" : "\(leastModels)\(most)"
        let models = base == "input" ? "models: \(count), the base included" : "base: \(base); models besides the base: \(count)"
        let head = ["\(name): \(summary)", models, scale.map { "a sweep over '\($0)' merges once" }]
            .compactMap(\.self).flatMap { $0.wrapped(toColumns: widths.text, indent: 2) }
        guard !parameters.isEmpty else { return head }
        let titles = ["PARAMETER", "SCOPE", "DEFAULT", "VALUES", "MEANING"]
        var table = TextTable(titles.map { ($0, .left) })
        for parameter in parameters { table.add(Self.cells(parameter)) }
        guard let width = widths.table, table.lines.contains(where: { $0.columns > width }) else {
            return head + [""] + table.lines
        }
        // Meanings are sentences: below the rest they have space.
        var short = TextTable(titles.dropLast().map { ($0, .left) })
        for parameter in parameters { short.add(Self.cells(parameter).dropLast()) }
        let rows = short.lines(fitting: width)
        let meanings = parameters.map { widths.labelled("", $0.summary, column: 4) }
        return head + ["", rows[0]] + zip(rows.dropFirst(), meanings).flatMap { [$0] + $1 }
    }

    private static func cells(_ parameter: Setting) -> [String] {
        let standard = parameter.standard ?? (parameter.isRequired ? "required" : "none")
        return [parameter.name, parameter.scope, standard, parameter.kind, parameter.summary]
    }
}
