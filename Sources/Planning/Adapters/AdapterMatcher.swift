import Checkpoints
import Core
import LinearAlgebra
import Operators
import Recipes
import Work

/// Finds what each tensor of an adapter does to which tensor of its model, and checks that the shapes fit.
struct AdapterMatcher {
    let config: AdapterConfig
    let model: Checkpoint
    let tensors: [TensorEntry]
    /// The adapter's file, for messages.
    let file: String

    let tied: TiedHead?
    let names: WrappedNames
    let ownNames: WrappedNames
    /// What the model's tensors are in memory, where transformers gives them other names or another form there.
    let loaded: (tensors: LoadedTensors, names: WrappedNames)?
    /// Whether the adapter trains copies of embedding or head, so that they part.
    private(set) var partsTiedHead = false
    private(set) var headChanges: [AdapterChange] = []
    /// How many modules show by their shapes that the model stores matrices as `[out, in]`, and how many that it transposes them.
    private var shown = (plain: 0, transposed: 0)

    private(set) var changes: [ExactText: [AdapterChange]] = [:]
    private(set) var untiedHead: Adapter.UntiedHead?

    /// - Throws: what `Effort.spend()` throws.
    init(config: AdapterConfig, model: Checkpoint, tensors: [TensorEntry], file: String) throws(TesseraError) {
        self.config = config
        self.model = model
        self.tensors = tensors
        self.file = file
        tied = TiedHead(model)
        let names = WrappedNames(model.tensorNames)
        self.names = names
        let modules = tensors.compactMap { AdapterKey($0.name)?.place.module }
        let ownNames = WrappedNames(modules.map { "\($0).weight" })
        self.ownNames = ownNames
        let rules = model.config.flatMap { LoadingRules.transformers.rules(for: $0) }
        let tensors = try rules.map { rules throws(TesseraError) in try LoadedTensors(model.tensorNames, rules) }
        let loaded = tensors.map { ($0, WrappedNames($0.names)) }
        // An adapter of an earlier version of transformers has the checkpoint's names.
        func count(in names: WrappedNames) -> Int {
            Set(modules).count { names.closestName(for: "\($0).weight", of: ownNames) != nil }
        }
        self.loaded = loaded.flatMap { count(in: $0.1) >= count(in: names) ? $0 : nil }
    }

    /// What belongs to one module.
    struct Group {
        let place: AdapterKey.Place
        private(set) var entries: [AdapterKey.Role: TensorEntry] = [:]

        init(at place: AdapterKey.Place) { self.place = place }

        var isEmbedding: Bool { entries[.embeddingA] != nil }
        var a: TensorEntry? { entries[.a] ?? entries[.embeddingA] }
        var b: TensorEntry? { entries[.b] ?? entries[.embeddingB] }

        /// - Returns: whether the place was free.
        mutating func add(_ entry: TensorEntry, as role: AdapterKey.Role) -> Bool {
            entries.updateValue(entry, forKey: role) == nil
        }
    }

    /// The two factors of a module.
    struct Factors {
        let a: TensorEntry
        let b: TensorEntry

        /// Elements of `a` for each rank, and of `b`.
        var inputs: [Int] { Array(a.shape.dropFirst()) }
        var outputs: Int { b.shape[0] }
        /// Over all experts.
        var rank: Int { a.shape[0] }
    }

    // MARK: All tensors

    mutating func match() throws(TesseraError) {
        var groups: [Group] = [], positions: [AdapterKey.Place: Int] = [:]
        var wholes: [(module: String, leaf: String, entry: TensorEntry)] = []
        for entry in tensors where !AdapterKey.isCopy(entry.name) {
            guard let key = AdapterKey(entry.name) else {
                throw problem(
                    "is no part of an adapter that can be folded", entry,
                    advice: "merge the adapter into its model with PEFT first")
            }
            if case .whole(let leaf) = key.role {
                wholes.append((key.place.module, leaf, entry))
                continue
            }
            let position = positions[key.place] ?? groups.count
            if position == groups.count {
                positions[key.place] = position
                groups.append(Group(at: key.place))
            }
            guard groups[position].add(entry, as: key.role) else { throw problem("is in the adapter twice", entry) }
        }
        partsTiedHead =
            !config.keepsTies
            && wholes.contains { module, leaf, _ in
                config.isSaved(module) && (isTiedHead(module, leaf) || tied.map { target(module, leaf) == $0.embedding } ?? false)
            }
        try replace(wholes)
        var experts: [(factors: Factors, group: Group)] = []
        countShownLayouts(groups)
        for group in groups {
            let factors = try factors(of: group)
            if let factors, try !fold(factors, of: group) { experts.append((factors, group)) }
            if let rows = group.entries[.rows] { try replaceRows(rows, of: group) }
        }
        try foldExperts(experts)
        try untieHead()
    }

    private mutating func replace(_ wholes: [(module: String, leaf: String, entry: TensorEntry)]) throws(TesseraError) {
        // A tied head that was saved with its embedding, as happens when tokens were added, is the same matrix.
        let replacesEmbedding = wholes.contains { module, leaf, _ in
            tied.map { target(module, leaf) == $0.embedding } ?? false
        }
        for (module, leaf, entry) in wholes {
            if isTiedHead(module, leaf), !partsTiedHead, replacesEmbedding { continue }
            let owner = try owner(module, leaf, of: entry)
            let name = "\(module).\(leaf)", shape = shape(of: owner)
            let fits = TensorName(name).hasVocabularyAxis ? entry.shape.dropFirst() == shape.dropFirst() : entry.shape == shape
            guard fits, entry.shape.count == shape.count else {
                throw problem("has shape \(entry.shape), the model's \(shape)", entry, advice: Self.otherModel)
            }
            try add(.replaced(entry), to: owner, for: entry)
        }
    }

    private mutating func replaceRows(_ entry: TensorEntry, of group: Group) throws(TesseraError) {
        let module = group.place.module, owner = try owner(module, "weight", of: entry), shape = shape(of: owner)
        guard let indices = config.tokenIndices(of: module), entry.shape.first == indices.count else {
            throw problem(
                "\(AdapterConfig.fileName) does not say which \(entry.shape.first ?? 0) tokens these rows are", entry,
                advice: "'trainable_token_indices' lists them")
        }
        guard entry.shape.count == shape.count, entry.shape.count > 1, entry.shape.dropFirst() == shape.dropFirst() else {
            throw problem(
                "has rows of shape \(entry.shape.dropFirst()), the model's tensor is \(shape)", entry, advice: Self.otherModel)
        }
        if let last = indices.max(), last >= shape[0] {
            throw problem(
                "is about token \(last); the model has \(shape[0]) rows", entry,
                advice: "resize the model's embeddings as they were when the adapter was trained, and name the result")
        }
        try add(.rows(entry, indices: indices), to: owner, for: entry)
    }

    /// Adds a change to a tensor of the model, or to what is several of them.
    private mutating func add(_ change: AdapterChange, to owner: Owner, for entry: TensorEntry) throws(TesseraError) {
        guard case .tensors(let tensors) = owner else {
            headChanges.append(change)
            return
        }
        for tensor in tensors {
            guard let own = tensor.changeRows.map({ change.rows($0) }) ?? change else {
                throw problem(
                    "changes what transformers stacks of \(tensors.map { "'\($0.name)'" }.joined(separator: ", ")) when it loads "
                        + "the model, and cannot be divided among them", entry, advice: Self.mergeFirst)
            }
            add(own, to: tensor.name, rows: tensor.rows)
        }
    }

    /// Adds a change to a tensor of the model.
    mutating func add(_ change: AdapterChange, to name: String, rows: Range<Int>? = nil) {
        var list = changes[ExactText(name)] ?? []
        if let rows, case .part(rows, let changes)? = list.last {
            list[list.count - 1] = .part(rows, changes + [change])
        } else {
            list.append(rows.map { .part($0, [change]) } ?? change)
        }
        changes[ExactText(name)] = list
    }

    // MARK: Factors

    /// - Returns: `nil` for a module without factors.
    private func factors(of group: Group) throws(TesseraError) -> Factors? {
        guard let first = group.a ?? group.b ?? group.entries[.magnitudes] ?? group.entries[.bias] else { return nil }
        if let empty = [group.a, group.b].compactMap(\.self).first(where: { $0.elementCount == 0 }) {
            throw problem(
                "has no elements: it was saved before its parts were gathered", empty,
                advice: "save the adapter again, with the parameters gathered (DeepSpeed ZeRO-3, FSDP)")
        }
        guard let a = group.a, let b = group.b, a.shape.count > 1, b.shape.count > 1, a.shape[0] > 0,
            b.shape.dropFirst().reduce(1, *) == a.shape[0]
        else { throw problem("has no second factor with the same rank", first) }
        return Factors(a: a, b: b)
    }

    /// Whether the factors fit a matrix `[out, in]`, a convolution `[out, in, …]`, or a transposed matrix.
    private static func fits(_ factors: Factors, _ shape: [Int]) -> (plain: Bool, transposed: Bool) {
        (shape == [factors.outputs] + factors.inputs, shape == factors.inputs + [factors.outputs] && shape.count == 2)
    }

    private mutating func countShownLayouts(_ groups: [Group]) {
        for group in groups where !group.isEmbedding {
            guard let factors = try? factors(of: group), let owner = owner(group.place.module, "weight") else { continue }
            let fits = Self.fits(factors, shape(of: owner))
            if fits.plain, !fits.transposed { shown.plain += 1 }
            if fits.transposed, !fits.plain { shown.transposed += 1 }
        }
    }

    /// Whether a square matrix is stored transposed: as the adapter's other modules, or as the config says if they differ or do
    /// not show it.
    private var transposesSquares: Bool {
        if (shown.plain > 0) != (shown.transposed > 0) { return shown.transposed > 0 }
        return config.isTransposed
    }

    /// - Returns: false for a module whose weight is not one tensor of the model.
    private mutating func fold(_ factors: Factors, of group: Group) throws(TesseraError) -> Bool {
        let module = group.place.module
        guard let owner = owner(module, "weight") ?? owner(module, "in_proj_weight") else { return false }
        let shape = shape(of: owner), fits = Self.fits(factors, shape)
        guard group.isEmbedding ? fits.transposed : fits.plain || fits.transposed else {
            throw problem(
                "factors of shapes \(factors.a.shape) and \(factors.b.shape) do not fit the model's tensor of shape \(shape)",
                factors.a, advice: Self.otherModel)
        }
        let isTransposed = group.isEmbedding || !fits.plain || fits.transposed && transposesSquares && !owner.isStacked
        let scale = try config.scale(of: module, rank: factors.rank)
        if let initial = config.initialPart {
            let isLinear = !group.isEmbedding && target(module, "in_proj_weight") == nil && !owner.isStacked
            // PEFT takes OLoRA's part from the matrix as it is stored.
            let fitsPart = initial.part == .principal || !isTransposed || shape.first == shape.last
            guard isLinear, fitsPart, ResidualMatrix.holds(factors.rank, shape) else { throw uninitialised(initial, factors.a) }
            let library = try LinearAlgebra.identity()
            try add(
                .reduced(ResidualReference(part: initial.part, rank: factors.rank, scale: scale, linearAlgebra: library)),
                to: owner, for: factors.a)
        }
        try add(
            .lowRank(
                a: factors.a, b: factors.b, rank: factors.rank, scale: scale, isTransposed: isTransposed, experts: nil),
            to: owner, for: factors.a)
        if let magnitudes = group.entries[.magnitudes] {
            let vectors = isTransposed ? shape.dropFirst().reduce(1, *) : shape[0]
            guard magnitudes.elementCount == vectors else {
                throw problem(
                    "has \(magnitudes.elementCount) magnitudes for \(vectors) outputs", magnitudes, advice: Self.otherModel)
            }
            try add(.rescaled(magnitudes, axis: isTransposed ? .columns : .rows), to: owner, for: magnitudes)
        } else if config.usesDoRA {
            throw problem(
                "has no magnitudes ('lora_magnitude_vector'), which a DoRA adapter has", factors.a,
                advice: "save the adapter with PEFT's save_pretrained() again")
        }
        if let bias = group.entries[.bias] {
            let owner = try self.owner(module, "bias", of: bias), shape = self.shape(of: owner)
            guard bias.shape == shape else {
                throw problem("has shape \(bias.shape), the model's bias \(shape)", bias, advice: Self.otherModel)
            }
            try add(.lowRank(a: nil, b: bias, rank: 1, scale: scale, isTransposed: false, experts: nil), to: owner, for: bias)
        }
        return true
    }

    /// A complaint about factors that PEFT does not begin with a part of their matrix.
    func uninitialised(_ initial: InitialPart, _ entry: TensorEntry) -> TesseraError {
        problem(
            "is part of \(initial.name == "PiSSA" ? "a" : "an") \(initial.name) adapter, whose first factors PEFT takes from "
                + "linear layers with at least so many rows and columns as the rank", entry,
            advice: "name the model whose weights were changed before the '+', and set 'init_lora_weights' to true")
    }

    // MARK: Heads and rows

    private mutating func untieHead() throws(TesseraError) {
        guard let tied, partsTiedHead else { return }
        guard let name = tied.name else {
            throw problem(
                "trains the embedding '\(tied.embedding)', to which the model ties a head whose name is not known", nil,
                advice: "merge the adapter into its model with PEFT first")
        }
        untiedHead = Adapter.UntiedHead(name: name, embedding: tied.embedding, changes: headChanges)
    }

    /// The number of rows of embedding and head, if the adapter changes it.
    ///
    /// - Throws: `badData` where they would differ.
    func rowCount() throws(TesseraError) -> Int? {
        var rows: [String: Int] = [:]
        for name in model.tensorNames where TensorName(name).isTokenEmbedding || TensorName(name).isHead {
            rows[name] = shape(of: Owner(name)).first
        }
        if let tied, let untiedHead { rows[untiedHead.name] = shape(of: .head(tied)).first }
        guard rows.contains(where: { $1 != modelShape($0).first && $0 != untiedHead?.name }) else { return nil }
        guard Set(rows.values).count == 1, let count = rows.values.first else {
            let counts = rows.sorted { $0.key.precedesInBytes($1.key) }.map { "\($0.key) \($0.value) rows" }
            throw problem(
                "gives \(counts.joined(separator: " and "))", nil,
                advice: "train or save embedding and head together: 'modules_to_save': ['embed_tokens', 'lm_head']")
        }
        return count
    }

    func problem(_ problem: String, _ tensor: TensorEntry?, advice: String? = nil) -> TesseraError {
        TesseraError(.badData, problem, file: file, tensor: tensor?.name, advice: advice)
    }
}
