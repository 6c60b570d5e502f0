import CLoadingRules
import Core

/// How transformers renames and rearranges the tensors of checkpoints when it loads them: the table that
/// Tests/Architectures/conversions.py makes of one of its versions, and explains.
struct LoadingRules: Sendable {
    /// Rules that hold for names with one of these prefixes.
    struct Scoped: Sendable {
        let prefixes: [String]
        let rules: [LoadingRule]
    }

    private struct ModelClass: Sendable {
        /// What the inner model is called.
        let prefix: String
        let lists: [(scope: Substring?, name: Substring)]
        let parts: [(scope: Substring, key: Substring, type: Substring)]
    }

    /// Made when the first adapter needs it.
    static let transformers = LoadingRules(String(cString: loading_rules()))

    private let lists: [Substring: [LoadingRule]]
    private let classes: [Substring: ModelClass]
    /// Classes whose experts PEFT adapts as matrices `[experts, in, out]`.
    private let transposed: Set<Substring>

    init(_ text: String) {
        var lists: [Substring: [LoadingRule]] = [:], classes: [Substring: ModelClass] = [:]
        var transposed: Set<Substring> = []
        var keys: [Substring] = [], list: [LoadingRule] = []
        func end() { for key in keys { lists[key] = list } }
        for line in text.split(separator: "\n") where line.first != "#" {
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
            let words = fields.map { $0.split(separator: " ") }
            switch (fields[0], fields.count) {
            case ("list", 2):
                end()
                keys = words[1]
                list = []
            case ("transposed", 2): transposed.formUnion(words[1])
            case ("class", 5):
                let own = ModelClass(
                    prefix: fields[2] == "-" ? "" : String(fields[2]),
                    lists: words[3].map { word in
                        let sides = word.split(separator: "=", maxSplits: 1)
                        return sides.count == 2 ? (sides[0].dropFirst().dropLast(), sides[1]) : (nil, word)
                    },
                    parts: words[4].compactMap { word in
                        let sides = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                        let section = sides.last?.split(separator: ":") ?? []
                        return sides.count == 2 && section.count == 2 ? (sides[0], section[0], section[1]) : nil
                    })
                for name in words[1] { classes[name] = own }
            default: if let rule = Self.rule(words, fields) { list.append(rule) }
            }
        }
        end()
        self.lists = lists
        self.classes = classes
        self.transposed = transposed
    }

    /// Whether PEFT adapts the experts of the config's model as matrices `[experts, in, out]`.
    func transposesExperts(_ config: JSONText) -> Bool {
        config.strings(["architectures"]).contains { transposed.contains(Substring($0)) }
    }

    /// - Returns: `nil` for a line that is none of a rule.
    private static func rule(_ words: [[Substring]], _ fields: [Substring]) -> LoadingRule? {
        func texts(_ field: Int) -> [String] { words[field].map(String.init) }
        switch (fields[0], fields.count) {
        case ("rename", 3): return try? LoadingRule(.renaming, sources: texts(1), targets: [String(fields[2])])
        case ("convert", 4): return try? LoadingRule(.conversion(texts(1)), sources: texts(2), targets: texts(3))
        case ("unknown", 2): return try? LoadingRule(.unknown, sources: texts(1), targets: texts(1))
        default: return nil
        }
    }

    /// The rules for the models of a config, in the order in which they are applied; `nil` where none are known.
    func rules(for config: JSONText) -> [Scoped]? {
        let names = config.strings(["architectures"])
        guard let model = names.lazy.compactMap({ classes[Substring($0)] }).first else {
            guard let type = config.string(["model_type"]), let list = lists[Substring(type)] else { return nil }
            return [Scoped(prefixes: [""], rules: list)]
        }
        var chosen = model.lists
        for part in model.parts {
            guard let type = config.string([String(part.key), "model_type"]), type != part.type else { continue }
            // Another model stands in the place of the usual one.
            chosen.removeAll { list in list.scope.map { $0 == part.scope || $0.hasPrefix("\(part.scope).") } ?? false }
            if lists[Substring(type)] != nil { chosen.append((part.scope, Substring(type))) }
        }
        let own = chosen.compactMap { entry in
            lists[entry.name].map { Scoped(prefixes: Self.prefixes(entry.scope, in: model.prefix), rules: $0) }
        }
        return own.isEmpty ? nil : own
    }

    /// A part's names begin with its path, with or without the inner model before it.
    private static func prefixes(_ scope: Substring?, in model: String) -> [String] {
        guard let scope else { return [""] }
        let path = scope.isEmpty ? "" : "\(scope)."
        return model.isEmpty ? [path] : ["\(model).\(path)", path]
    }
}
