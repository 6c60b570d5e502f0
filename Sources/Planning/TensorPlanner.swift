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

    /// - Returns: the tensors in the order of the demands, and what the user should know about some of them.
    func plan(_ demands: [TensorDemand]) throws -> (tensors: [PlannedTensor], remarks: [String]) {
        var tensors: [PlannedTensor] = []
        var problems = ProblemList(file: recipe.file)
        var incomplete: [String] = []
        for demand in demands {
            do throws(Problems) {
                let found = try find(demand)
                if found.demand.sources.count < demand.sources.count { incomplete.append(demand.name) }
                if let tensor = try plan(found.demand, entries: found.entries) { tensors.append(tensor) }
            } catch {
                problems.add(error.all)
            }
        }
        try problems.throwIfAny()
        guard let first = incomplete.first else { return (tensors, []) }
        let rest = incomplete.count > 1 ? " and \(incomplete.count - 1) more" : ""
        return (tensors, ["not every model has \(first)\(rest): merged from those that do"])
    }

    /// The demand with the sources that are there, and their entries.
    ///
    /// A head that a model ties to its embedding is that embedding; biases and buffers may be missing in some models; anything else may not.
    private func find(_ demand: TensorDemand) throws(Problems) -> (
        demand: TensorDemand, entries: [(file: Int, entry: TensorEntry)]
    ) {
        var sources: [TensorDemand.Source] = []
        var entries: [(file: Int, entry: TensorEntry)] = []
        var lacking: [String] = []
        var base: Int?
        for (index, source) in demand.sources.enumerated() {
            let input = inputs.inputs[source.model]
            guard let (part, entry) = input.checkpoint.tensor(named: source.name) ?? tiedEmbedding(of: input, for: source.name)
            else {
                lacking.append("\(input.reference)")
                continue
            }
            if index == demand.base { base = sources.count }
            sources.append(source)
            entries.append((input.firstFile + part, entry))
        }
        if !lacking.isEmpty {
            let isBaseMissing = demand.base != nil && base == nil && method.inputs.base == .required
            guard !sources.isEmpty, TensorName(demand.name).isOptional, !isBaseMissing else {
                throw problem(
                    demand.name,
                    "missing in \(list(lacking)), present in \(sources.count) of \(demand.sources.count) models",
                    advice: "merge models of one architecture")
            }
        }
        return (
            TensorDemand(name: demand.name, sources: sources, base: base, scopes: demand.scopes, position: demand.position),
            entries
        )
    }

    private func tiedEmbedding(of input: InputSet.Input, for name: String) -> (part: Int, entry: TensorEntry)? {
        guard TensorName(name).isHead else { return nil }
        return input.checkpoint.tensorNames.first { TensorName($0).isTokenEmbedding }.flatMap {
            input.checkpoint.tensor(named: $0)
        }
    }

    private func plan(_ demand: TensorDemand, entries: [(file: Int, entry: TensorEntry)]) throws(Problems) -> PlannedTensor? {
        try checkShapes(of: demand, entries.map(\.entry))
        let types = entries.map(\.entry.dtype)
        let isArithmetic = types.allSatisfy(\.isArithmetic)
        let isCopy = !isArithmetic && Set(types).count == 1
        guard isArithmetic || isCopy else {
            throw problem(
                demand.name, "the models hold it in types that cannot be merged with each other: \(list(types.map(\.rawValue)))")
        }
        let method: any MergeMethod.Type = isCopy ? Identical.self : self.method
        let values = try ParameterResolution(recipe: recipe, method: method, inputs: inputs).values(for: demand)
        let base = method.inputs.givesBaseARole ? demand.base : nil
        let bound: any MergeMethod
        let randomKey: UInt64?
        do throws(TesseraError) {
            randomKey = method.isRandom ? try CounterRandom.key(seed: seed, tensor: demand.name) : nil
            bound = try method.init(values, inputs: TensorInputs(count: entries.count, base: base))
        } catch {
            throw problem(demand.name, error.problem, advice: error.advice)
        }
        let sources = entries.map { SourceReference(file: $0.file, offset: $0.entry.range.lowerBound, dtype: $0.entry.dtype) }
        return PlannedTensor(
            name: demand.name, outputType: isCopy ? types[0] : outputType(of: types), shape: entries[0].entry.shape,
            method: method.name, values: values, base: base, sources: sources, cost: bound.cost(of: entries[0].entry.shape),
            randomKey: randomKey)
    }

    /// `out_dtype`, else `dtype`, else the narrowest type that holds every input's values.
    private func outputType(of types: [DType]) -> DType {
        recipe.outDtype ?? recipe.dtype ?? types.dropFirst().reduce(types[0]) { $0.promoted(with: $1) }
    }

    private func checkShapes(of demand: TensorDemand, _ entries: [TensorEntry]) throws(Problems) {
        guard let other = entries.firstIndex(where: { $0.shape != entries[0].shape }) else { return }
        let names = demand.sources.map { inputs.inputs[$0.model].reference }
        throw problem(
            demand.name, "has shape \(entries[0].shape) in \(names[0]) and \(entries[other].shape) in \(names[other])",
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
