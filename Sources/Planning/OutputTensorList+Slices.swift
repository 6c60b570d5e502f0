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
    mutating func stacked(_ slices: [Slice], names: [String], line: Int) -> [OutputTensorSpec] {
        guard let prefix = stack(of: slices, names: names, line: line) else { return [] }
        var specs: [OutputTensorSpec] = []
        var origins: [LayerOrigin] = []
        var layerNames: [Int: LayerNames] = [:]
        for slice in slices {
            let count = slice.sources.first?.layers?.count ?? 0
            guard layersExist(in: slice, prefix: prefix) else { continue }
            for source in slice.sources where layerNames[source.model] == nil {
                layerNames[source.model] = LayerNames(inputs.inputs[source.model].tensorNames, prefix: prefix)
            }
            for k in 0..<count {
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
                if origins.count + k == 0 {
                    add(slice.sources.reduce([]) { $0.union(layerNames[$1.model]?.ofStack ?? []) }, at: { _ in 0 })
                }
            }
            if let first = slice.sources.first, let layers = first.layers {
                origins += layers.map { LayerOrigin(model: first.model, layer: $0) }
            }
        }
        if origins.isEmpty, problems.isEmpty {
            complain("the slices have no layers", line: line, advice: "choose layers with 'layer_range: [FIRST, END]'")
        }
        layerOrigins[prefix] = origins
        for (model, names) in layerNames.sorted(by: { $0.key < $1.key }) {
            let isMisplaced = origins.enumerated().contains { $1.model == model && ($0 == 0) != ($1.layer == 0) }
            guard isMisplaced, !names.notOfFirst.isEmpty else { continue }
            let lacking = names.notOfFirst.sorted().map(\.string).joined(separator: ", ")
            remarks.append(
                "layer 0 of '\(inputs.inputs[model].reference)' alone has no \(lacking) in \(prefix), and the output has another "
                    + "layer there or layer 0 elsewhere; loaders will find tensors that they do not expect, or miss some")
        }
        let beside = besideLayers(prefix, first: slices.first, last: slices.last, names: names)
        let count = slices.first?.sources.first.map { inputs.inputs[$0.model].layers.counts[prefix] }
        let isChanged = origins.count != count || origins.enumerated().contains { $0 != $1.layer }
        // Gemma 3n's and 4's embedding has a piece for each layer.
        if isChanged, let whole = beside.first(where: { $0.name.contains("per_layer") }) {
            remarks.append(
                "'\(whole.name)' holds something for each layer of \(prefix) in one tensor, which does not follow the layers; "
                    + "the output will not load unless they are all there and in their order")
        }
        specs += beside
        return specs
    }

    /// What does not belong to the layers that are stacked.
    private func besideLayers(_ prefix: ExactText, first: Slice?, last: Slice?, names: [String]) -> [OutputTensorSpec] {
        names.compactMap { name in
            guard TensorName(name).layer?.prefix != prefix, let slice = TensorName(name).standsBeforeLayers ? first : last,
                slice.sources.contains(where: { inputs.inputs[$0.model].has(name) })
            else { return nil }
            return OutputTensorSpec(
                slice: slice.number, name: name,
                sources: slice.sources.map {
                    OutputTensorSpec.Source(model: $0.model, name: name, parameters: $0.parameters, line: $0.line)
                },
                base: slice.base, scopes: slice.scopes, position: 0)
        }
    }

    /// The stack that the slices are of: the only one, or the only one whose layers the config counts, or among those the one
    /// of the text model.
    private mutating func stack(of slices: [Slice], names: [String], line: Int) -> ExactText? {
        let prefixes = LayerStacks(names: names).counts.keys.sorted()
        if prefixes.count < 2 {
            if prefixes.isEmpty {
                complain("the models have no numbered layers to slice", line: line, advice: "use 'models:'")
            }
            return prefixes.first
        }
        let isOneModule = recipe.modules.contains { $0.name != nil } || Set(ModuleNames.modules(of: names)).count == 1
        if isOneModule, let model = slices.first?.sources.first?.model, let config = inputs.inputs[model].checkpoint.config {
            let counts = LayerCounts(config: config, stacks: inputs.inputs[model].layers.counts)
            let counted = prefixes.filter { !counts.homes(of: $0).isEmpty }
            for isMain in [{ _ in true }, counts.isOfText, { !counts.isOfTower($0) }] as [(ExactText) -> Bool] {
                let main = counted.filter(isMain)
                if main.count == 1 { return main[0] }
            }
        }
        complain(
            "the models have several stacks of layers: \(prefixes.map(\.string).joined(separator: ", "))", line: line,
            advice: "use 'modules:', with slices in each module")
        return nil
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
