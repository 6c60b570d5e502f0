import Checkpoints
import Core
import Operators
import Recipes

/// Lists the tensors of the output: which they are, and from which layers of which models they come.
struct OutputTensorList {
    let recipe: Recipe
    let inputs: InputSet
    private(set) var problems: [TesseraError] = []

    init(recipe: Recipe, inputs: InputSet) {
        self.recipe = recipe
        self.inputs = inputs
    }

    /// A slice with its models found.
    struct Slice {
        struct Source {
            let model: Int
            let layers: Range<Int>?
            let parameters: ParameterScope
            let line: Int
        }

        let number: Int
        let sources: [Source]
        let base: Int?
        let scopes: [ParameterScope]
    }

    private var sliceCount = 0
    /// Tensors of an output, and of all models that these are made of: several times those of the largest models. A few lines
    /// of a recipe can ask for a stack without end, whose plan would take all memory.
    static let tensorLimit = 500_000, sourceLimit = 4_000_000

    private mutating func slice(_ sources: [Slice.Source], base: Int?, scopes: [ParameterScope]) -> Slice {
        sliceCount += 1
        return Slice(number: sliceCount, sources: sources, base: base, scopes: scopes)
    }

    /// A layer of one of the models.
    struct LayerOrigin {
        let model: Int
        let layer: Int
    }

    /// Where the recipe chooses the layers, by the text before their number: for each layer of the output, that of its first
    /// source.
    var layerOrigins: [ExactText: [LayerOrigin]] = [:]
    /// What the user should know about the layers.
    var remarks: [String] = []

    /// The tensors in byte order of their names, the order in which they are packed into parts.
    ///
    /// - Throws: `Problems`: unknown modules, layers that a model does not have.
    mutating func specs() throws -> [OutputTensorSpec] {
        let names = inputs.inputs.reduce([]) { $1.tensorNames.mergedByBytes($0) }
        var specs: [OutputTensorSpec] = []
        if recipe.modules.contains(where: { $0.name != nil }) {
            let modules = ModuleNames.modules(of: names)
            checkModules(known: Set(modules))
            for module in recipe.modules {
                specs += self.specs(of: module, names: zip(names, modules).filter { $1 == module.name?.value }.map(\.0))
            }
        } else {
            for module in recipe.modules { specs += self.specs(of: module, names: names) }
        }
        if names.isEmpty { problems.append(TesseraError(.badData, "the models have no tensors", file: recipe.file)) }
        guard problems.isEmpty else { throw Problems(problems) }
        return specs.sorted { $0.name.precedesInBytes($1.name) }
    }

    mutating func complain(_ problem: String, line: Int, advice: String? = nil) {
        problems.append(TesseraError(.badData, problem, file: recipe.file, line: line, advice: advice))
    }

    private mutating func checkModules(known: Set<String>) {
        let listed = recipe.modules.compactMap(\.name), unknown = listed.filter { !known.contains($0.value) }
        for name in unknown {
            complain(
                "the models have no module '\(name.value)'", line: name.line,
                advice: Suggestion.advice(for: name.value, in: known.sorted(), otherwise: "write one of"))
        }
        // The one that is not listed may be the one that is called wrongly.
        guard unknown.isEmpty else { return }
        for name in known.sorted() where !listed.contains(where: { $0.value == name }) {
            complain(
                "the module '\(name)' is not listed, so its tensors would be missing", line: listed.first?.line ?? 1,
                advice: "list all modules of the models under 'modules:'")
        }
    }

    // MARK: Slices

    private mutating func specs(of module: Recipe.Module, names: [String]) -> [OutputTensorSpec] {
        let scopes = (module.name == nil ? [] : [module.parameters]) + [recipe.parameters]
        switch module.body {
        case .models(let models):
            var sources = models.map { source(of: $0) }
            if let base = inputs.base, let named = recipe.baseModel, !sources.contains(where: { $0.model == base }) {
                sources.append(Slice.Source(model: base, layers: nil, parameters: ParameterScope(), line: named.line))
            }
            let slice = slice(sources, base: sources.firstIndex { $0.model == inputs.base }, scopes: scopes)
            return wholeModels(slice, names: names)
        case .slices(let slices):
            let found = slices.map { slice in
                let sources = slice.sources.map { source(of: $0) }
                let base = slice.baseModel.flatMap { inputs.index(of: $0.value) } ?? inputs.base
                return self.slice(
                    sources, base: sources.firstIndex { $0.model == base }, scopes: [slice.parameters] + scopes)
            }
            return stacked(found, of: module.stack, names: names, line: slices.first?.line ?? 1)
        }
    }

    private func source(of source: Recipe.Source) -> Slice.Source {
        // Every model that the recipe names has been opened.
        Slice.Source(
            model: inputs.index(of: source.model.value) ?? 0, layers: source.layers?.value, parameters: source.parameters,
            line: source.layers?.line ?? source.model.line)
    }

    /// Complains where an output would have too many tensors.
    mutating func mayHave(_ tensors: Int, from sources: Int, line: Int) -> Bool {
        guard tensors > Self.tensorLimit || sources > Self.sourceLimit else { return true }
        complain(
            "the output would have more than \(Self.tensorLimit) tensors, or these would be made of more than "
                + "\(Self.sourceLimit)", line: line, advice: "stack fewer layers, or merge fewer models at once")
        return false
    }

    // MARK: Tensors

    /// Every tensor of whole models, under its own name.
    private mutating func wholeModels(_ slice: Slice, names: [String]) -> [OutputTensorSpec] {
        let layers = LayerStacks(names: names)
        for (prefix, count) in layers.counts.sorted(by: { $0.key < $1.key }) {
            for source in slice.sources {
                let input = inputs.inputs[source.model], own = input.layers.counts[prefix] ?? 0
                guard own != count, own > 0 else { continue }
                complain(
                    "'\(input.reference)' has \(own) layers in \(prefix); another model has \(count)", line: source.line,
                    advice: "merge models with the same number of layers, or choose layers with 'slices'")
                return []
            }
        }
        guard mayHave(names.count, from: names.count * slice.sources.count, line: slice.sources.first?.line ?? 1) else {
            return []
        }
        return names.map { name in
            OutputTensorSpec(
                slice: slice.number, name: name,
                sources: slice.sources.map {
                    OutputTensorSpec.Source(model: $0.model, name: name, parameters: $0.parameters, line: $0.line)
                },
                base: slice.base, scopes: slice.scopes, position: layers.position(of: name))
        }
    }
}
