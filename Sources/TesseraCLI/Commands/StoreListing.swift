import Checkpoints
import Core
import TaskVectors

/// A task-vector store as shown by `inspect`.
struct StoreListing: Encodable {
    struct Task: Encodable {
        let name: String
        let model: String
        let scheme: String
        /// Bytes of the task's tensors.
        let bytes: Int
        let bitsPerParameter: Double
        /// `Σ(τ − τ̂)² / Στ²`; absent if the task vector is zero.
        let error: Double?
        /// The error predicted by the budget's measurements.
        let predictedError: Double?
        /// `Σττ̂ / Στ² − 1`; absent in stores of the first version.
        let bias: Double?
        /// Tensors of non-arithmetic types that are taken from the base although the fine-tune's differ.
        let lost: [String]
    }

    struct Base: Encodable {
        let model: String
        let digest: Digest
        /// Whether the given checkpoint is this base; absent if none was given.
        var matches: Bool?
        /// The tensors that differ.
        var differences: [String] = []
    }

    let tasks: [Task]
    /// Bytes of the shared vector.
    let sharedBytes: Int
    let parameters: Int
    /// Bytes of all tensors in the store, and of the fine-tunes' tensors that they represent.
    let bytes: Int
    let originalBytes: Int
    /// Bytes of all files of the store's directory: tensors, headers, index, manifest and what stands beside them.
    let bytesOnDisk: Int
    let filesOnDisk: Int
    let bitsPerParameter: Double
    private(set) var base: Base

    /// - Throws: what looking at the store's files throws.
    init(_ store: TaskVectorStore) throws(TesseraError) {
        let index = store.index
        let parameters = index.tensors.filter(\.dtype.isArithmetic).reduce(0) { $0 + $1.elementCount }
        func bytes(_ formats: [StorageFormat?]) -> Int {
            zip(index.tensors, formats).reduce(0) { $0 + ($1.1?.byteCount(shape: $1.0.shape) ?? 0) }
        }
        func bits(_ bytes: Int, tasks: Int = 1) -> Double { Double(8 * bytes) / Double(max(1, parameters * tasks)) }
        tasks = index.tasks.map { task in
            Task(
                name: task.name, model: task.model, scheme: task.scheme, bytes: bytes(task.formats),
                bitsPerParameter: bits(bytes(task.formats)), error: task.energy > 0 ? task.error / task.energy : nil,
                predictedError: task.predicted, bias: task.bias, lost: task.lost)
        }
        sharedBytes = index.shared.map { bytes($0.formats) } ?? 0
        self.parameters = parameters
        self.bytes = tasks.reduce(sharedBytes) { $0 + $1.bytes }
        originalBytes =
            index.tasks.count
            * index.tensors.filter(\.dtype.isArithmetic).reduce(0) { $0 + $1.elementCount * $1.dtype.bitWidth / 8 }
        bitsPerParameter = bits(self.bytes, tasks: index.tasks.count)
        base = Base(model: index.base.model, digest: index.base.digest)
        let files = LocalFiles(), names = try files.below(store.directory)
        var bytesOnDisk = 0
        for name in names { bytesOnDisk += try files.status(of: FilePath.join(store.directory, name))?.size ?? 0 }
        self.bytesOnDisk = bytesOnDisk
        filesOnDisk = names.count
    }

    /// Compares a checkpoint, byte by byte, with the base of the task vectors.
    mutating func compare(base path: String, in store: TaskVectorStore) throws {
        base.differences = try store.differences(from: Checkpoint.open(path, in: LocalFiles()))
        base.matches = base.differences.isEmpty
    }

    private static let shownDifferences = 10

    func lines(_ widths: OutputWidths) -> [String] {
        let hasBias = tasks.contains { $0.bias != nil }
        var table = TextTable(
            [("TASK", .left), ("SCHEME", .left), ("BITS", .right), ("ERROR", .right)] + (hasBias ? [("BIAS", .right)] : [])
                + [("SIZE", .right), ("OF MODEL", .right)])
        func number(_ value: Double?) -> String { value.map { Quantity.decimal($0, places: 4) } ?? "–" }
        let one = originalBytes / max(1, tasks.count)
        for task in tasks {
            table.add(
                [task.name, task.scheme, Quantity.decimal(task.bitsPerParameter, places: 3), number(task.error)]
                    + (hasBias ? [number(task.bias)] : []) + [Quantity.bytes(task.bytes), Self.share(task.bytes, of: one)])
        }
        if sharedBytes > 0 {
            table.add(
                ["(shared)", "", Quantity.decimal(Double(8 * sharedBytes) / Double(max(1, parameters)), places: 3), ""]
                    + (hasBias ? [""] : []) + [Quantity.bytes(sharedBytes), Self.share(sharedBytes, of: one)])
        }
        return table.lines(fitting: widths.table) + [""] + sums(widths) + [""] + legend(widths, hasBias: hasBias) + notes(widths)
    }

    private func sums(_ widths: OutputWidths) -> [String] {
        let tasks =
            "\(tasks.count) \(tasks.count == 1 ? "task" : "tasks") of \(parameters) parameters: \(Quantity.bytes(bytes)), "
        let share = "\(Self.share(bytes, of: originalBytes)) of the fine-tunes' \(Quantity.bytes(originalBytes)), "
        return [
            tasks + share + "\(Quantity.decimal(bitsPerParameter, places: 3)) bits per parameter",
            "on disk \(Quantity.bytes(bytesOnDisk)) in \(filesOnDisk) files, with headers, index, manifest and tokenizer",
            "base \(base.model), \(base.digest.description.prefix(12))".printable,
        ].flatMap { $0.wrapped(toColumns: widths.text, indent: 2) }
    }

    private func legend(_ widths: OutputWidths, hasBias: Bool) -> [String] {
        var legend = [
            ("BITS", "stored bits per parameter"),
            ("ERROR", "what storing lost: ‖τ − stored τ‖² / ‖τ‖², with the task vector τ = fine-tune − base"),
            ("OF MODEL", "the size as a share of the fine-tune's"),
        ]
        if hasBias { legend.append(("BIAS", "⟨τ, stored τ⟩ / ‖τ‖² − 1: how much longer the step along τ became")) }
        let predictions = tasks.compactMap(\.predictedError)
        if !predictions.isEmpty {
            let mean = predictions.reduce(0, +) / Double(predictions.count)
            legend.append(("", "the budget predicted a mean of \(Quantity.decimal(mean, places: 4))"))
        }
        return legend.flatMap { widths.labelled($0, $1, column: 10) }
    }

    private func notes(_ widths: OutputWidths) -> [String] {
        var lines: [String] = []
        for task in tasks where !task.lost.isEmpty {
            lines += "note \(task.name): not stored; the base's tensors are used: \(task.lost.joined(separator: ", "))".printable
                .wrapped(toColumns: widths.text, indent: 2)
        }
        guard let matches = base.matches else { return lines }
        lines.append(
            matches ? "the given checkpoint is the base of the store" : "the given checkpoint is not the base of the store:")
        lines += base.differences.prefix(Self.shownDifferences).map { "  \($0)".printable }
        let rest = base.differences.count - Self.shownDifferences
        return lines + (rest > 0 ? ["  and \(rest) more"] : [])
    }

    private static func share(_ bytes: Int, of all: Int) -> String {
        all > 0 ? "\(Quantity.decimal(100 * Double(bytes) / Double(all), places: 1)) %" : "–"
    }
}
