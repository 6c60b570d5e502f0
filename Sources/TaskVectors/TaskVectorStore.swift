package import Checkpoints
package import Core
import Operators

/// A store of task vectors on disk: its index and the headers of its files. No tensor data is read.
package struct TaskVectorStore: Sendable {
    package let directory: String
    package let index: StoreIndex
    /// By file name.
    package let headers: [String: SafetensorsHeader]
    /// By file and tensor.
    private let entries: [String: [ExactText: TensorEntry]]
    /// For each task, where its packed vectors begin in their file: of each tensor, `nil` where it is not packed.
    private var packed: [String: [Int?]] = [:]
    private let files: any InputFiles

    /// Whether a directory holds a store.
    package static func isStore(_ path: String, in files: any InputFiles) throws(TesseraError) -> Bool {
        try files.exists("\(path)/\(StoreIndex.fileName)")
    }

    /// - Throws: `inputMissing` when there is none, `badData` when index and files do not fit each other.
    package static func open(_ path: String, in files: any InputFiles) throws(TesseraError) -> TaskVectorStore {
        guard try isStore(path, in: files) else {
            throw TesseraError(
                .inputMissing, "holds no store of task vectors", file: path,
                advice: "a store is made by a recipe with 'quantize' or 'sparsify'")
        }
        let index = try StoreIndex.read(directory: path, in: files)
        var headers: [String: SafetensorsHeader] = [:]
        for name in Set(index.tasks.flatMap(\.allFiles) + (index.shared?.files ?? [])) {
            headers[name] = try SafetensorsHeader.read(path: "\(path)/\(name)", in: files)
        }
        let entries = headers.mapValues { header in
            Dictionary(header.tensors.map { (ExactText($0.name), $0) }, uniquingKeysWith: { first, _ in first })
        }
        var store = TaskVectorStore(directory: path, index: index, headers: headers, entries: entries, files: files)
        for task in index.tasks { store.packed[task.name] = try store.packedPlaces(of: task) }
        for position in index.tensors.indices {
            if let shared = index.shared { _ = try store.place(shared.formats[position], files: shared.files, position) }
            for task in index.tasks { _ = try store.place(of: task, position) }
        }
        return store
    }

    /// The store's tensors that a checkpoint has otherwise, all bytes compared, or not at all.
    package func differences(from base: Checkpoint) throws(TesseraError) -> [String] {
        var different: [String] = []
        for tensor in index.tensors {
            guard let (part, entry) = base.tensor(named: tensor.name), entry.dtype == tensor.dtype, entry.shape == tensor.shape
            else {
                different.append(tensor.name)
                continue
            }
            let file = try files.open("\(base.directory)/\(base.parts[part].fileName)")
            var blocks: [Digest] = []
            for start in stride(from: entry.range.lowerBound, to: entry.range.upperBound, by: TreeDigest.blockSize) {
                let end = min(entry.range.upperBound, start + TreeDigest.blockSize)
                blocks.append(try .sha256(of: file.bytes(start..<end)))
            }
            if try TreeDigest.tensor(blocks: blocks) != tensor.base.digest { different.append(tensor.name) }
        }
        return different
    }

    /// - Throws: `inputMissing` naming the tasks that there are.
    package func task(named name: String) throws(TesseraError) -> StoreIndex.Task {
        if let task = index.tasks.first(where: { $0.name == name }) { return task }
        throw TesseraError(
            .inputMissing, "the store has no task '\(name)'", file: directory,
            advice: "it has \(index.tasks.map(\.name).joined(separator: ", "))")
    }

    /// Where the tensors of a form lie.
    package struct Place {
        package let format: StorageFormat
        package let file: String
        package let offsets: [Int]
    }

    /// Where the tensors of a task's vector lie.
    ///
    /// - Returns: `nil` for a form without tensors.
    package func place(of task: StoreIndex.Task, _ position: Int) throws(TesseraError) -> Place? {
        let format = task.formats[position]
        guard let format, let file = task.packed?.file, let start = packed[task.name]?[position] else {
            return try place(format, files: task.files, position)
        }
        var next = start
        let offsets = format.tensors(shape: index.tensors[position].shape).map { tensor in
            defer { next += tensor.byteCount }
            return next
        }
        return Place(format: format, file: file, offsets: offsets)
    }

    /// Packed vectors lie one after another in the order of the tensors.
    private func packedPlaces(of task: StoreIndex.Task) throws(TesseraError) -> [Int?] {
        guard let packed = task.packed else { return [] }
        func damage(_ problem: String) -> TesseraError {
            TesseraError(.badData, "\(problem) of the task '\(task.name)'", file: "\(directory)/\(packed.file)")
        }
        guard let entry = entries[packed.file]?[ExactText(task.name)] else { throw damage("has no packed vectors") }
        var next = entry.range.lowerBound
        let places = zip(index.tensors, task.formats).map { tensor, format -> Int? in
            let byteCount = format?.byteCount(shape: tensor.shape) ?? 0
            guard byteCount > 0, byteCount <= packed.limit else { return nil }
            defer { next += byteCount }
            return next
        }
        guard next == entry.range.upperBound, entry.dtype == .u8 else {
            throw damage("does not hold, as the index says, the packed vectors")
        }
        return places
    }

    /// - Returns: `nil` for a form without tensors.
    package func place(_ format: StorageFormat?, files: [String], _ position: Int) throws(TesseraError) -> Place? {
        guard let format else { return nil }
        let tensor = index.tensors[position]
        let wanted = format.tensors(shape: tensor.shape)
        guard !wanted.isEmpty else { return nil }
        let names = wanted.map { ExactText($0.name(of: tensor.name)) }
        for file in files {
            let found = names.compactMap { entries[file]?[$0] }
            guard !found.isEmpty else { continue }
            guard found.count == wanted.count, zip(found, wanted).allSatisfy({ $0.dtype == $1.dtype && $0.shape == $1.shape })
            else { break }
            return Place(format: format, file: file, offsets: found.map(\.range.lowerBound))
        }
        throw TesseraError(.badData, "the store's files do not hold it as the index says", file: directory, tensor: tensor.name)
    }
}
