import Core
import Engine
import TaskVectors

/// The tensors of tasks of a store as shown by `inspect`: how each is stored, in how many bits, and what it lost.
struct StoreTensorListing: Encodable {
    struct Tensor: Encodable {
        let name: String
        let dtype: DType
        let shape: [Int]
        /// How the tasks store it, in words; several where they differ.
        let formats: [String]
        /// Bytes of all listed tasks together.
        let bytes: Int
        /// Per element, the mean over the tasks.
        let bits: Double
        /// `Σ(τ − τ̂)² / Στ²` over the listed tasks; absent where it was not measured, and for task vectors of zeros.
        fileprivate(set) var error: Double?
        /// `Σττ̂ / Στ² − 1` and the loss that the budget predicted, over all tasks of the last recipe; absent in stores of the
        /// first version and for some of the tasks.
        let bias: Double?
        let predictedLoss: Double?
        fileprivate var squares = (lost: 0.0, all: 0.0)

        private enum CodingKeys: String, CodingKey { case name, dtype, shape, formats, bytes, bits, error, bias, predictedLoss }
    }

    let tasks: [String]
    private(set) var tensors: [Tensor]
    /// Of all listed tasks and tensors together.
    private(set) var error: Double?
    private var squares = (lost: 0.0, all: 0.0)

    private enum CodingKeys: String, CodingKey { case tasks, tensors, error }

    init(_ store: TaskVectorStore, tasks: [StoreIndex.Task]) {
        self.tasks = tasks.map(\.name)
        let positions = store.index.tensors.indices.filter { store.index.tensors[$0].dtype.isArithmetic }
        tensors = positions.sorted { store.index.tensors[$0].name.precedesNaturally(store.index.tensors[$1].name) }
            .map { position in
                let tensor = store.index.tensors[position], formats = tasks.map { $0.formats[position] }
                let bytes = formats.reduce(0) { $0 + ($1?.byteCount(shape: tensor.shape) ?? 0) }
                var words: [String] = []
                for format in formats.map({ $0.map(Self.words) ?? "zero" }) where !words.contains(format) { words.append(format) }
                let measured = tasks.count == store.index.tasks.count ? tensor.measured : nil
                return Tensor(
                    name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, formats: words, bytes: bytes,
                    bits: Double(8 * bytes) / Double(max(1, tensor.elementCount * tasks.count)), error: measured?.error,
                    bias: measured?.bias, predictedLoss: measured?.loss)
            }
    }

    /// Bytes that measuring the errors reads: base and fine-tune of each task.
    var bytesToRead: Int {
        2 * tasks.count * tensors.reduce(0) { $0 + Shape.count($1.shape) * $1.dtype.bitWidth / 8 }
    }

    mutating func add(_ errors: StoreErrors, of task: StoreIndex.Task) {
        for index in tensors.indices {
            guard let found = errors.tensors[ExactText(tensors[index].name)] else { continue }
            tensors[index].squares.lost += found.lost
            tensors[index].squares.all += found.all
            tensors[index].error = Self.share(tensors[index].squares)
            squares.lost += found.lost
            squares.all += found.all
        }
        error = Self.share(squares)
    }

    private static func share(_ squares: (lost: Double, all: Double)) -> Double? {
        let share = squares.lost / squares.all
        return share.isFinite ? share : nil
    }

    func lines(_ widths: OutputWidths) -> [String] {
        var columns: [(title: String, alignment: TextTable.Alignment)] = [
            ("TENSOR", .left), ("STORED AS", .left), ("BITS", .right), ("SIZE", .right),
        ]
        let hasErrors = tensors.contains { $0.error != nil }, hasBias = tensors.contains { $0.bias != nil }
        if hasErrors { columns.append(("ERROR", .right)) }
        if hasBias { columns += [("BIAS", .right), ("LOSS", .right)] }
        func number(_ value: Double?) -> String { value.map { Quantity.significant($0) } ?? "–" }
        var table = TextTable(columns)
        for tensor in tensors {
            let cells = [
                tensor.name, tensor.formats.count > 1 ? "\(tensor.formats.count) formats" : tensor.formats.joined(),
                Quantity.decimal(tensor.bits, places: 3), Quantity.bytes(tensor.bytes),
            ]
            table.add(
                cells + (hasErrors ? [number(tensor.error)] : [])
                    + (hasBias ? [number(tensor.bias), number(tensor.predictedLoss)] : []))
        }
        let bytes = tensors.reduce(0) { $0 + $1.bytes }
        let whose = tasks.count == 1 ? "the task \(tasks[0])".printable : "\(tasks.count) tasks"
        return table.lines(fitting: widths.table) + ["", "\(tensors.count) tensors of \(whose): \(Quantity.bytes(bytes))"]
            + legend(hasErrors: hasErrors, hasBias: hasBias).flatMap { widths.labelled($0, $1, column: 8) }
    }

    private func legend(hasErrors: Bool, hasBias: Bool) -> [(label: String, text: String)] {
        var legend = [
            ("STORED", "'2 bits/512' are codes of 2 bits with a scale for each 512 elements"),
            ("BITS", "stored bits per element of the tensor" + (tasks.count > 1 ? ", the mean over the tasks" : "")),
        ]
        if hasErrors {
            let all = error.map { "; of all tensors: \(Quantity.significant($0))" } ?? ""
            legend.append(("ERROR", "what storing lost: ‖τ − stored τ‖² / ‖τ‖², with the task vector τ = fine-tune − base\(all)"))
        }
        if hasBias {
            legend += [
                ("BIAS", "⟨τ, stored τ⟩ / ‖τ‖² − 1: how much longer the step along τ became"),
                ("LOSS", "what the budget expects of the tensor's share of the loss"),
            ]
        }
        return legend
    }

    private static func words(_ format: StorageFormat) -> String {
        switch format {
        case .zero: "zero"
        case .mask: "mask of the shared vector"
        case .dense(let values): words(values)
        case .sparse(let kept, let values): "\(kept) of them, \(words(values))"
        case .thinned(let grid): "one of \(grid.every), \(grid.bits) bits/\(grid.group)"
        case .signs(let scaling): "signs/\(scaling.rawValue)"
        }
    }

    private static func words(_ values: ValueFormat) -> String {
        switch values {
        case .raw(let dtype): return dtype.rawValue
        case .grid(let grid):
            let group =
                switch grid.granularity {
                case .tensor: "tensor"
                case .row: "row"
                case .group(let length): "\(length)"
                }
            return "\(grid.bits) bits/\(group)"
        }
    }
}
