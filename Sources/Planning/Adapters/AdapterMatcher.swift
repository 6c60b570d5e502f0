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

    private let tied: TiedHead?
    private let names: WrappedNames
    private let ownNames: WrappedNames
    /// Whether the adapter trains copies of embedding or head, so that they part.
    private var partsTiedHead = false
    private var headChanges: [AdapterChange] = []
    /// How many modules show by their shapes that the model stores matrices as `[out, in]`, and how many that it transposes them.
    private var shown = (plain: 0, transposed: 0)

    private(set) var changes: [ExactText: [AdapterChange]] = [:]
    private(set) var untiedHead: Adapter.UntiedHead?

    init(config: AdapterConfig, model: Checkpoint, tensors: [TensorEntry], file: String) {
        self.config = config
        self.model = model
        self.tensors = tensors
        self.file = file
        tied = TiedHead(model)
        names = WrappedNames(model.tensorNames)
        ownNames = WrappedNames(tensors.compactMap { AdapterKey($0.name).map { "\($0.place.module).weight" } })
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
            add(.replaced(entry), to: owner)
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
        add(.rows(entry, indices: indices), to: owner)
    }

    // MARK: Owners

    /// What a change is made to.
    private enum Owner {
        case tensor(String)
        /// A head that the model does not have by itself.
        case head(TiedHead)
    }

    /// The name of the model's tensor.
    func target(_ module: String, _ leaf: String) -> String? {
        if let name = names.closestName(for: "\(module).\(leaf)", of: ownNames) { return name }
        // In a masked language model, the decoder's bias is that of the head around it.
        let decoder = ".decoder"
        guard leaf == "bias", module.hasSuffix(decoder) else { return nil }
        return names.closestName(for: "\(module.dropLast(decoder.count)).bias", of: ownNames)
    }

    private func isTiedHead(_ module: String, _ leaf: String) -> Bool {
        tied != nil && TensorName("\(module).\(leaf)").isHead && target(module, leaf) == nil
    }

    private func owner(_ module: String, _ leaf: String) -> Owner? {
        if let name = target(module, leaf) { return .tensor(name) }
        guard let tied, isTiedHead(module, leaf) else { return nil }
        return partsTiedHead ? .head(tied) : .tensor(tied.embedding)
    }

    private func owner(_ module: String, _ leaf: String, of entry: TensorEntry) throws(TesseraError) -> Owner {
        guard let owner = owner(module, leaf) else {
            throw missing("\(module).\(leaf)", for: entry)
        }
        return owner
    }

    private func shape(of owner: Owner) -> [Int] {
        switch owner {
        case .tensor(let name): Self.shape(after: changes[ExactText(name)] ?? [], of: modelShape(name))
        case .head(let tied): Self.shape(after: headChanges, of: modelShape(tied.embedding))
        }
    }

    private func modelShape(_ name: String) -> [Int] { model.tensor(named: name)?.entry.shape ?? [] }

    private static func shape(after changes: [AdapterChange], of shape: [Int]) -> [Int] {
        changes.reduce(shape) { if case .replaced(let entry) = $1 { entry.shape } else { $0 } }
    }

    private mutating func add(_ change: AdapterChange, to owner: Owner) {
        switch owner {
        case .tensor(let name): changes[ExactText(name), default: []].append(change)
        case .head: headChanges.append(change)
        }
    }

    /// Adds a change to a tensor of the model.
    mutating func add(_ change: AdapterChange, to name: String) { add(change, to: .tensor(name)) }

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
        let isTransposed = group.isEmbedding || !fits.plain || fits.transposed && transposesSquares
        let scale = config.scale(of: module, rank: factors.rank)
        if let initial = config.initialPart {
            let isLinear = !group.isEmbedding && target(module, "in_proj_weight") == nil
            // PEFT takes OLoRA's part from the matrix as it is stored.
            let fitsPart = initial.part == .principal || !isTransposed || shape.first == shape.last
            guard isLinear, fitsPart, ResidualMatrix.holds(factors.rank, shape) else { throw uninitialised(initial, factors.a) }
            let library = try LinearAlgebra.identity()
            add(
                .reduced(
                    ResidualReference(part: initial.part, rank: factors.rank, scale: scale, linearAlgebra: library)),
                to: owner)
        }
        add(
            .lowRank(
                a: factors.a, b: factors.b, rank: factors.rank, scale: scale, isTransposed: isTransposed, experts: nil),
            to: owner)
        if let magnitudes = group.entries[.magnitudes] {
            let vectors = isTransposed ? shape.dropFirst().reduce(1, *) : shape[0]
            guard magnitudes.elementCount == vectors else {
                throw problem(
                    "has \(magnitudes.elementCount) magnitudes for \(vectors) outputs", magnitudes, advice: Self.otherModel)
            }
            add(.rescaled(magnitudes, axis: isTransposed ? .columns : .rows), to: owner)
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
            add(.lowRank(a: nil, b: bias, rank: 1, scale: scale, isTransposed: false, experts: nil), to: owner)
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
            rows[name] = shape(of: .tensor(name)).first
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

    func missing(_ name: String, for entry: TensorEntry) -> TesseraError {
        problem(
            "the model has no tensor '\(name)' for it", entry,
            advice: "\(Self.otherModel); transformers renames the modules of some architectures when it loads them: merge such "
                + "an adapter into its model with PEFT's merge_and_unload(), and name the result")
    }

    static let otherModel = "check that the adapter belongs to this model"
}
