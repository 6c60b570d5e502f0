import Checkpoints
import Core
import Operators

/// Factors of parameters (`target_parameters`), which are those of mixtures of experts.
///
/// PEFT trains `gate_up_proj` and `down_proj` of all experts, each as one tensor `[experts, out, in]`, or `[experts, in, out]` in
/// some models. A checkpoint holds them so, or each expert for itself: `experts.7.gate_proj.weight`.
extension AdapterMatcher {
    /// A parameter as the model's checkpoint holds it.
    private struct Parameter {
        /// Its path in the model that PEFT wrapped.
        let path: String
        let storage: Storage

        enum Storage {
            case one(String, shape: [Int])
            /// By part, then expert; the parts are stacked in this order. Every tensor has the shape.
            case separate([[String]], shape: [Int])
        }
    }

    mutating func foldExperts(_ groups: [(factors: Factors, group: Group)]) throws(TesseraError) {
        guard !groups.isEmpty else { return }
        let experts = SeparateExperts(model.tensorNames)
        let modules = Dictionary(grouping: groups, by: \.group.place.module)
        for (module, own) in modules.sorted(by: { $0.key.precedesInBytes($1.key) }) {
            let parameters = parameters(of: module, experts)
            guard !parameters.isEmpty else {
                throw missing("\(module).weight", for: own[0].factors.a)
            }
            // Wrappers lie one around the other in the order of the parameters. Shapes decide where they can.
            let fitting = own.map { item in
                (item: item, parameters: parameters.indices.filter { Self.layout(item.factors, parameters[$0].storage) != nil })
            }
            var taken: Set<Int> = []
            for (item, candidates) in fitting.sorted(by: {
                ($0.parameters.count, -$0.item.group.place.depth) < ($1.parameters.count, -$1.item.group.place.depth)
            }) {
                guard let choice = candidates.first(where: { !taken.contains($0) }) else {
                    throw problem(
                        "factors of shapes \(item.factors.a.shape) and \(item.factors.b.shape) do not fit "
                            + "\(parameters.map(\.path).joined(separator: " or ")) of the model", item.factors.a,
                        advice: Self.otherModel)
                }
                taken.insert(choice)
                if let extra = item.group.entries[.magnitudes] ?? item.group.entries[.bias] {
                    throw problem("cannot be folded into a mixture of experts", extra)
                }
                if let initial = config.initialPart { throw uninitialised(initial, item.factors.a) }
                fold(item.factors, into: parameters[choice])
            }
        }
    }

    private mutating func fold(_ factors: Factors, into parameter: Parameter) {
        guard let layout = Self.layout(factors, parameter.storage) else { return }
        let rank = factors.rank / layout.experts, scale = config.scale(of: parameter.path, rank: rank)
        func change(_ experts: ExpertFactors?) -> AdapterChange {
            .lowRank(
                a: factors.a, b: factors.b, rank: rank, scale: scale, isTransposed: layout.isTransposed, experts: experts)
        }
        switch parameter.storage {
        case .one(let name, let shape):
            add(change(shape.count == 3 ? ExpertFactors(count: layout.experts) : nil), to: name)
        case .separate(let parts, let shape):
            for (index, names) in parts.enumerated() {
                for (expert, name) in names.enumerated() {
                    add(change(ExpertFactors(count: layout.experts, expert: expert, firstRow: index * shape[0])), to: name)
                }
            }
        }
    }

    /// - Returns: `nil` where the factors do not fit.
    private static func layout(_ factors: Factors, _ storage: Parameter.Storage) -> (experts: Int, isTransposed: Bool)? {
        guard factors.inputs.count == 1 else { return nil }
        let experts: Int, shape: [Int]
        switch storage {
        case .one(_, let own):
            experts = own.count == 3 ? own[0] : 1
            shape = Array(own.suffix(2))
        case .separate(let parts, let own):
            experts = parts[0].count
            shape = [own[0] * parts.count, own[1]]
        }
        guard experts > 0, factors.rank % experts == 0 else { return nil }
        if shape == [factors.outputs, factors.inputs[0]] { return (experts, false) }
        if case .one = storage, shape == [factors.inputs[0], factors.outputs] { return (experts, true) }
        return nil
    }

    /// The module's parameters that the config names, in the order in which models declare them.
    private func parameters(of module: String, _ experts: SeparateExperts) -> [Parameter] {
        let named = config.parameters.filter { "\(module).\(Self.leaf(of: $0))".hasPathSuffix($0) }.map { Self.leaf(of: $0) }
        let leaves = named.isEmpty ? ["down_proj", "gate_up_proj"] : named
        // Those of experts are declared in the order in which they are used.
        return (leaves.filter { $0.hasPrefix("gate") } + leaves.filter { !$0.hasPrefix("gate") }).compactMap { leaf in
            storage(of: module, leaf, experts).map { Parameter(path: "\(module).\(leaf)", storage: $0) }
        }
    }

    private static func leaf(of path: String) -> String { String(path[path.lastStep...]) }

    private func storage(of module: String, _ leaf: String, _ experts: SeparateExperts) -> Parameter.Storage? {
        if let name = target(module, leaf), let shape = model.tensor(named: name)?.entry.shape, (2...3).contains(shape.count) {
            return .one(name, shape: shape)
        }
        for names in SeparateExperts.parts[leaf] ?? [] {
            let parts = names.compactMap { experts.names(of: module, part: $0) }
            let shapes = Set(parts.joined().compactMap { model.tensor(named: $0)?.entry.shape })
            guard parts.count == names.count, Set(parts.map(\.count)).count == 1, shapes.count == 1, let shape = shapes.first,
                shape.count == 2
            else { continue }
            return .separate(parts, shape: shape)
        }
        return nil
    }
}

extension String {
    /// Whether the path ends with these steps.
    fileprivate func hasPathSuffix(_ suffix: String) -> Bool { self == suffix || hasSuffix(".\(suffix)") }

    /// Where the last step of a path begins.
    fileprivate var lastStep: Index { lastIndex(of: ".").map { index(after: $0) } ?? startIndex }
}
