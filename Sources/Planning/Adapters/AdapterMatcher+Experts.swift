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
            /// The shape is that in memory.
            case one(String, shape: [Int], isExchanged: Bool)
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
            let transposesSquares = transposesSquares(fitting.map { ($0.item.factors, $0.parameters.map { parameters[$0] }) })
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
                try fold(item.factors, into: parameters[choice], transposesSquares: transposesSquares)
            }
        }
    }

    private mutating func fold(
        _ factors: Factors, into parameter: Parameter, transposesSquares: Bool
    ) throws(TesseraError) {
        guard let layout = Self.layout(factors, parameter.storage, transposesSquares) else { return }
        let rank = factors.rank / layout.experts, scale = try config.scale(of: parameter.path, rank: rank)
        func change(_ experts: ExpertFactors?) -> AdapterChange {
            .lowRank(
                a: factors.a, b: factors.b, rank: rank, scale: scale, isTransposed: layout.isTransposed, experts: experts)
        }
        switch parameter.storage {
        case .one(let name, let shape, _):
            add(change(shape.count == 3 ? ExpertFactors(count: layout.experts) : nil), to: name)
        case .separate(let parts, let shape):
            for (index, names) in parts.enumerated() {
                for (expert, name) in names.enumerated() {
                    add(change(ExpertFactors(count: layout.experts, expert: expert, firstRow: index * shape[0])), to: name)
                }
            }
        }
    }

    /// - Returns: whether the factors' product is transposed before it is added to what is stored; `nil` where they do not fit.
    private static func layout(
        _ factors: Factors, _ storage: Parameter.Storage, _ transposesSquares: Bool = false
    ) -> (experts: Int, isTransposed: Bool)? {
        guard factors.inputs.count == 1 else { return nil }
        let experts: Int, shape: [Int]
        var isExchanged = false
        switch storage {
        case .one(_, let own, let exchanged):
            experts = own.count == 3 ? own[0] : 1
            shape = Array(own.suffix(2))
            isExchanged = exchanged
        case .separate(let parts, let own):
            experts = parts[0].count
            shape = [own[0] * parts.count, own[1]]
        }
        guard experts > 0, factors.rank % experts == 0 else { return nil }
        let isPlain = shape == [factors.outputs, factors.inputs[0]]
        let isTransposed = shape == [factors.inputs[0], factors.outputs]
        guard case .one = storage else { return isPlain ? (experts, false) : nil }
        guard isPlain || isTransposed else { return nil }
        return (experts, (isTransposed && (!isPlain || transposesSquares)) != isExchanged)
    }

    /// Whether PEFT takes square matrices of experts for `[in, out]`: as the module's other parameters, if the adapter has them,
    /// else as it takes those of the model's class.
    private func transposesSquares(_ fitting: [(factors: Factors, parameters: [Parameter])]) -> Bool {
        for (factors, parameters) in fitting where factors.inputs.first != factors.outputs {
            for parameter in parameters {
                guard case .one(_, let shape, _) = parameter.storage else { continue }
                return Array(shape.suffix(2)) == factors.inputs + [factors.outputs]
            }
        }
        return model.config.map { LoadingRules.transformers.transposesExperts($0) } ?? false
    }

    /// The one tensor of all experts, and its shape in memory.
    private func loadedShape(of module: String, _ leaf: String) -> (name: String, shape: [Int], isExchanged: Bool)? {
        if case .exchanged(let name)? = loadedTensor(module, leaf) {
            let shape = modelShape(name)
            return shape.count == 3 ? (name, [shape[0], shape[2], shape[1]], true) : nil
        }
        return target(module, leaf).map { ($0, modelShape($0), false) }
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
        if let one = loadedShape(of: module, leaf), (2...3).contains(one.shape.count) {
            return .one(one.name, shape: one.shape, isExchanged: one.isExchanged)
        }
        if case .experts(let parts)? = loadedTensor(module, leaf) { return separate(parts) }
        return SeparateExperts.parts[leaf]?.lazy.compactMap { names in
            let parts = names.compactMap { experts.names(of: module, part: $0) }
            return parts.count == names.count ? separate(parts) : nil
        }.first
    }

    private func separate(_ parts: [[String]]) -> Parameter.Storage? {
        let shapes = Set(parts.joined().map { modelShape($0) })
        guard Set(parts.map(\.count)).count == 1, shapes.count == 1, let shape = shapes.first, shape.count == 2 else {
            return nil
        }
        return .separate(parts, shape: shape)
    }
}

extension String {
    /// Whether the path ends with these steps.
    fileprivate func hasPathSuffix(_ suffix: String) -> Bool { self == suffix || hasSuffix(".\(suffix)") }

    /// Where the last step of a path begins.
    fileprivate var lastStep: Index { lastIndex(of: ".").map { index(after: $0) } ?? startIndex }
}
