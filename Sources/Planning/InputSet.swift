import Checkpoints
import Core
import Recipes
import TaskVectors
import Work

/// The models of a recipe, opened once each, in the order of the recipe; a base that is named only as base comes last.
struct InputSet {
    struct Input {
        let reference: ModelReference
        let checkpoint: Checkpoint
        let adapter: Adapter?
        /// For a fine-tune in a store, what makes it of the checkpoint, which is the store's base.
        let task: StoredTask?
        /// Every file that it is made of: the checkpoint's parts, then the adapter's or the store's.
        let files: [PlannedFile]
        /// The number of its first file when the files of all inputs are counted in order.
        let firstFile: Int
        /// Whether any of the checkpoint's tensors may hold scaled float8 numbers.
        let holdsFloat8: Bool
        /// What the recipe's models call the tensors.
        private(set) var names: InputNames
        private(set) var layers: LayerStacks
        /// Experts that the primary model stores in another form, by its names.
        private(set) var experts: [ExactText: ExpertTensor] = [:]

        /// What the hub calls it, if it lies in the hub's cache.
        var repository: String? {
            let cached = "/models--\(reference.path.split(separator: "/").joined(separator: "--"))/snapshots/"
            return checkpoint.directory.contains(cached) ? reference.path : nil
        }

        /// Where its tokenizer lies.
        var tokenizerDirectory: String {
            adapter.flatMap { $0.hasTokenizer ? $0.directory : nil } ?? checkpoint.directory
        }

        /// The names of all tensors, in byte order.
        var tensorNames: [String] { names.all }

        func has(_ name: String) -> Bool {
            if experts[ExactText(name)] != nil { return true }
            let own = names.own(name)
            return checkpoint.tensor(named: own) != nil || own == adapter?.untiedHead?.name
        }

        /// The tensor as this model has it, its adapter folded in; `nil` when there is none of that name.
        func tensor(named name: String) -> InputTensor? {
            experts.isEmpty ? stored(name) : experts[ExactText(name)].map { $0.tensor(stored) } ?? stored(name)
        }

        private func stored(_ name: String) -> InputTensor? {
            let own = names.own(name)
            let head = adapter?.untiedHead.flatMap { $0.name == own ? $0 : nil }
            guard let (part, entry) = checkpoint.tensor(named: head?.embedding ?? own) else { return nil }
            let stored = SourceReference.stored(StoredReference(entry, inFile: firstFile + part))
            var tensor = InputTensor(source: stored, shape: entry.shape, dtype: entry.dtype)
            let addedFile = firstFile + checkpoint.parts.count
            if let vector = task?.vector(of: own, firstFile: addedFile) { tensor.source = .packed(base: stored, vector) }
            for change in head?.changes ?? adapter?.changes[ExactText(own)] ?? [] {
                tensor = change.applied(to: tensor, file: addedFile)
            }
            return tensor
        }

        /// Whether the source is a tensor of the checkpoint itself, which no adapter and no task vector changes.
        func hasStored(_ source: SourceReference) -> Bool {
            guard case .stored(let stored) = source else { return false }
            return stored.file < firstFile + checkpoint.parts.count
        }

        /// Takes names that differ from its own.
        mutating func rename(_ names: InputNames) {
            self.names = names
            layers = LayerStacks(names: names.all)
        }

        /// Its tensors, by the names that the models share.
        var expertModel: ExpertForms.Model { ExpertForms.Model(names: tensorNames, tensor: stored) }

        /// Shows its experts in the form of another model.
        mutating func convert(_ conversion: ExpertForms.Conversion) {
            experts = conversion.tensors
            rename(names.replacing(conversion.taken, with: conversion.tensors.keys))
        }
    }

    /// A file of an input, pinned, and where it lies relative to a root.
    struct PlannedFile {
        let part: ManifestInput.Part
        let version: String
        let path: String
    }

    let inputs: [Input]
    /// The recipe's base.
    let base: Int?
    /// Models that only lend their tokenizer.
    let tokenizerModels: [(reference: ModelReference, checkpoint: Checkpoint)]
    /// What the user should know about how the models are read.
    let remarks: [String]
    private let indices: [ModelReference: Int]

    func index(of reference: ModelReference) -> Int? { indices[reference] }

    var planned: [PlannedInput] {
        inputs.map { input in
            PlannedInput(
                reference: input.reference.description, parts: input.files.map(\.part), versions: input.files.map(\.version),
                paths: input.files.map(\.path))
        }
    }

    /// The number of files of all inputs.
    var fileCount: Int { inputs.last.map { $0.firstFile + $0.files.count } ?? 0 }

    /// The model whose config and tokenizer the output gets: the base, else the first.
    var primary: Input { inputs[base ?? 0] }

    /// - Parameter problems: what is already known to be wrong with the recipe.
    /// - Throws: `Problems` with these and every model that cannot be opened.
    static func open(_ recipe: Recipe, request: PlanRequest, problems: [TesseraError] = []) throws -> InputSet {
        try open(
            models(of: recipe), base: recipe.baseModel, tokenizerModels: recipe.tokenizer?.models ?? [], recipeFile: recipe.file,
            request: request, problems: problems)
    }

    /// What is wrong with the models of a recipe that cannot be planned anyway.
    static func problems(_ recipe: Recipe, request: PlanRequest) -> [TesseraError] {
        problems(
            models(of: recipe), base: recipe.baseModel, tokenizerModels: recipe.tokenizer?.models ?? [], recipeFile: recipe.file,
            request: request)
    }

    static func problems(
        _ models: [Located<ModelReference>], base: Located<ModelReference>?, tokenizerModels: [Located<ModelReference>] = [],
        recipeFile: String?, request: PlanRequest
    ) -> [TesseraError] {
        openEach(models, base: base, tokenizerModels: tokenizerModels, recipeFile: recipeFile, request: request).problems
    }

    /// Every model that the recipe names, at each place that names it.
    static func models(of recipe: Recipe) -> [Located<ModelReference>] {
        let sources = recipe.modules.flatMap(\.body.sources).map(\.model)
        let sliceBases = recipe.modules.flatMap { module -> [Located<ModelReference>] in
            guard case .slices(let slices) = module.body else { return [] }
            return slices.compactMap(\.baseModel)
        }
        return sources + sliceBases + [recipe.baseModel].compactMap(\.self)
    }

    /// The models that can be opened, and what is wrong with the others.
    private struct Opened {
        var inputs: [Input] = []
        var indices: [ModelReference: Int] = [:]
        var tokenizerModels: [(reference: ModelReference, checkpoint: Checkpoint)] = []
        var problems: [TesseraError] = []
    }

    private static func openEach(
        _ models: [Located<ModelReference>], base: Located<ModelReference>?, tokenizerModels: [Located<ModelReference>],
        recipeFile: String?, request: PlanRequest
    ) -> Opened {
        let locator = ModelLocator(request), checkpoints = checkpoints(of: models, locator)
        var opened = Opened(), files = 0
        var stores: [ModelReference.Source: TaskVectorStore] = [:], seen: Set<ModelReference> = []
        for named in models where seen.insert(named.value).inserted {
            do throws(TesseraError) {
                let input = try open(
                    named.value, base: base?.value, locator: locator, checkpoints: checkpoints, firstFile: files, stores: &stores)
                opened.indices[named.value] = opened.inputs.count
                opened.inputs.append(input)
                files += input.files.count
            } catch {
                opened.problems.append(blame(named, for: error, in: recipeFile))
            }
        }
        for named in tokenizerModels where seen.insert(named.value).inserted {
            do throws(TesseraError) {
                let checkpoint = try Checkpoint.open(try locator.locate(named.value.model), in: request.files)
                opened.tokenizerModels.append((named.value, checkpoint))
            } catch {
                opened.problems.append(blame(named, for: error, in: recipeFile))
            }
        }
        return opened
    }

    /// - Parameters:
    ///   - models: in order; one that is named again is the same.
    ///   - tokenizerModels: that only lend their tokenizer.
    static func open(
        _ models: [Located<ModelReference>], base: Located<ModelReference>?, tokenizerModels: [Located<ModelReference>] = [],
        recipeFile: String?, request: PlanRequest, problems: [TesseraError] = []
    ) throws -> InputSet {
        let opened = openEach(
            models, base: base, tokenizerModels: tokenizerModels, recipeFile: recipeFile, request: request)
        guard problems.isEmpty, opened.problems.isEmpty else { throw Problems(problems + opened.problems) }
        var inputs = opened.inputs
        let indices = opened.indices
        try checkSize(of: inputs, in: recipeFile)
        let shared = InputNames.shared(inputs.map(\.names), primary: base.flatMap { indices[$0.value] } ?? 0)
        for (index, names) in shared { inputs[index].rename(names) }
        let primary = base.flatMap { indices[$0.value] } ?? 0
        let stale = inputs.filter(\.checkpoint.hasStaleIndex).map { input in
            "'\(input.reference)' has a \(Checkpoint.indexName) of parts that are not there; \(Checkpoint.singlePartName) is read"
        }
        let remarks = stale + shareExpertForms(&inputs, primary: primary)
        return InputSet(
            inputs: inputs, base: base.flatMap { indices[$0.value] }, tokenizerModels: opened.tokenizerModels, remarks: remarks,
            indices: indices)
    }

    /// Gives all models the primary's form of experts.
    ///
    /// - Returns: which of them had another.
    private static func shareExpertForms(_ inputs: inout [Input], primary: Int) -> [String] {
        guard inputs.count > 1 else { return [] }
        let forms = ExpertForms(primary: inputs[primary].expertModel)
        return inputs.indices.filter { $0 != primary }.compactMap { index in
            let conversion = forms.conversion(of: inputs[index].expertModel)
            guard !conversion.tensors.isEmpty else { return nil }
            inputs[index].convert(conversion)
            return "'\(inputs[index].reference)' stores its experts otherwise than '\(inputs[primary].reference)'; "
                + "they are read in the form of the latter"
        }
    }

    /// - Throws: `Problems` when sums over all inputs could overflow.
    private static func checkSize(of inputs: [Input], in recipeFile: String?) throws(Problems) {
        var byteCount = 0
        for file in inputs.lazy.flatMap(\.files) {
            byteCount += file.part.size
            guard byteCount > SizeLimit.total else { continue }
            throw Problems([
                TesseraError(.badData, "the inputs have more than \(SizeLimit.total) bytes in total", file: recipeFile)
            ])
        }
    }

    /// A model that is not where the recipe says is a mistake of that line; what is wrong inside a file stays a matter of that
    /// file.
    private static func blame(
        _ named: Located<ModelReference>, for error: TesseraError, in recipeFile: String?
    ) -> TesseraError {
        let isWrittenSo = [named.value.model, named.value.adapter].contains { $0?.path == error.file }
        guard [.inputMissing, .notAllowed].contains(error.code) || isWrittenSo else { return error }
        var blamed = error
        blamed.problem = error.file.map { "\($0): \(error.problem)" } ?? error.problem
        blamed.file = recipeFile
        blamed.line = named.line
        // What a shell does to a word, nobody does to a line of a file: the coordinator's user may be another.
        let advice =
            named.value.model.path.hasPrefix("~")
            ? "'~' stands for no home here: write the whole path"
            : "correct the path: it must be a directory with a model, or with an adapter after '+'"
        blamed.advice = error.advice ?? advice
        return blamed
    }

    /// Opens the checkpoints that models name, by directory: at the same time, since the headers of a large model take a while.
    private static func checkpoints(
        of models: [Located<ModelReference>], _ locator: ModelLocator
    ) -> [String: Result<Checkpoint, TesseraError>] {
        let directories = Set(models.map(\.value).filter { $0.task == nil }.compactMap { try? locator.locate($0.model) })
        let opened = Array(directories).concurrentMap { directory in
            (directory, Result { () throws(TesseraError) in try Checkpoint.open(directory, in: locator.roots.files) })
        }
        return Dictionary(uniqueKeysWithValues: opened)
    }

    /// - Parameters:
    ///   - base: the recipe's, which a store's tasks are added to.
    ///   - checkpoints: those that are open already, by directory.
    ///   - stores: those that are open already: several tasks usually come from one.
    private static func open(
        _ reference: ModelReference, base: ModelReference?, locator: ModelLocator,
        checkpoints: [String: Result<Checkpoint, TesseraError>], firstFile: Int,
        stores: inout [ModelReference.Source: TaskVectorStore]
    ) throws(TesseraError) -> Input {
        var task: StoredTask?
        var model = reference.model
        if let name = reference.task {
            let store: TaskVectorStore
            if let known = stores[reference.model] {
                store = known
            } else {
                store = try TaskVectorStore.open(try locator.locate(reference.model), in: locator.roots.files)
            }
            stores[reference.model] = store
            let opened = try StoredTask(store, task: name)
            let written = ModelReference(parsing: opened.store.index.base.model)
            guard let known = base ?? written, known.task == nil, known.adapter == nil else {
                throw TesseraError(
                    .badData, "'\(base ?? reference)' cannot be the store's base", file: reference.path,
                    advice: "set 'base_model' to the store's base, '\(opened.store.index.base.model)'")
            }
            model = known.model
            task = opened
        }
        let directory = try locator.locate(model)
        let isStore = try TaskVectorStore.isStore(directory, in: locator.roots.files)
        if task == nil, isStore {
            throw TesseraError(
                .badData, "is a task-vector store, not a model", file: reference.path,
                advice: "name one of its tasks: '\(reference.path)#TASK'")
        }
        let checkpoint =
            if let opened = checkpoints[directory] { try opened.get() } else {
                try Checkpoint.open(directory, in: locator.roots.files)
            }
        try task?.check(checkpoint, reference: "\(model)")
        var files: [PlannedFile] = []
        files += try pin(checkpoint, locator)
        var adapter: Adapter?
        if let named = reference.adapter {
            let opened = try Adapter(directory: try locator.locate(named), of: checkpoint, in: locator.roots.files)
            files += try pin([(Adapter.weightsName, opened.header)], in: opened.directory, locator)
            adapter = opened
        }
        if let task { files += try pin(task.files, of: task.store, locator) }
        let names = InputNames(checkpoint.tensorNames.mergedByBytes(adapter?.untiedHead.map { [$0.name] } ?? []))
        return Input(
            reference: reference, checkpoint: checkpoint, adapter: adapter, task: task, files: files, firstFile: firstFile,
            holdsFloat8: checkpoint.parts.contains { part in
                part.header.tensors.contains { $0.dtype.isArithmetic && $0.dtype.bitWidth == 8 }
            }, names: names, layers: LayerStacks(names: names.all))
    }

    static func pin(_ checkpoint: Checkpoint, _ locator: ModelLocator) throws(TesseraError) -> [PlannedFile] {
        try pin(checkpoint.parts.map { ($0.fileName, $0.header) }, in: checkpoint.directory, locator)
    }

    static func pin(
        _ names: [String], of store: TaskVectorStore, _ locator: ModelLocator
    ) throws(TesseraError) -> [PlannedFile] {
        try pin(names.compactMap { name in store.headers[name].map { (name, $0) } }, in: store.directory, locator)
    }

    /// - Throws: `notAllowed` for a link to somewhere outside the roots; links inside, as in the hub's cache, are followed. What
    ///   reading throws.
    private static func pin(
        _ named: [(name: String, header: SafetensorsHeader)], in directory: String, _ locator: ModelLocator
    ) throws(TesseraError) -> [PlannedFile] {
        let paths = named.map { "\(directory)/\($0.name)" }
        let pins = try locator.pinning.tensorPins(paths, in: locator.roots.files)
        var files: [PlannedFile] = []
        for ((name, header), (path, pin)) in zip(named, zip(paths, pins)) {
            let part = ManifestInput.Part(
                file: name, size: header.fileSize, headerDigest: header.digest, sample: pin.contents.sample,
                sha256: pin.contents.sha256, blob: pin.blob)
            files.append(
                PlannedFile(
                    part: part, version: header.fileVersion,
                    path: try locator.roots.relativePath(of: path, workingDirectory: nil)))
        }
        return files
    }
}

extension StoredReference {
    init(_ entry: TensorEntry, inFile file: Int) {
        self.init(file: file, offset: entry.range.lowerBound, dtype: entry.dtype, shape: entry.shape)
    }
}
