import Operators
import Yams

/// The three forms of a recipe: whole models, slices of layers, or either of these per module.
extension RecipeReader {
    private static let forms = ["models", "slices", "modules"]
    static let stackKey = "stack"
    /// Beside a model, these are certainly meant for it.
    private static let misplacedParameters = ["weight", "density", "scale"]
    /// Whoever writes one of them where it means nothing wants it below `parameters:`.
    static let methodParameters = Set(MergeMethods.all.flatMap { $0.parameters.map(\.name) } + misplacedParameters)

    mutating func readModules(_ root: Node.Mapping) -> [Recipe.Module] {
        guard let (form, node) = theOneForm(of: root, forms: Self.forms, known: Self.allKeys, place: "the recipe", line: 1) else {
            return []
        }
        guard form == "modules" else {
            guard let body = readBody(node, form: form) else { return [] }
            return [Recipe.Module(name: nil, body: body, stack: readStack(root, of: body), parameters: ParameterScope())]
        }
        guard case .mapping(let modules) = node else {
            complain(
                "'modules' must map module names to their models or slices", at: node.line,
                advice: "write 'NAME:' entries with 'models:' or 'slices:' below each")
            return []
        }
        return readAll(modules) { reader, module in reader.readModule(named: module.key, module.value) }
    }

    /// What can be read of the nodes that name models.
    private mutating func readAll<Nodes: Sequence, Value>(
        _ nodes: Nodes, _ read: (inout RecipeReader, Nodes.Element) -> Value?
    ) -> [Value] {
        let values = nodes.map { read(&self, $0) }, found = values.compactMap(\.self)
        if found.count < values.count { hasAllModels = false }
        return found
    }

    private mutating func readModule(named key: Node, _ node: Node) -> Recipe.Module? {
        guard let name = key.plainText, case .mapping(let mapping) = node else {
            complain(
                "the module '\(key.plainText ?? "")' has no models", at: key.line,
                advice: "write 'NAME:' with 'models:' or 'slices:' below it")
            return nil
        }
        let known = ["models", "slices", "parameters", Self.stackKey]
        checkKeys(of: mapping, known: known, place: "a module")
        let found = theOneForm(
            of: mapping, forms: ["models", "slices"], known: known, place: "the module '\(name)'", line: key.line)
        guard let (form, node) = found, let body = readBody(node, form: form) else { return nil }
        return Recipe.Module(
            name: Located(name, line: key.line), body: body, stack: readStack(mapping, of: body),
            parameters: readParameters(mapping["parameters"]))
    }

    private mutating func readStack(_ mapping: Node.Mapping, of body: Recipe.Body) -> Located<String>? {
        guard let node = mapping[Self.stackKey], !node.isNull else { return nil }
        guard let name = node.plainText, case .slices = body else {
            complain(
                "'\(Self.stackKey)' must be the name of the layers that 'slices' beside it are of", at: node.line,
                advice: "write what stands before the layers' numbers, as in 'stack: text_decoder.layers'")
            return nil
        }
        return Located(name, line: node.line)
    }

    /// An empty list counts as absent, as in mergekit.
    private mutating func theOneForm(
        of mapping: Node.Mapping, forms: [String], known: [String], place: String, line: Int
    ) -> (form: String, node: Node)? {
        let present = forms.filter { form in
            switch mapping[form] {
            case .sequence(let sequence)?: !sequence.isEmpty
            case let node?: !node.isNull
            case nil: false
            }
        }
        switch present.count {
        case 1: return mapping[present[0]].map { (present[0], $0) }
        case 0:
            for form in forms {
                if let node = misspelled(form, in: mapping, known: known) { return (form, node) }
            }
            let empty = forms.compactMap { mapping[$0]?.line }.first
            complain(
                "\(place) has no models", at: empty ?? line, advice: "add a 'models:' list with entries such as '- model: PATH'")
        default:
            complain(
                "\(place) has both '\(present[0])' and '\(present[1])'", at: mapping[present[1]]?.line ?? line,
                advice: "keep one of them")
        }
        return nil
    }

    private mutating func readBody(_ node: Node, form: String) -> Recipe.Body? {
        guard case .sequence(let sequence) = node else {
            complain(
                "'\(form)' must be a list", at: node.line,
                advice: form == "slices" ? "write '- sources: [...]' entries" : "write '- model: PATH' entries")
            return nil
        }
        if form == "models" { return .models(readAll(sequence) { $0.readSource($1, isSlice: false) }) }
        return .slices(readAll(sequence) { $0.readSlice($1) })
    }

    private mutating func readSlice(_ node: Node) -> Recipe.Slice? {
        guard case .mapping(let mapping) = node else {
            complain(
                "a slice must be a map", at: node.line,
                advice: "write '- sources: [...]' with entries such as {model: PATH, layer_range: [0, 16]}")
            return nil
        }
        // mergekit also accepts 'residual_weight', but never uses it.
        let known = ["sources", "base_model", "parameters", "residual_weight"]
        checkKeys(of: mapping, known: known, place: "a slice")
        let written = mapping["sources"] ?? misspelled("sources", in: mapping, known: known)
        guard case .sequence(let list)? = written, !list.isEmpty else {
            complain(
                "the slice has no sources", at: written?.line ?? node.line,
                advice: "add 'sources:' with entries such as '- {model: PATH, layer_range: [0, 16]}'")
            return nil
        }
        let sources = readAll(list) { $0.readSource($1, isSlice: true) }
        if let first = sources.first?.layers,
            let other = sources.compactMap(\.layers).first(where: { $0.value.count != first.value.count })
        {
            complain(
                "the sources of the slice have \(first.value.count) and \(other.value.count) layers", at: other.line,
                advice: "give every source of the slice the same number of layers")
        }
        return Recipe.Slice(
            sources: sources, baseModel: readBase(mapping), parameters: readParameters(mapping["parameters"]), line: node.line)
    }

    private mutating func readSource(_ node: Node, isSlice: Bool) -> Recipe.Source? {
        guard case .mapping(let mapping) = node else {
            complain("a model must be a map", at: node.line, advice: "write '- model: \(node.plainText ?? "PATH")'")
            return nil
        }
        for (key, _) in mapping where Self.misplacedParameters.contains(key.plainText ?? "") {
            complain("'\(key.plainText ?? "")' is not under 'parameters:'", at: key.line, advice: "move it under 'parameters:'")
        }
        let known = ["model", "adapter", "parameters"] + (isSlice ? ["layer_range"] : []) + Self.misplacedParameters
        checkKeys(of: mapping, known: known, place: isSlice ? "a source" : "a model")
        guard let reference = readModel(mapping, known: known, line: node.line) else { return nil }
        let layers = isSlice ? readLayers(mapping["layer_range"], of: reference.value, line: node.line) : nil
        if isSlice, layers == nil { return nil }
        return Recipe.Source(model: reference, layers: layers, parameters: readParameters(mapping["parameters"]))
    }

    /// `model: PATH`, with `adapter: PATH` beside it or in its place, where the adapter is the base's.
    private mutating func readModel(_ mapping: Node.Mapping, known: [String], line: Int) -> Located<ModelReference>? {
        let written = mapping["model"] ?? misspelled("model", in: mapping, known: known)
        let model = written.flatMap { readReference($0) }
        guard let node = mapping["adapter"] else {
            if written == nil { complain("the model has no path", at: line, advice: "write '- model: PATH'") }
            return model
        }
        if written != nil, model == nil { return nil }
        guard let owner = model?.value ?? baseModel, owner.adapter == nil, owner.task == nil else {
            complain(
                "the adapter has no model that it could be folded into", at: node.line,
                advice: "write '- model: PATH' beside it, or 'base_model: PATH' at the top, each without an adapter")
            return nil
        }
        let adapter = node.plainText.map { ModelReference.Source(parsing: $0) } ?? readPath(node)
        guard let adapter else {
            complain("'adapter' must be a path", at: node.line, advice: "write PATH, PATH@REVISION, or a map with 'path'")
            return nil
        }
        return Located(ModelReference(model: owner.model, adapter: adapter), line: node.line)
    }

    private mutating func readLayers(_ node: Node?, of model: ModelReference, line: Int) -> Located<Range<Int>>? {
        let advice = "write 'layer_range: [FIRST, END]', two integers; END is exclusive"
        guard let node else {
            complain("the source '\(model)' has no 'layer_range'", at: line, advice: advice)
            return nil
        }
        guard case .sequence(let list) = node, list.count == 2 else {
            complain("'layer_range' must have two numbers", at: node.line, advice: advice)
            return nil
        }
        let bounds = list.compactMap { $0.scalarValue?.asDouble }.compactMap { Int(exactly: $0) }
        guard bounds.count == 2, bounds[0] >= 0, bounds[1] >= bounds[0] else {
            complain("'layer_range' is not a valid range of layers", at: node.line, advice: advice)
            return nil
        }
        return Located(bounds[0]..<bounds[1], line: node.line)
    }
}
