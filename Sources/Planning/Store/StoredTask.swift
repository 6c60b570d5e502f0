import Checkpoints
import Core
import TaskVectors
import Work

/// A fine-tune in a store, as an input of a merge.
struct StoredTask {
    let store: TaskVectorStore
    let task: StoreIndex.Task
    /// The store's files, in the order in which the input counts them behind the base's parts.
    let files: [String]
    /// What is added to each of the base's tensors; counts files as `files` does.
    private let vectors: [ExactText: VectorReference]

    init(_ store: TaskVectorStore, task name: String) throws(TesseraError) {
        let task = try store.task(named: name), shared = store.index.shared
        let files = (shared?.files ?? []) + task.allFiles
        func reference(_ place: TaskVectorStore.Place?) -> VectorReference.Vector? {
            guard let place else { return nil }
            return VectorReference.Vector(
                format: place.format, file: files.firstIndex(of: place.file) ?? 0, offsets: place.offsets)
        }
        var vectors: [ExactText: VectorReference] = [:]
        for (position, tensor) in store.index.tensors.enumerated() where tensor.dtype.isArithmetic {
            vectors[ExactText(tensor.name)] = VectorReference(
                shape: tensor.shape, own: reference(try store.place(of: task, position)),
                shared: try shared.flatMap { shared throws(TesseraError) in
                    reference(try store.place(shared.formats[position], files: shared.files, position))
                }, factor: task.factor, baseSample: tensor.base.sample)
        }
        self.store = store
        self.task = task
        self.files = files
        self.vectors = vectors
    }

    /// - Throws: `badData` when a checkpoint cannot be the store's base, as far as headers tell.
    func check(_ base: Checkpoint, reference: String) throws(TesseraError) {
        let unknown = store.index.tensors.first { tensor in
            guard let entry = base.tensor(named: tensor.name)?.entry else { return true }
            return entry.shape != tensor.shape || entry.dtype != tensor.dtype
        }
        guard let unknown = unknown?.name ?? unstored(in: base) else { return }
        throw TesseraError(
            .badData, "'\(reference)' is not the base of the store: their tensors differ", file: store.directory, tensor: unknown,
            advice: "set 'base_model' to the store's base, '\(store.index.base.model)'")
    }

    /// A tensor of the base that the store should have. Integers that a fine-tune lacked are in no store.
    private func unstored(in base: Checkpoint) -> String? {
        guard base.tensorNames.count != store.index.tensors.count else { return nil }
        let stored = Set(store.index.tensors.map { ExactText($0.name) })
        return base.tensorNames.first { name in
            !stored.contains(ExactText(name)) && base.tensor(named: name)?.entry.dtype.isArithmetic == true
        }
    }

    /// What is added to the base's tensor.
    ///
    /// - Parameter firstFile: the number of the first of `files`.
    func vector(of name: String, firstFile: Int) -> VectorReference? {
        var vector = vectors[ExactText(name)]
        vector?.renumberFiles { $0 + firstFile }
        return vector
    }
}
