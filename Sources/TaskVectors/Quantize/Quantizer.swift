import Core
import Operators
import TensorKernels

/// Task vectors in few bits: TVQ and RTVQ (arXiv 2503.06921).
///
/// With `τₜ = θₜ − θ₀`, a grid `Q` and its decoding `Q⁻¹`:
/// - TVQ stores `Q(τₜ)`; the vector is read as `Q⁻¹(Q(τₜ))`.
/// - RTVQ stores a vector that all tasks share, `Q(B)` with `B = Σ τₜ / T`, and for each task `Q(τₜ − R)`. `R = Q⁻¹(Q(B))`, so
///   that the shared vector's error is in every offset and comes back with it, or `R = B` without this correction. The vector is
///   read as `Q⁻¹(Q(B)) + Q⁻¹(Q(τₜ − R))`. A shared vector of an earlier store may stand for `Q⁻¹(Q(B))` (frozen).
package struct Quantizer: Sendable, Hashable, Codable {
    /// The shared vector's format, for RTVQ.
    package let shared: StorageFormat?
    /// Whether the shared vector is that of an earlier store. If so, the last source is the base plus that vector.
    package let sharedIsFrozen: Bool
    package let correctsErrors: Bool
    /// For each task, the format of its vector or offset: dense, thinned, signs or zero.
    package let tasks: [StorageFormat]
    /// Bytes: task vectors of at most so many are packed with others (`StoreIndex.Packed`), without outputs; `nil` to pack none.
    package let packLimit: Int?

    package init(
        shared: StorageFormat? = nil, sharedIsFrozen: Bool = false, correctsErrors: Bool = true, tasks: [StorageFormat],
        packLimit: Int? = nil
    ) {
        self.packLimit = packLimit
        self.shared = shared
        self.sharedIsFrozen = sharedIsFrozen
        self.correctsErrors = correctsErrors
        self.tasks = tasks
    }

    /// The shared vector first.
    var formats: [StorageFormat] { (sharedIsFrozen ? [] : [shared].compactMap(\.self)) + tasks }

    /// Bytes of a task's vector that is packed; `nil` for one with outputs of its own.
    package func packedByteCount(of format: StorageFormat, shape: [Int]) -> Int? {
        guard let packLimit else { return nil }
        let byteCount = format.byteCount(shape: shape)
        return (1...packLimit).contains(byteCount) ? byteCount : nil
    }

    /// The number of passes before elements are encoded.
    var passes: Int {
        [sharedIsFrozen ? [] : [shared].compactMap(\.self), tasks].count { $0.contains { $0.needsRanges } }
            + Set(tasks.compactMap(\.signScaling)).count
    }

    /// - Parameter digest: of the base, computed on the way.
    /// - Returns: the error of each task's stored vector.
    func encode(_ tensor: TensorPasses, computing digest: SourceDigest?) throws -> [VectorError] {
        let sharedCoder =
            try sharedIsFrozen
            ? nil : shared.map { FormatCoder($0, ranges: try ranges(of: [0], $0, in: tensor, mean).first ?? []) }
        let offsets: Vector = { tile, task in
            let vector = try tile.taskVector(task + 1)
            if let shared = try reference(sharedCoder, in: tile) {
                tile.kernels.subtract(vector, shared, into: vector, count: tile.count)
            }
            return UnsafePointer(vector)
        }
        let coders = try coders(offsets, in: tensor)

        var writers: [FormatWriter] = []
        for coder in [sharedCoder].compactMap(\.self) + coders {
            writers.append(FormatWriter(coder, firstOutput: writers.last?.nextOutput ?? 0, shape: tensor.shape))
        }
        let rates = writers.flatMap(\.rates)
        let packed = PackedOutputs(self, of: tensor), width = packLimit == nil ? 2 : 3
        let tensor = packed.tensor
        let taskWriters = Array(writers.suffix(tasks.count)), sharedWriter = sharedCoder.flatMap { _ in writers.first }
        let sums = try tensor.emit(rates, terms: width * tasks.count, computing: digest) { tile, buffer, sums in
            let reference = try reference(sharedCoder, in: tile, writer: sharedWriter, buffer: buffer)
            let decoded = tile.scratch(0)
            for task in tasks.indices {
                let vector = try tile.taskVector(task + 1)
                if let reference {
                    sums[width * task + 1] = tile.kernels.dot(vector, vector, count: tile.count)
                    tile.kernels.subtract(vector, reference, into: vector, count: tile.count)
                }
                taskWriters[task].write(vector, of: tile, buffer: buffer, decoded: decoded)
                if let reference, sharedCoder != nil, !correctsErrors {
                    // The offset was taken from the mean, but will be added to the decoded shared vector.
                    tile.kernels.add(tile.workspace { SharedVectorBuffer() }.decoded, to: decoded, count: tile.count)
                    tile.kernels.subtract(decoded, reference, into: decoded, count: tile.count)
                }
                let found = tile.kernels.compare(vector, decoded, count: tile.count)
                sums[width * task] = found.squaredError
                if reference == nil { sums[width * task + 1] = found.energy }
                guard sums[width * task + 1].isFinite else { throw NotFinite.error }
                if width > 2 { sums[width * task + 2] = found.product }
            }
        }
        for writer in writers { try writer.writeKnown(of: tensor) }
        return tasks.indices.map { task in
            VectorError(
                error: sums[width * task], energy: sums[width * task + 1], product: width > 2 ? sums[width * task + 2] : nil,
                packed: packed.bytes(ofTask: task))
        }
    }

    private typealias Vector = @Sendable (Tile, _ index: Int) throws -> UnsafePointer<Float>

    /// The mean task vector, in `tile.scratch(0)`.
    private var mean: Vector {
        { tile, _ in
            let sum = tile.scratch(0)
            sum.update(repeating: 0, count: tile.count)
            for task in tasks.indices { tile.kernels.add(try tile.taskVector(task + 1), to: sum, count: tile.count) }
            tile.kernels.scale(sum, by: 1 / Float(tasks.count), into: sum, count: tile.count)
            return UnsafePointer(sum)
        }
    }

    /// The vector that offsets are taken from. It is computed once per tile, before any task vector is changed; if a writer is
    /// given, it is computed again and the shared vector is written. Overwrites the tile's scratch.
    private func reference(
        _ coder: FormatCoder?, in tile: Tile, writer: FormatWriter? = nil, buffer: ChunkBuffer? = nil
    ) throws -> UnsafePointer<Float>? {
        if sharedIsFrozen { return UnsafePointer(try tile.taskVector(tasks.count + 1)) }
        guard let coder else { return nil }
        let own = tile.workspace { SharedVectorBuffer() }
        if own.range == tile.range, writer == nil { return UnsafePointer(own.reference) }
        own.range = tile.range
        let mean = try mean(tile, 0)
        if let writer, let buffer {
            writer.write(mean, of: tile, buffer: buffer, decoded: own.decoded)
        } else if correctsErrors {
            coder.code(mean, of: tile, decoded: own.decoded)
        }
        own.reference.update(from: correctsErrors ? UnsafePointer(own.decoded) : mean, count: tile.count)
        return UnsafePointer(own.reference)
    }

    // MARK: Ranges

    /// Takes one pass for all tasks whose grids need ranges of the tensor, one for those whose grids need ranges of rows, and one
    /// for the scales of signs along each axis.
    private func coders(_ offsets: @escaping Vector, in tensor: TensorPasses) throws -> [FormatCoder] {
        var found: [Int: [ValueRange]] = [:]
        for byRow in [false, true] {
            let wanted = tasks.indices.filter { tasks[$0].needsRanges && (tasks[$0].grid?.granularity == .row) == byRow }
            guard let first = wanted.first else { continue }
            for (task, ranges) in zip(wanted, try ranges(of: wanted, tasks[first], in: tensor, offsets)) { found[task] = ranges }
        }
        var scales: [Int: [Float]] = [:]
        for scaling in [SignScaling.tensor, .row, .column] {
            let wanted = tasks.indices.filter { tasks[$0].signScaling == scaling }
            guard !wanted.isEmpty else { continue }
            let sums = try SignSums.find(scaling, of: wanted.count, in: tensor) { tile, index in
                try offsets(tile, wanted[index])
            }
            for (task, sums) in zip(wanted, sums) { scales[task] = sums.scales }
        }
        return tasks.enumerated().map { FormatCoder($1, ranges: found[$0] ?? [], scales: scales[$0] ?? []) }
    }

    /// For each of the vectors, the ranges that the format's grid needs.
    private func ranges(
        of vectors: [Int], _ format: StorageFormat, in tensor: TensorPasses, _ vector: @escaping Vector
    ) throws -> [[ValueRange]] {
        guard format.needsRanges, let grid = format.grid else { return vectors.map { _ in [] } }
        return try ValueRange.find(grid, of: vectors.count, in: tensor) { tile, index in try vector(tile, vectors[index]) }
    }
}

/// A buffer for the vector that offsets are taken from, and for the shared vector as it will be read.
final class SharedVectorBuffer {
    static let byteCount = 2 * FixedTree.tileElements * MemoryLayout<Float>.stride

    /// The elements that the buffer holds.
    var range = 0..<0
    let reference = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.tileElements)
    let decoded = UnsafeMutablePointer<Float>.allocate(capacity: FixedTree.tileElements)

    deinit {
        reference.deallocate()
        decoded.deallocate()
    }
}

enum NotFinite {
    static var error: TesseraError {
        TesseraError(
            .badData, "has numbers that are not finite, or differs from the base by more than float32 can represent",
            advice: "repair the checkpoint: task vectors need finite numbers")
    }
}

extension StorageFormat {
    var needsRanges: Bool { grid.map(GridCoder.needsRanges) ?? false }
}

extension ValueRange {
    /// The ranges of vectors that are computed tile by tile: of each vector as a whole, or of its rows.
    ///
    /// - Throws: `badData` when a vector has numbers that are not finite.
    static func find(
        _ grid: Grid, of vectors: Int, in tensor: TensorPasses,
        _ vector: @escaping @Sendable (Tile, Int) throws -> UnsafePointer<Float>
    ) throws -> [[ValueRange]] {
        guard grid.granularity == .row else {
            let whole = try tensor.fold(Array(repeating: ValueRange.none, count: vectors)) { ranges, tile in
                for index in 0..<vectors { ranges[index].formUnion(try range(of: vector(tile, index), 0..<tile.count, tile)) }
            } combine: { total, part in
                for index in total.indices { total[index].formUnion(part[index]) }
            }
            return whole.map { [$0] }
        }
        let length = grid.groupLength(in: tensor.shape), width = 2 * vectors
        let rows = try tensor.rowStatistics(length: length, width: width) { tile, pieces, numbers in
            for index in 0..<vectors {
                let values = try vector(tile, index)
                for (number, piece) in pieces.enumerated() {
                    let range = try range(of: values, piece.offset..<piece.offset + piece.count, tile)
                    numbers[number * width + 2 * index] = Double(range.lowest)
                    numbers[number * width + 2 * index + 1] = Double(range.highest)
                }
            }
        } join: { numbers, later in
            for index in 0..<vectors {
                numbers[2 * index] = min(numbers[2 * index], later[2 * index])
                numbers[2 * index + 1] = max(numbers[2 * index + 1], later[2 * index + 1])
            }
        }
        return (0..<vectors).map { (index: Int) -> [ValueRange] in
            stride(from: 2 * index, to: rows.count, by: width).map { (row: Int) -> ValueRange in
                ValueRange(lowest: Float(rows[row]), highest: Float(rows[row + 1]))
            }
        }
    }

    private static func range(of values: UnsafePointer<Float>, _ range: Range<Int>, _ tile: Tile) throws -> ValueRange {
        guard let found = tile.kernels.range(values + range.lowerBound, count: range.count) else { throw NotFinite.error }
        return found
    }
}
