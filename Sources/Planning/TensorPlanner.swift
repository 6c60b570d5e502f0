import Checkpoints
import Core
import LinearAlgebra
import Operators
import Recipes
import TensorKernels
import Tokenizers
import Work

/// One merged tensor before its outputs have their places in the layout.
struct PlannedTensor {
    let name: String
    let shape: [Int]
    let method: String
    var values: ParameterValues
    let base: Int?
    /// The model that each source comes from, as a number of the recipe's inputs.
    let models: [Int]
    let sources: [SourceReference]
    /// What the method is given beside the sources.
    let given: [GivenReference]
    let randomKey: UInt64?
    /// `LinearAlgebra.identity()` of the host that planned; `nil` for methods without matrices.
    let linearAlgebra: String?
    var codec: CodecReference
    /// What the codec makes of the tensor.
    var outputs: [EncodedTensor]
    /// The models that the recipe takes the tensor from, whether they have it or not.
    var namedModels: [Int] = []
    /// How the update is stored where the output is an adapter; `nil` where the tensor itself is.
    var factors: FactorShape?
    /// The path of the module that the factors belong to.
    var module: String?

    /// A look at the tensor, from which it is planned.
    func measurement(_ stage: ModelStage) -> TensorWork {
        TensorWork(
            name: name, shape: shape, operation: .measure(merge, stage), sources: sources, given: given, outputs: [])
    }

    func work(outputs: [OutputTensor]) -> TensorWork {
        TensorWork(
            name: name, shape: shape, operation: factors.map { .factor(merge, $0) } ?? .merge(merge), sources: sources,
            given: given, outputs: outputs)
    }

    /// What its outputs are called, without their suffixes.
    var outputName: String { module.map { AdapterKey.prefix + $0 } ?? name }

    private var merge: MergeOperation {
        MergeOperation(
            method: method, values: values, base: base, randomKey: randomKey, linearAlgebra: linearAlgebra, codec: codec)
    }
}

/// What codecs make of tensors. Many tensors have the same shape.
private struct KnownOutputs {
    private struct Key: Hashable {
        let codec: CodecReference
        let shape: [Int]
    }

    private var known: [Key: [EncodedTensor]] = [:]

    mutating func of(_ codec: CodecReference, shape: [Int]) throws(TesseraError) -> [EncodedTensor] {
        let key = Key(codec: codec, shape: shape)
        if let outputs = known[key] { return outputs }
        let outputs = try codec.codec().outputs(shape: shape)
        known[key] = outputs
        return outputs
    }
}

/// Finds for every output tensor its sources, type, shape and parameter values, and all that is wrong with them.
struct TensorPlanner {
    let recipe: Recipe
    let method: any MergeMethod.Type
    let inputs: InputSet
    /// What the recipe gives the method beside the models.
    let given: GivenFiles
    /// Where the recipe chooses the output's vocabulary; counts models as `inputs` does.
    let vocabulary: VocabularyPlan?
    let request: PlanRequest

    /// - Returns: the tensors in the order of the specs, and what the user should know about some of them.
    func plan(_ specs: [OutputTensorSpec]) throws -> (tensors: [PlannedTensor], remarks: [String]) {
        var tensors: [PlannedTensor] = []
        var problems = ProblemList(file: recipe.file)
        var incomplete: [(name: String, outcome: String)] = []
        var resolution = ParameterResolution(recipe: recipe, method: method)
        var outputs = KnownOutputs()
        for spec in specs {
            try request.checkTime()
            do throws(Problems) {
                let found = try find(spec)
                if found.isIncomplete { incomplete.append((spec.name, found.outcome)) }
                guard let method = found.method else { continue }
                var tensor = try plan(found, by: method, &resolution, &outputs)
                tensor.namedModels = spec.sources.map(\.model)
                tensors.append(tensor)
            } catch {
                problems.add(error.all)
            }
        }
        try problems.throwIfAny()
        let remarks = ["merged from the models that do", "taken from the base", "left out"].compactMap { outcome in
            let names = incomplete.filter { $0.outcome == outcome }.map(\.name)
            let rest = names.count > 1 ? " and \(names.count - 1) more" : ""
            return names.first.map { "not every model has \($0)\(rest); \(outcome)" }
        }
        return (tensors, remarks)
    }

    /// What there is of a spec.
    struct Found {
        /// With the sources that are there.
        let spec: OutputTensorSpec
        let tensors: [InputTensor]
        /// What merges them; `nil` when the tensor is left out.
        let method: (any MergeMethod.Type)?
        /// Whether some models lack the tensor.
        var isIncomplete = false
        /// Whether only the base's is taken.
        var isBaseAlone = false

        var sources: [SourceReference] { tensors.map(\.source) }
        var shapes: [[Int]] { tensors.map(\.shape) }
        var outcome: String {
            method == nil ? "left out" : isBaseAlone ? "taken from the base" : "merged from the models that do"
        }
    }

    /// Looks the sources up.
    ///
    /// A head that a model ties to its embedding is that embedding; biases and buffers may be missing in some models; anything
    /// else may not.
    func find(_ spec: OutputTensorSpec) throws(Problems) -> Found {
        var present: [OutputTensorSpec.Source] = [], found: [InputTensor] = []
        var lacking: [String] = []
        var base: Int?
        for (index, source) in spec.sources.enumerated() {
            let input = inputs.inputs[source.model]
            guard let tensor = input.tensor(named: storedName(of: source.name, in: input)) else {
                lacking.append("\(input.reference)")
                continue
            }
            if index == spec.base { base = present.count }
            present.append(source)
            found.append(tensor)
        }
        let reduced = OutputTensorSpec(
            slice: spec.slice, name: spec.name, sources: present, base: base, scopes: spec.scopes, position: spec.position)
        var method: (any MergeMethod.Type)? = self.method
        if !lacking.isEmpty {
            let choice = recipe.missing(spec.name, at: spec.position)
            guard let substitute = substitute(for: reduced, as: choice) else {
                throw problem(
                    spec.name,
                    "missing in \(list(lacking)), present in \(found.count) of \(spec.sources.count) models"
                        + (choice == .base ? "; the base is not one of them" : ""),
                    advice: choice == nil
                        ? "merge models with the same architecture, or say 'missing: base', 'present' or 'omit'"
                        : "say 'missing: present' or 'omit' for it, or merge models that have it")
            }
            method = substitute.method
            if substitute.isBaseAlone, let base {
                return Found(
                    spec: reduced.alone(base), tensors: [found[base]], method: method, isIncomplete: true, isBaseAlone: true)
            }
        }
        // How often a model was trained is no weight: every fine-tune has another number.
        if TensorName(spec.name).countsBatches, !found.isEmpty {
            return Found(
                spec: reduced.alone(base ?? 0), tensors: [found[base ?? 0]], method: Passthrough.self,
                isIncomplete: !lacking.isEmpty)
        }
        return Found(spec: reduced, tensors: found, method: method, isIncomplete: !lacking.isEmpty)
    }

    /// What is done with a tensor that some models lack, as the recipe says. Where it says nothing, optional tensors are merged
    /// from the models that have them.
    ///
    /// - Returns: `nil` when the recipe is refused.
    private func substitute(
        for spec: OutputTensorSpec, as choice: MissingTensors?
    ) -> (method: (any MergeMethod.Type)?, isBaseAlone: Bool)? {
        switch choice ?? (TensorName(spec.name).isOptional ? .present : .refuse) {
        case .refuse: nil
        case .omit: (nil, false)
        case .base: spec.base == nil ? nil : (Passthrough.self, true)
        case .present: merged(spec) ?? (choice == nil || spec.sources.count != 1 ? nil : (Passthrough.self, false))
        }
    }

    /// By the method if its contract still holds, else as the method says.
    private func merged(_ spec: OutputTensorSpec) -> (method: (any MergeMethod.Type)?, isBaseAlone: Bool)? {
        let hasBase = spec.base != nil, contract = method.inputs
        let models = spec.sources.count - (contract.givesBaseARole && hasBase ? 1 : 0)
        if contract.models.contains(models), contract.base != .required || hasBase { return (method, false) }
        switch method.whenIncomplete {
        case .refuse: return nil
        case .copyLone: return spec.sources.count == 1 ? (Passthrough.self, false) : nil
        case .copyLoneBase: return spec.sources.count == 1 && hasBase ? (Passthrough.self, false) : nil
        case .copyBaseOrLeaveOut: return hasBase ? (Passthrough.self, true) : (nil, false)
        }
    }

    /// The tensor's own name, or that of the embedding that the model ties it to.
    private func storedName(of name: String, in input: InputSet.Input) -> String {
        guard TensorName(name).isHead, !input.has(name), TiedHead.mayServe(input.checkpoint) else { return name }
        return input.tensorNames.first { TensorName($0).isTokenEmbedding } ?? name
    }

    /// - Parameter resolution: of the recipe's own method.
    private func plan(
        _ found: Found, by wanted: any MergeMethod.Type, _ resolution: inout ParameterResolution, _ outputs: inout KnownOutputs
    ) throws(Problems) -> PlannedTensor {
        let spec = found.spec, types = found.tensors.map(\.dtype)
        let aligned = try alignedSources(of: found)
        let shape = aligned.map { _ in [vocabulary?.rowCount ?? 0] + found.shapes[0].dropFirst() } ?? found.shapes[0]
        if aligned == nil { try checkShapes(of: spec, found.shapes) }
        let isArithmetic = types.allSatisfy(\.isArithmetic)
        let isCopy = !isArithmetic && types.allSatisfy { $0 == types[0] }
        guard isArithmetic || isCopy else {
            throw problem(
                spec.name, "the models have it in types that cannot be merged: \(list(types.map(\.rawValue)))")
        }
        let method: any MergeMethod.Type = isCopy ? Identical.self : wanted
        var values: ParameterValues, given: [GivenReference] = []
        if method == self.method {
            values = try resolution.boundValues(for: spec)
            (given, values) = try self.given.resolve(
                spec, shape: shape, method: method, inputs: inputs, values: values, names: givenNames)
            guard aligned == nil || given.isEmpty else {
                throw problem(
                    spec.name, "has rows that the recipe reorders, and a file that the method is given has them as they were",
                    advice: "remove 'tokenizer', or bring the vocabularies together before")
            }
        } else {
            var other = ParameterResolution(recipe: recipe, method: method)
            values = try other.boundValues(for: spec)
        }
        if aligned != nil || !isTakenOver(found, by: method, values) { try checkScales(of: found) }
        let base = method.inputs.givesBaseARole ? spec.base : nil
        let codec = CodecReference.rounding(to: isCopy ? types[0] : outputType(of: types))
        do throws(TesseraError) {
            let identity = method.usesLinearAlgebra ? try LinearAlgebra.identity() : nil
            try method.init(values, inputs: TensorInputs(count: found.sources.count, base: base, given: given.map(\.role))).check(
                shape)
            return PlannedTensor(
                name: spec.name, shape: shape, method: method.name, values: values, base: base,
                models: spec.sources.map(\.model), sources: aligned ?? found.sources, given: given,
                randomKey: method.isRandom ? try CounterRandom.key(seed: request.seed, tensor: spec.name) : nil,
                linearAlgebra: identity, codec: codec, outputs: try outputs.of(codec, shape: shape))
        } catch {
            throw Problems([
                TesseraError(error.code, error.problem, file: recipe.file, tensor: spec.name, advice: error.advice)
            ])
        }
    }

    /// What a file that belongs to a source may call its tensor: as the model does, or as the recipe's models do together.
    private func givenNames(of source: OutputTensorSpec.Source) -> [String] {
        let input = inputs.inputs[source.model]
        return [source.name, storedName(of: source.name, in: input)].flatMap { [input.names.own($0), $0] }
    }

    /// Whether the output gets the bytes of the only source, and those of its scales if it has any.
    private func isTakenOver(_ found: Found, by method: any MergeMethod.Type, _ values: ParameterValues) -> Bool {
        guard
            method == Passthrough.self, let source = found.sources.first, let model = found.spec.sources.first?.model,
            values.perInput.first?["scale"] == nil
        else { return false }
        return inputs.inputs[model].hasStored(source) && recipe.dtype == nil && recipe.outDtype == nil
    }

    /// - Throws: a problem where a source's elements are values only together with scales.
    private func checkScales(of found: Found) throws(Problems) {
        for source in found.spec.sources {
            let input = inputs.inputs[source.model]
            if let scaled = input.scaledCodes(storedName(of: source.name, in: input)) {
                throw problem(found.spec.name, scaled.problem, advice: scaled.advice)
            }
        }
    }

    /// The sources of a tensor with a vocabulary axis, their rows brought together; `nil` for any other tensor, and where the
    /// recipe leaves rows alone.
    private func alignedSources(of found: Found) throws(Problems) -> [SourceReference]? {
        guard let vocabulary, TensorName(found.spec.name).hasVocabularyAxis, (1...2).contains(found.shapes[0].count) else {
            return nil
        }
        try checkShapes(of: found.spec, found.shapes.map { Array($0.dropFirst()) })
        guard found.sources.allSatisfy(\.dtype.isArithmetic) else {
            throw problem(
                found.spec.name,
                "has \(list(Set(found.sources.map(\.dtype.rawValue)).sorted())) values, whose rows cannot be aligned",
                advice: "remove 'tokenizer', or convert the models to a floating-point type")
        }
        // Maps count the matrices in the order of the vocabulary's models.
        let models = found.spec.sources.map(\.model)
        let order = models.indices.sorted { models[$0] < models[$1] }
        let maps = try vocabulary.rowMaps(holders: order.map { models[$0] })
        let matrices = order.map { found.sources[$0] }, rowLength = Shape.count(Array(found.shapes[0].dropFirst()))
        var aligned = found.sources
        for (source, map) in zip(order, maps) {
            aligned[source] = .aligned(matrices, AlignmentReference(rowLength: rowLength, map: map))
        }
        return aligned
    }

    /// `out_dtype`, else `dtype`, else the narrowest type that holds every input's values.
    private func outputType(of types: [DType]) -> DType {
        recipe.outDtype ?? recipe.dtype ?? DType.narrowest(holding: Set(types))
    }

    private func checkShapes(of spec: OutputTensorSpec, _ shapes: [[Int]]) throws(Problems) {
        guard let other = shapes.firstIndex(where: { $0 != shapes[0] }) else { return }
        let names = spec.sources.map { inputs.inputs[$0.model].reference }
        throw problem(
            spec.name, "has shape \(shapes[0]) in \(names[0]) and \(shapes[other]) in \(names[other])",
            advice: "merge models with the same sizes; to merge different vocabularies, add 'tokenizer_source: union'")
    }

    private func problem(_ tensor: String, _ text: String, advice: String? = nil) -> Problems {
        Problems([TesseraError(.badData, text, file: recipe.file, tensor: tensor, advice: advice)])
    }

    private func list(_ items: [String]) -> String { items.joined(separator: ", ") }
}

extension DType {
    /// The narrowest of the arithmetic types that holds the values of all: float16 and bfloat16 make float32, the two float8
    /// types float16.
    static func narrowest(holding types: Set<DType>) -> DType {
        // Every wider type holds both of float8.
        let wide = types.filter { $0.bitWidth > 8 }
        if wide.count > 1 { return wide.contains(.f64) ? .f64 : .f32 }
        return wide.first ?? (types.count == 1 ? types.first : nil) ?? .f16
    }
}
