import Checkpoints
import Core
import Recipes
import TaskVectors
import Work

/// Plans a store of task vectors: from headers alone where they say it all, else after a look at the data.
struct StorePlanner: Sendable {
    let recipe: StoreRecipe
    let request: PlanRequest
    let inputs: [PlannedInput]
    let tensors: [StoreTensor]
    /// The store that is extended.
    let extended: ExtendedStore?
    /// Of the analysis stages so far.
    let statistics: [[ExactText: TensorStatistics]]
    /// What is odd about the recipe.
    let warnings: [TesseraError]

    var tasks: [String] { recipe.tasks.map(\.name) }

    /// - Parameter problems: what is already known to be wrong with the recipe.
    static func plan(
        _ recipe: StoreRecipe, request: PlanRequest, after statistics: [[ExactText: TensorStatistics]],
        problems: [TesseraError]
    ) throws -> Plan {
        let opened = try InputSet.open(
            [recipe.baseModel] + recipe.tasks.map(\.model), base: recipe.baseModel, recipeFile: recipe.file, request: request,
            problems: problems)
        let quantized = opened.inputs.compactMap { input in
            input.quantization.map { Quantization.problem(input.reference, $0, recipe.file, line: recipe.baseModel.line) }
        }
        guard quantized.isEmpty else { throw Problems(quantized) }
        var inputs = opened.planned
        let extended = try ExtendedStore(
            recipe, base: opened, locator: ModelLocator(request),
            firstFile: inputs.reduce(0) { $0 + $1.parts.count })
        if let extended { inputs.append(extended.input) }
        let planner = StorePlanner(
            recipe: recipe, request: request, inputs: inputs, tensors: try StoreTensors.find(recipe, in: opened),
            extended: extended, statistics: statistics, warnings: request.located(recipe.warnings))
        return try planner.plan()
    }

    func plan() throws -> Plan {
        switch recipe.kind {
        case .quantize(.plain(let grid)):
            return try write { tensor in
                .quantize(Quantizer(tasks: tasks.map { _ in .dense(tensor.isEncoded ? .grid(grid.format) : .raw(recipe.rest)) }))
            }
        case .quantize(.residual(let base, let offset, let corrects)):
            return try write {
                try residual($0, base: .dense(.grid(base.format)), offset: .dense(.grid(offset.format)), corrects)
            }
        case .quantize(.signs(let isPerAxis)):
            return try isPerAxis
                ? SignPlanner(planner: self).plan()
                : write {
                    $0.isEncoded ? .quantize(Quantizer(tasks: tasks.map { _ in .signs(.tensor) })) : raw($0)
                }
        case .quantize(.budget(let budget, let isResidual)):
            return try BudgetPlanner(planner: self, budget: budget, isResidual: isResidual).plan()
        case .sparsify(let sparsity, let values):
            return try SparsePlanner(planner: self, sparsity: sparsity, values: values).plan()
        }
    }

    /// RTVQ: a new shared vector, or offsets from the one that the extended store has.
    private func residual(
        _ tensor: StoreTensor, base: StorageFormat, offset: StorageFormat, _ corrects: Bool
    ) throws(TesseraError) -> Encoding {
        guard tensor.isEncoded else { return raw(tensor) }
        return .quantize(
            Quantizer(
                shared: base, sharedIsFrozen: extended != nil, correctsErrors: corrects, tasks: tasks.map { _ in offset }))
    }

    /// The tensor as it is.
    func raw(_ tensor: StoreTensor, packLimit: Int? = nil) -> Encoding {
        .quantize(Quantizer(tasks: tasks.map { _ in .dense(.raw(recipe.rest)) }, packLimit: packLimit))
    }

    // MARK: A look at the data

    /// A plan that only looks at the tensors.
    ///
    /// - Parameters:
    ///   - bytes: what the store will take, if that is known.
    ///   - measurement: `nil` for tensors that need no look.
    func analysisStage(
        _ name: String, expecting bytes: Int? = nil, _ measurement: (StoreTensor) throws -> Encoding?
    ) throws -> Plan {
        let work = try tensors.filter(\.isArithmetic).compactMap { tensor in
            try measurement(tensor).map { encoding in
                TensorWork(
                    name: tensor.name, shape: tensor.shape, operation: .encode(encoding),
                    sources: tensor.sources + frozenSource(of: tensor, encoding), outputs: [])
            }
        }
        return try plan(
            work, layout: CheckpointLayout(groups: [], maxPartBytes: request.maxPartBytes), index: nil,
            remarks: ["\(name): the output sizes depend on the data, which a first stage analyses"], expecting: bytes)
    }

    // MARK: The output

    /// The last plan: what is written.
    ///
    /// - Parameters:
    ///   - predicted: for each task, the share of its energy that a budget expects to lose.
    ///   - losses: of each tensor, what a budget predicts.
    func write(
        _ encoding: (StoreTensor) throws -> Encoding, predicted: [Double]? = nil, losses: [ExactText: Double] = [:]
    ) throws -> Plan {
        var encodings: [(tensor: StoreTensor, encoding: Encoding)] = []
        for tensor in tensors { encodings.append((tensor, tensor.isArithmetic ? try encoding(tensor) : .compare)) }
        let (layout, starts) = try layout(of: encodings)
        // The number of the next tensor of each owner.
        var next = starts
        let work = encodings.map { tensor, encoding in
            let outputs = zip(owners(of: encoding), encoding.outputs(shape: tensor.shape)).flatMap { owner, parts in
                parts.map { part in
                    defer { next[owner] += 1 }
                    return layout.output(part, number: next[owner])
                }
            }
            return TensorWork(
                name: tensor.name, shape: tensor.shape, operation: .encode(encoding),
                sources: tensor.sources + frozenSource(of: tensor, encoding), outputs: outputs)
        }
        let index = StoreIndexWriter(
            recipe: recipe, inputs: inputs, tensors: tensors, encodings: encodings.map(\.encoding), files: filesByOwner(layout),
            extended: extended?.store.index, predicted: predicted, losses: losses,
            seed: request.seed, masks: recipe.masks)
        return try plan(work, layout: layout, index: index, remarks: [])
    }

    /// The base with the extended store's shared vector, which offsets are taken from.
    private func frozenSource(of tensor: StoreTensor, _ encoding: Encoding) -> [SourceReference] {
        let isFrozen =
            switch encoding {
            case .quantize(let quantizer): quantizer.sharedIsFrozen
            case .measureGrids(let measurement): measurement.sharedIsFrozen
            default: false
            }
        return [isFrozen ? extended?.sharedSource(of: tensor) : nil].compactMap(\.self)
    }

    static let sharedName = "shared"

    /// Whose files the formats of an encoding go to: 0 is the shared vector, the tasks follow.
    private func owners(of encoding: Encoding) -> Range<Int> {
        (encoding.formats.count > tasks.count ? 0 : 1)..<1 + tasks.count
    }

    /// - Returns: the layout, and the number of each owner's first tensor in it.
    private func layout(
        of encodings: [(tensor: StoreTensor, encoding: Encoding)]
    ) throws -> (layout: CheckpointLayout, starts: [Int]) {
        var groups = ([Self.sharedName] + tasks).map { (name: $0, tensors: [[NewTensor]]()) }
        for (tensor, encoding) in encodings {
            for (owner, parts) in zip(owners(of: encoding), encoding.outputs(shape: tensor.shape)) {
                groups[owner].tensors.append(parts.map { NewTensor($0, of: tensor.name) })
            }
        }
        var starts: [Int] = [], count = 0
        for group in groups {
            starts.append(count)
            count += group.tensors.reduce(0) { $0 + $1.count }
        }
        // Without tensors there is no shared vector. A task has its file in any case, unless its vectors are packed; and the
        // first task then, too: an output has a part.
        let packs = encodings.contains {
            if case .quantize(let quantizer) = $0.encoding { quantizer.packLimit != nil } else { false }
        }
        let kept = groups.enumerated().filter { number, group in
            group.tensors.contains { !$0.isEmpty } || number == 1 || number > 1 && !packs
        }
        return (try CheckpointLayout(groups: kept.map(\.element), maxPartBytes: request.maxPartBytes), starts)
    }

    private func filesByOwner(_ layout: CheckpointLayout) -> [String: [String]] {
        Dictionary(grouping: zip(layout.groups, layout.parts), by: \.0).mapValues { $0.map(\.1.fileName) }
    }

    /// - Parameter index: `nil` for an analysis stage.
    private func plan(
        _ work: [TensorWork], layout: CheckpointLayout, index: StoreIndexWriter?, remarks: [String], expecting bytes: Int? = nil
    ) throws -> Plan {
        var sidecars: [SidecarFile] = []
        if index != nil {
            sidecars = [
                SidecarFile(name: "recipe.yml", bytes: Array(recipe.text.utf8)),
                SidecarFile(
                    name: "README.md",
                    bytes: Array(StoreCard(recipe: recipe, earlier: extended?.store.index.tasks ?? []).text.utf8)),
            ]
            sidecars += extended?.packedFiles ?? []
        }
        return try Plan(
            recipeText: recipe.text, recipeName: recipe.file, method: recipe.title, inputs: inputs, layout: layout,
            stages: [ShardCutter(targetBytes: request.shardBytes).cut(work)], sidecars: sidecars,
            remarks: remarks, warnings: warnings, reused: index == nil ? [] : extended?.reused ?? [],
            derived: index.map { $0.derivedFiles } ?? [], hasMoreStages: index == nil, base: "\(recipe.baseModel.value)",
            expectedBytes: bytes)
    }
}

extension StoreRecipe.Grid {
    var format: TaskVectors.Grid {
        let granularity: TaskVectors.Grid.Granularity =
            switch group {
            case .tensor: .tensor
            case .row: .row
            case .group(let length): .group(length)
            }
        return TaskVectors.Grid(bits: bits, granularity: granularity)
    }

    /// In words, such as `3 bits in groups of 128`.
    var title: String {
        let bits = "\(bits) \(bits == 1 ? "bit" : "bits")"
        return switch group {
        case .tensor: "\(bits) a tensor"
        case .row: "\(bits) a row"
        case .group(let length): "\(bits) in groups of \(length)"
        }
    }
}

extension StoreRecipe {
    /// What it does, in a few words.
    var title: String {
        switch kind {
        case .quantize(.plain(let grid)): "tvq, \(grid.title)"
        case .quantize(.residual(let base, let offset, let corrects)):
            "rtvq, base \(base.title), offsets \(offset.title)\(corrects ? "" : ", no error correction")"
        case .quantize(.signs(let isPerAxis)): isPerAxis ? "axis_sign" : "bitdelta"
        case .quantize(.budget(let budget, let isResidual)): "\(isResidual ? "rtvq" : "tvq"), \(budget.title)"
        case .sparsify(let sparsity, let values): sparsity.title + (values.grid.map { ", values in \($0.title)" } ?? "")
        }
    }
}

extension StoreRecipe {
    /// Whose masks thinned vectors have.
    var masks: ThinnedGrid.Masks {
        if case .quantize(.budget(let budget, _)) = kind, budget.hasCommonMasks { .common } else { .own }
    }
}

extension StoreRecipe.Budget {
    var title: String {
        switch amount {
        case .bits(let bits): "\(bits) bits per parameter"
        case .share(let share): "\(share * 100) % of the fine-tunes"
        }
    }
}

extension StoreRecipe.Sparsity {
    var title: String {
        switch self {
        case .magnitude(let density, let isModelWide):
            "magnitude, density \(density) of \(isModelWide ? "the model" : "each tensor")"
        case .random(let density): "dare, density \(density)"
        case .blocks(let n, let m, _, let isDisjoint): "\(isDisjoint ? "cabs" : "n:m") \(n):\(m)"
        case .tall(let lambdas):
            "tall masks, lambda \(Set(lambdas).count == 1 ? "\(lambdas[0])" : lambdas.map { "\($0)" }.joined(separator: ", "))"
        case .emr: "emr"
        }
    }
}

/// `README.md` of a store.
struct StoreCard {
    let recipe: StoreRecipe
    /// Those of the store that was extended.
    let earlier: [StoreIndex.Task]

    var text: String {
        let tasks =
            earlier.map { "- `\($0.name)`: \($0.model.inlineCode), \($0.scheme.words)" }
            + recipe.tasks.map { "- `\($0.name)`: \($0.model.value.description.inlineCode), \(recipe.title)" }
        return """
            ---
            tags:
            - task-vectors
            - tessera
            ---
            # Task vectors of \(tasks.count) \(tasks.count == 1 ? "fine-tune" : "fine-tunes")

            Differences from the base \(recipe.baseModel.value.description.inlineCode), stored by Tessera:

            \(tasks.joined(separator: "\n"))

            `STORE#TASK` is a model in a merge recipe of Tessera. `\(StoreIndex.fileName)` says what the safetensors files hold;
            `tessera inspect` shows it, and `tessera verify` checks every byte.

            ```yaml
            \(recipe.text.hasSuffix("\n") ? String(recipe.text.dropLast()) : recipe.text)
            ```

            """
    }
}
