import Checkpoints
import Core
import Recipes
import TaskVectors
import Work

/// A store to which tasks are added: its own files become files of the new one as they are.
struct ExtendedStore: Sendable {
    let store: TaskVectorStore
    /// The store's files as an input: they are where a frozen shared vector is read.
    let input: PlannedInput
    let reused: [ReusedPart]
    private let manifest: Manifest
    /// The number of its first file when the files of all inputs are counted in order.
    private let firstFile: Int
    private let positions: [ExactText: Int]

    /// - Returns: `nil` for a recipe that extends nothing.
    /// - Throws: `Problems` when the store and the recipe do not go together.
    init?(_ recipe: StoreRecipe, base: InputSet, locator: ModelLocator, firstFile: Int) throws {
        guard let named = recipe.extends else { return nil }
        func problem(_ text: String, line: Int? = nil, advice: String) -> Problems {
            Problems([TesseraError(.badData, text, file: recipe.file, line: line ?? named.line, advice: advice)])
        }
        let files = locator.roots.files
        let store = try TaskVectorStore.open(try locator.locate(ModelReference.Source(path: named.value)), in: files)
        let manifest = try Manifest.read(directory: store.directory, in: files)
        self.store = store
        self.manifest = manifest
        self.firstFile = firstFile
        positions = Dictionary(
            store.index.tensors.enumerated().map { (ExactText($1.name), $0) }, uniquingKeysWith: { first, _ in first })

        for task in recipe.tasks where store.index.tasks.contains(where: { $0.name == task.name }) {
            throw problem(
                "the store already has a task '\(task.name)'", line: task.model.line, advice: "add 'name: TASK' to the model")
        }
        guard base.primary.checkpoint.parts.map(\.header.digest) == store.index.base.parts.map(\.headerDigest) else {
            throw problem(
                "the base is not the base of the store", line: recipe.baseModel.line,
                advice: "use the store's base, '\(store.index.base.model)'")
        }
        let hasMasks = store.index.tasks.contains { $0.formats.contains(.mask) }
        switch recipe.kind {
        case .sparsify(.tall, _), .sparsify(.emr, _), .sparsify(.blocks(_, _, _, isDisjoint: true), _):
            throw problem(
                "\(recipe.title) looks at all tasks together, so tasks cannot be added later",
                advice: "make a new store with all tasks")
        case _ where hasMasks:
            throw problem(
                "the store has a shared vector made from all of its tasks, so tasks cannot be added",
                advice: "make a new store with all tasks")
        case .quantize(.residual) where store.index.shared == nil:
            throw problem("the store has no shared vector for the offsets", advice: "use 'scheme: tvq'")
        case .quantize(.residual), .quantize(.budget(_, isResidual: true)): break
        case _ where store.index.shared != nil:
            throw problem(
                "the store has a shared vector, to which every task is an offset",
                advice: "use 'scheme: rtvq', or make a new store")
        default: break
        }

        reused = manifest.parts.map { ReusedPart(path: "\(store.directory)/\($0.file)", part: $0) }
        for part in reused { _ = try locator.roots.relativePath(of: part.path, workingDirectory: nil) }
        let pinned = try InputSet.pin(store.index.shared?.files ?? [], of: store, locator)
        input = PlannedInput(
            reference: named.value, parts: pinned.map(\.part), versions: pinned.map(\.version), paths: pinned.map(\.path))
    }

    /// Its files of small vectors, which the new store has, too.
    var packedFiles: [SidecarFile] {
        Set(store.index.tasks.compactMap(\.packed?.file)).sorted { $0.precedesInBytes($1) }.map {
            SidecarFile(name: $0, copyOf: "\(store.directory)/\($0)")
        }
    }

    /// Bytes of its index and its manifest.
    var descriptionByteCount: Int {
        get throws(TesseraError) { try store.index.encoded().count + manifest.encoded().count }
    }

    /// Whether the shared vector has this tensor.
    func hasShared(_ tensor: StoreTensor) -> Bool { sharedPlace(of: tensor) != nil }

    /// The base's tensor with the shared vector added.
    func sharedSource(of tensor: StoreTensor) -> SourceReference {
        guard let place = sharedPlace(of: tensor), let position = positions[ExactText(tensor.name)] else {
            return tensor.sources[0]
        }
        let file = firstFile + (store.index.shared?.files.firstIndex(of: place.file) ?? 0)
        let vector = VectorReference(
            shape: tensor.shape, own: VectorReference.Vector(format: place.format, file: file, offsets: place.offsets),
            shared: nil,
            factor: 1, baseSample: store.index.tensors[position].base.sample)
        return .packed(base: tensor.sources[0], vector)
    }

    private func sharedPlace(of tensor: StoreTensor) -> TaskVectorStore.Place? {
        guard let position = positions[ExactText(tensor.name)], let shared = store.index.shared else { return nil }
        // It was found when the store was opened.
        return try? store.place(shared.formats[position], files: shared.files, position)
    }
}
