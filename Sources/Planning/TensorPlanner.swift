import Checkpoints
import Operators
import Recipes
import TensorKernels

/// One output tensor before it has a place in the layout.
struct PlannedTensor {
    let name: String
    let outputType: DType
    let shape: [Int]
    let method: String
    let values: ParameterValues
    let base: Int?
    let sources: [SourceReference]
    let cost: OperatorCost
    let randomKey: UInt64?

    func work(part: Int, offset: Int) -> TensorWork {
        TensorWork(
            name: name, dtype: outputType, shape: shape, part: part, offset: offset, method: method, values: values, base: base,
            sources: sources, randomKey: randomKey)
    }

    /// Statistics, a grain and the block that is being filled.
    var bytesPerThread: Int { cost.statisticsBytes + Grain.byteCount(sources: sources.count) + TreeDigest.blockSize }
}

/// Finds for every output tensor its sources, type, shape and parameter values, and all that is wrong with them.
struct TensorPlanner {
    let recipe: Recipe
    let method: any MergeMethod.Type
    let inputs: InputSet
    /// What random methods draw from.
    let seed: UInt64

    /// Tensors in byte order of their names, the order in which they are packed into parts.
    func plan() throws -> [PlannedTensor] {
        let names = Set(inputs.inputs.flatMap(\.checkpoint.tensorNames)).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let layers = LayerStack(names: names)
        var tensors: [PlannedTensor] = []
        var problems = ProblemList(file: recipe.file)
        for name in names {
            do throws(Problems) {
                tensors.append(try plan(name, position: layers.position(of: name)))
            } catch {
                problems.add(error.all)
            }
        }
        if names.isEmpty { problems.add([TesseraError(.badData, "the models hold no tensors")]) }
        try problems.throwIfAny()
        return tensors
    }

    /// - Parameter position: where gradients are evaluated, 0...1.
    private func plan(_ name: String, position: Double) throws(Problems) -> PlannedTensor {
        var entries: [TensorEntry] = []
        var sources: [SourceReference] = []
        for input in inputs.inputs {
            guard let (part, entry) = input.checkpoint.tensor(named: name) else { continue }
            entries.append(entry)
            sources.append(
                SourceReference(file: input.firstFile + part, offset: entry.range.lowerBound, dtype: entry.dtype))
        }
        try checkPresence(of: name, found: entries.count)
        try checkShapes(of: name, entries)

        let types = entries.map(\.dtype)
        let isArithmetic = types.allSatisfy(\.isArithmetic)
        let isCopy = !isArithmetic && Set(types).count == 1
        guard isArithmetic || isCopy else {
            throw problem(
                name, "the models hold it in types that cannot be merged with each other: \(list(types.map(\.rawValue)))")
        }
        let method: any MergeMethod.Type = isCopy ? Identical.self : self.method
        let values = try ParameterResolution(recipe: recipe, method: method, inputs: inputs).values(for: name, at: position)
        let base = method.inputs.givesBaseARole ? inputs.base : nil
        let bound: any MergeMethod
        let randomKey: UInt64?
        do throws(TesseraError) {
            randomKey = method.isRandom ? try CounterRandom.key(seed: seed, tensor: name) : nil
            bound = try method.init(values, inputs: TensorInputs(count: sources.count, base: base))
        } catch {
            throw problem(name, error.problem, advice: error.advice)
        }
        return PlannedTensor(
            name: name, outputType: isCopy ? types[0] : outputType(of: types), shape: entries[0].shape, method: method.name,
            values: values, base: base, sources: sources, cost: bound.cost(of: entries[0].shape), randomKey: randomKey)
    }

    /// `out_dtype`, else `dtype`, else the narrowest type that holds every input's values.
    private func outputType(of types: [DType]) -> DType {
        recipe.outDtype ?? recipe.dtype ?? types.dropFirst().reduce(types[0]) { $0.promoted(with: $1) }
    }

    private func checkPresence(of name: String, found: Int) throws(Problems) {
        guard found < inputs.inputs.count else { return }
        let lacking = inputs.inputs.filter { $0.checkpoint.tensor(named: name) == nil }
        throw problem(
            name,
            "missing in \(list(lacking.map(\.reference.description))), present in \(found) of \(inputs.inputs.count) models",
            advice: "merge models of one architecture")
    }

    private func checkShapes(of name: String, _ entries: [TensorEntry]) throws(Problems) {
        guard let other = entries.firstIndex(where: { $0.shape != entries[0].shape }) else { return }
        throw problem(
            name,
            "has shape \(entries[0].shape) in \(inputs.inputs[0].reference) and \(entries[other].shape) in \(inputs.inputs[other].reference)",
            advice: "merge models of one size; for different vocabularies the embeddings have to be aligned first")
    }

    private func problem(_ tensor: String, _ text: String, advice: String? = nil) -> Problems {
        Problems([TesseraError(.badData, text, file: recipe.file, tensor: tensor, advice: advice)])
    }

    private func list(_ items: [String]) -> String { items.joined(separator: ", ") }
}

/// Collects problems without end but shows no more of one kind than a person reads.
private struct ProblemList {
    let file: String?
    private var problems: [TesseraError] = []
    private static let shownLimit = 20

    init(file: String?) { self.file = file }

    /// The same complaint about the recipe itself, met at every tensor, is kept once.
    mutating func add(_ more: [TesseraError]) {
        for problem in more where !problems.contains(problem) { problems.append(problem) }
    }

    func throwIfAny() throws(Problems) {
        guard !problems.isEmpty else { return }
        let rest = problems.count - Self.shownLimit
        throw Problems(
            Array(problems.prefix(Self.shownLimit))
                + (rest > 0 ? [TesseraError(.badData, "and \(rest) more problems like these", file: file)] : []))
    }
}

extension DType {
    /// The narrowest of the arithmetic types that holds the values of both (float16 and bfloat16 make float32).
    fileprivate func promoted(with other: DType) -> DType {
        if self == other { return self }
        return self == .f64 || other == .f64 ? .f64 : .f32
    }
}

/// How many layers each stack of tensors has, to place gradients.
private struct LayerStack {
    private let layerCounts: [String: Int]

    init(names: [String]) {
        var counts: [String: Int] = [:]
        for name in names {
            guard let layer = TensorName(name).layer else { continue }
            counts[layer.prefix] = max(counts[layer.prefix] ?? 0, layer.index + 1)
        }
        layerCounts = counts
    }

    /// `k / (L − 1)` in a stack of `L` layers, 1 in a stack of one, and 0 outside the stacks (mergekit-compatible).
    func position(of name: String) -> Double {
        guard let layer = TensorName(name).layer, let count = layerCounts[layer.prefix] else { return 0 }
        return count > 1 ? Double(layer.index) / Double(count - 1) : 1
    }
}
