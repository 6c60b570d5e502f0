import Checkpoints
import Core
import Recipes

/// The tensors of one stack of layers of one model, by what their names say behind the layer's number.
private struct LayerNames {
    private var layers: [Int: Set<ExactText>] = [:]
    /// What the first layer has for the whole stack: it has all that other layers have, and this. T5's relative position bias.
    private(set) var ofStack: Set<ExactText> = []
    /// What every layer but the first has. ModernBERT's norm before the attention.
    private(set) var notOfFirst: Set<ExactText> = []

    init(_ names: [String], prefix: ExactText) {
        for name in names {
            guard let layer = TensorName(name).layer, layer.prefix == prefix else { continue }
            let rest = name.utf8.dropFirst("\(prefix).\(layer.index).".utf8.count)
            layers[layer.index, default: []].insert(ExactText(String(Substring(rest))))
        }
        guard let first = layers[0], layers.count > 1 else { return }
        let others = layers.filter { $0.key != 0 }.values
        if others.allSatisfy({ $0.isSubset(of: first) }) {
            let more = others.reduce(first) { $0.subtracting($1) }
            ofStack = more.allSatisfy { TensorName($0.string).isOptional } ? [] : more
        }
        if others.allSatisfy({ first.isStrictSubset(of: $0) }), let some = others.first {
            notOfFirst = others.reduce(some) { $0.intersection($1) }.subtracting(first)
        }
    }

    /// What the layer has for itself.
    func own(of layer: Int) -> Set<ExactText> { (layers[layer] ?? []).subtracting(ofStack) }
}

extension OutputTensorList {
    /// Layers one on top of the other. What lies before the first layer comes from the first slice's models, what lies behind
    /// from the last's.
    mutating func stacked(_ slices: [Slice], of stack: Located<String>?, names: [String], line: Int) -> [OutputTensorSpec] {
        let prefixes = self.prefixes(of: slices, named: stack, names: names, line: line)
        guard let main = prefixes.first else { return [] }
        var specs: [OutputTensorSpec] = []
        for prefix in prefixes where slices.allSatisfy({ layersExist(in: $0, prefix: prefix) }) {
            specs += layers(slices, prefix)
        }
        // Ranges of layers that do not exist may be of any length.
        guard problems.isEmpty else { return [] }
        let origins = slices.flatMap { slice in
            slice.sources.first.map { source in (source.layers ?? 0..<0).map { LayerOrigin(model: source.model, layer: $0) } }
                ?? []
        }
        if origins.isEmpty {
            complain("the slices have no layers", line: line, advice: "choose layers with 'layer_range: [FIRST, END]'")
        }
        layerOrigins[main] = origins
        let beside = besideLayers(Set(prefixes), first: slices.first, last: slices.last, names: names)
        remarkOnLayers(origins, main, beside: beside)
        return specs + beside
    }

    /// The tensors of the layers of one stack.
    private mutating func layers(_ slices: [Slice], _ prefix: ExactText) -> [OutputTensorSpec] {
        var specs: [OutputTensorSpec] = [], origins: [LayerOrigin] = [], layerNames: [Int: LayerNames] = [:]
        var sourceCount = 0
        for slice in slices {
            for source in slice.sources where layerNames[source.model] == nil {
                layerNames[source.model] = LayerNames(inputs.inputs[source.model].tensorNames, prefix: prefix)
            }
            let count = slice.sources.first?.layers?.count ?? 0
            for k in 0..<count {
                let before = specs.count
                func add(_ rests: Set<ExactText>, at layer: (Slice.Source) -> Int) {
                    specs += rests.sorted().map { rest in
                        OutputTensorSpec(
                            slice: slice.number, name: "\(prefix).\(origins.count + k).\(rest)",
                            sources: slice.sources.map {
                                OutputTensorSpec.Source(
                                    model: $0.model, name: "\(prefix).\(layer($0)).\(rest)", parameters: $0.parameters,
                                    line: $0.line)
                            },
                            base: slice.base, scopes: slice.scopes, position: LayerStacks.position(of: k, in: count))
                    }
                }
                let layer = { (source: Slice.Source) in (source.layers?.lowerBound ?? 0) + k }
                add(slice.sources.reduce([]) { $0.union(layerNames[$1.model]?.own(of: layer($1)) ?? []) }, at: layer)
                sourceCount += (specs.count - before) * slice.sources.count
                guard mayHave(specs.count, from: sourceCount, line: slice.sources.first?.line ?? 1) else { return [] }
                if origins.count + k == 0 {
                    add(slice.sources.reduce([]) { $0.union(layerNames[$1.model]?.ofStack ?? []) }, at: { _ in 0 })
                }
            }
            if let first = slice.sources.first, let layers = first.layers {
                origins += layers.map { LayerOrigin(model: first.model, layer: $0) }
            }
        }
        for (model, names) in layerNames.sorted(by: { $0.key < $1.key }) {
            let isMisplaced = origins.enumerated().contains { $1.model == model && ($0 == 0) != ($1.layer == 0) }
            guard isMisplaced, !names.notOfFirst.isEmpty else { continue }
            let lacking = names.notOfFirst.sorted().map(\.string).joined(separator: ", ")
            remarks.append(
                "layer 0 of '\(inputs.inputs[model].reference)' alone has no \(lacking) in \(prefix), and the output has another "
                    + "layer there or layer 0 elsewhere; loaders will find tensors that they do not expect, or miss some")
        }
        return specs
    }

    /// What the user should know about layers that are not those of their model, in its order.
    private mutating func remarkOnLayers(_ origins: [LayerOrigin], _ prefix: ExactText, beside: [OutputTensorSpec]) {
        guard let model = origins.first?.model, let count = inputs.inputs[model].layers.counts[prefix] else { return }
        let isReordered = origins.enumerated().contains { $0 != $1.layer }
        guard isReordered || origins.count != count else { return }
        let input = inputs.inputs[model], facts = DepthFacts(input, prefix: prefix)
        if let whole = beside.first(where: { facts.holdsAllLayers($0.name) }) {
            remarks.append(
                "'\(whole.name)' holds something for each layer of \(prefix) in one tensor, which does not follow the layers; "
                    + "the output will not load unless they are all there and in their order")
        }
        if isReordered, let reason = facts.dependence {
            remarks.append(
                "the layers of '\(input.reference)' compute with their own number (\(reason)), and have another in the output; "
                    + "they will not compute what they did")
        }
    }

    /// What does not belong to the layers that are stacked.
    private func besideLayers(_ prefixes: Set<ExactText>, first: Slice?, last: Slice?, names: [String]) -> [OutputTensorSpec] {
        names.compactMap { name in
            guard TensorName(name).layer.map({ !prefixes.contains($0.prefix) }) ?? true,
                let slice = TensorName(name).standsBeforeLayers ? first : last,
                slice.sources.contains(where: { has(name, in: inputs.inputs[$0.model]) })
            else { return nil }
            return OutputTensorSpec(
                slice: slice.number, name: name,
                sources: slice.sources.map {
                    OutputTensorSpec.Source(model: $0.model, name: name, parameters: $0.parameters, line: $0.line)
                },
                base: slice.base, scopes: slice.scopes, position: 0)
        }
    }

    /// A model that ties its head to its embedding has one for others.
    private func has(_ name: String, in input: InputSet.Input) -> Bool {
        input.has(name) || TensorName(name).isHead && TiedHead(input.checkpoint) != nil
    }

    /// The stack that the slices are of: the one that the recipe names, else the only one, or the only one whose layers the
    /// config counts, or among those the one of the text model. Where layers are spread over several stacks, all of these.
    private mutating func prefixes(
        of slices: [Slice], named stack: Located<String>?, names: [String], line: Int
    ) -> [ExactText] {
        let stacks = LayerStacks(names: names).counts, prefixes = stacks.keys.sorted()
        if let stack {
            let found = prefixes.filter { "\($0)" == stack.value || "\($0)".hasSuffix(".\(stack.value)") }
            if found.count == 1 { return found }
            complain(
                "the models have \(found.isEmpty ? "no" : "several") layers in '\(stack.value)'", line: stack.line,
                advice: "write one of \(prefixes.map(\.string).joined(separator: ", "))")
            return []
        }
        if prefixes.isEmpty {
            complain("the models have no numbered layers to slice", line: line, advice: "use 'models:'")
        }
        if prefixes.count < 2 { return prefixes }
        let isOneModule = recipe.modules.contains { $0.name != nil } || Set(ModuleNames.modules(of: names)).count == 1
        if isOneModule, let model = slices.first?.sources.first?.model, let config = inputs.inputs[model].checkpoint.config {
            let counts = LayerCounts(config: config, stacks: inputs.inputs[model].layers.counts)
            let counted = prefixes.filter { !counts.homes(of: $0).isEmpty }
            for isMain in [{ _ in true }, counts.isOfText, { !counts.isOfTower($0) }] as [(ExactText) -> Bool] {
                let main = counted.filter(isMain)
                if main.count == 1 { return main }
            }
            if counts.isOneStack(counted) { return counted }
        }
        complain(
            "the models have several stacks of layers: \(prefixes.map(\.string).joined(separator: ", "))", line: line,
            advice: isOneModule
                ? "write 'stack: \(prefixes[0])', or another of them, beside 'slices'"
                : "use 'modules:', with slices in each module")
        return []
    }

    /// Complains about layers that are not there.
    private mutating func layersExist(in slice: Slice, prefix: ExactText) -> Bool {
        var exist = true
        for source in slice.sources {
            let input = inputs.inputs[source.model], count = input.layers.counts[prefix] ?? 0
            if let layers = source.layers, layers.upperBound <= count { continue }
            complain(
                "'\(input.reference)' has \(count) layers; the recipe asks for "
                    + "[\(source.layers?.lowerBound ?? 0), \(source.layers?.upperBound ?? 0)]",
                line: source.line, advice: "END is exclusive and must be at most \(count)")
            exist = false
        }
        return exist
    }
}
