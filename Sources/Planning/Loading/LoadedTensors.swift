import Core

/// What the tensors of a checkpoint are called in the model that transformers makes of it, and how they are made into its own.
struct LoadedTensors {
    /// A tensor of the loaded model, and those of the checkpoint that it is made of.
    enum Tensor {
        case whole(String)
        /// One of several parts of the same size, along the first axis.
        case part(of: String, index: Int, count: Int)
        /// One on top of the other.
        case stacked([String])
        /// By part, then expert: all experts, and of each the parts, one on top of the other.
        case experts([[String]])
        /// The last two axes exchanged.
        case exchanged(String)
        /// Made in a way that is not known here.
        case made(of: [String], by: String)
    }

    /// By their names in the loaded model.
    private(set) var tensors: [ExactText: Tensor] = [:]

    var names: [String] { tensors.keys.map(\.string) }

    func tensor(named name: String) -> Tensor? { tensors[ExactText(name)] }

    /// - Parameter names: of the checkpoint's tensors, in byte order.
    /// - Throws: what `Effort.spend()` throws.
    init(_ names: [String], _ rules: [LoadingRules.Scoped]) throws(TesseraError) {
        var conversions: [ExactText: Conversion] = [:], order: [ExactText] = []
        var known: [String: Place?] = [:]
        for name in names where name.utf8.count <= Self.lengthLimit {
            try Effort.spend()
            let numbered = NumberedName(name)
            let place = known[numbered.text] ?? Self.place(of: numbered.text, rules)
            known[numbered.text] = place
            guard let place else { continue }
            let loaded = numbered.filled(place.name)
            guard let conversion = place.conversion else {
                let same = tensors.updateValue(.whole(name), forKey: ExactText(loaded))
                if case .whole(let other)? = same { tensors[ExactText(loaded)] = .made(of: [other, name], by: "renaming") }
                continue
            }
            let key = ExactText(loaded)
            if conversions[key] == nil { order.append(key) }
            conversions[key, default: conversion.empty].add(name, from: conversion.source)
        }
        for key in order {
            guard let conversion = conversions[key] else { continue }
            for (name, tensor) in conversion.results(key.string) { tensors[ExactText(name)] = tensor }
        }
    }

    /// Longer names are not looked at: matching takes a stack in proportion, and time with a power of the length.
    private static let lengthLimit = 256

    /// Where a tensor of a checkpoint goes.
    private struct Place {
        let name: String
        let conversion: (empty: Conversion, source: Int)?
    }

    /// All renamings in turn, then the first conversion that fits (transformers, `core_model_loading.rename_source_key`).
    ///
    /// - Returns: `nil` where that is not known.
    private static func place(of name: String, _ rules: [LoadingRules.Scoped]) -> Place? {
        var name = name
        for scoped in rules {
            for rule in scoped.rules {
                if case .conversion = rule.kind { continue }
                guard let found = rule.renamed(name, behind: scoped.prefixes) else { continue }
                guard rule.kind == .renaming else { return nil }
                name = found.name
            }
        }
        for scoped in rules {
            for rule in scoped.rules {
                guard case .conversion(let operations) = rule.kind,
                    let found = rule.renamed(name, behind: scoped.prefixes)
                else { continue }
                return Place(
                    name: found.name, conversion: (Conversion(rule, operations: operations), found.source))
            }
        }
        return Place(name: name, conversion: nil)
    }

    /// Tensors of a checkpoint that a rule makes into others together.
    private struct Conversion {
        let rule: LoadingRule
        let operations: [String]
        /// By source of the rule.
        private var names: [[String]]

        init(_ rule: LoadingRule, operations: [String]) {
            self.rule = rule
            self.operations = operations
            names = Array(repeating: [], count: rule.sourceCount)
        }

        mutating func add(_ name: String, from source: Int) { names[source].append(name) }

        /// - Parameter first: the name of the first tensor that is made.
        func results(_ first: String) -> [(name: String, tensor: Tensor)] {
            let made = rule.targets.map { target in first.replacing(rule.targets[0], with: target, maxReplacements: 1) }
            let all = names.flatMap(\.self), only = all.count == 1 ? all[0] : nil
            switch (operations, only) {
            case (["Chunk()"], let only?):
                return made.enumerated().map { ($1, .part(of: only, index: $0, count: made.count)) }
            case (["Concatenate()"], _) where names.allSatisfy { $0.count == 1 }: return [(first, .stacked(all))]
            case (["MergeModulelist()"], _) where names.count == 1,
                (["MergeModulelist()", "Concatenate(dim=1)"], _):
                return [(first, .experts(names.map { $0.sorted { $0.precedesNaturally($1) } }))]
            case (["Transpose(dim0=1,dim1=2)"], let only?): return [(first, .exchanged(only))]
            // Only where the shapes differ, which tell by themselves.
            case (["Transpose(check_dims=True,dim0=1,dim1=2)"], let only?): return [(first, .whole(only))]
            default: return made.map { ($0, .made(of: all, by: operations.joined(separator: " "))) }
            }
        }
    }
}

/// A name with others in place of its longer numbers. The rules copy these as they are, so that the names of all layers and
/// experts but the first ten are renamed alike.
private struct NumberedName {
    let text: String
    private let numbers: [Substring]
    /// What stands for the first of them; the next stands for the second.
    private static let first = 10

    init(_ name: String) {
        var steps = name.split(separator: ".", omittingEmptySubsequences: false), numbers: [Substring] = []
        for index in steps.indices where Self.isLong(steps[index]) {
            numbers.append(steps[index])
            steps[index] = "\(Self.first + numbers.count - 1)"
        }
        self.numbers = numbers
        text = numbers.isEmpty ? name : steps.joined(separator: ".")
    }

    private static func isLong(_ step: Substring) -> Bool {
        step.utf8.count > 1 && step.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    /// The new name of `text` with the numbers in it.
    func filled(_ name: String) -> String {
        guard !numbers.isEmpty else { return name }
        let steps = name.split(separator: ".", omittingEmptySubsequences: false).map { step in
            guard Self.isLong(step), let stand = Int(step), numbers.indices.contains(stand - Self.first) else { return step }
            return numbers[stand - Self.first]
        }
        return steps.joined(separator: ".")
    }
}
