import Core
import Operators
import Synchronization
import TensorKernels

/// Stores task vectors of which few entries are kept: a bitmap, and the values of the kept entries.
///
/// `kept` is the number of values that there is space for. Entries that are zero anyway need no value, so the last values may be
/// unused.
package struct SparseEncoder: Sendable, Hashable, Codable {
    package let selection: Selection
    package let values: ValueFormat
    /// For each task, the number of values.
    package let kept: [Int]

    package init(selection: Selection, values: ValueFormat, kept: [Int]) {
        self.selection = selection
        self.values = values
        self.kept = kept
    }

    var formats: [StorageFormat] { kept.map { .sparse(kept: $0, values) } }

    /// The passes of the selection and for ranges, one to count, one for the bitmaps, and those for the values.
    var passes: Int {
        let forTask = selection.isDisjoint ? kept.count : 1
        return selection.passes + (needsRanges ? 1 : 0) + 2 + forTask
    }

    /// The memory of the selection.
    func memory(count: Int) -> MemoryNeed {
        if case .largest(let kept) = selection { MagnitudeTrim.memory(models: kept.count, count: count) } else { MemoryNeed() }
    }

    private var grid: Grid? {
        if case .grid(let grid) = values { grid } else { nil }
    }

    private var needsRanges: Bool { grid.map(GridCoder.needsRanges) ?? false }

    /// - Returns: for each task, the number of entries that were selected and are not zero.
    func countKept(in tensor: TensorPasses) throws -> [Int] {
        let selector = try Selector(selection, in: tensor)
        return try counts(selector, in: tensor, isLast: true).map { $0.reduce(0, +) }
    }

    private func counts(_ selector: Selector, in tensor: TensorPasses, isLast: Bool = false) throws -> [[Int]] {
        try tensor.counts(kept.count, isLast: isLast) { tile, counts in
            try selector.forEach(kept.indices, in: tile) { task, entries in
                counts[task] = tile.kernels.countNonzero(entries, count: tile.count)
            }
        }
    }

    /// - Returns: the error of each task's stored vector.
    func encode(_ tensor: TensorPasses) throws -> [VectorError] {
        let selector = try Selector(selection, in: tensor)
        let before = try counts(selector, in: tensor).map { $0.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1) } }
        for (task, before) in before.enumerated() where before.last ?? 0 > kept[task] {
            throw TesseraError(
                .badData, "changed while it was being read: \(before.last ?? 0) entries were selected, and \(kept[task]) earlier")
        }
        let coders = try coders(selector, in: tensor)

        var rates: [ChunkRate?] = [], first: [Int] = []
        for format in formats {
            first.append(rates.count)
            rates += format.tensors(shape: tensor.shape).map(\.rate)
        }
        let writers = zip(coders, first).map { FormatWriter($0, firstOutput: $1 + 1, shape: tensor.shape) }
        let starts = first
        let sums = try tensor.emit(rates, terms: 2 * kept.count, isLast: false) { tile, buffer, sums in
            // Energies first, because selecting changes the vectors.
            for task in kept.indices {
                let vector = try tile.taskVector(task + 1)
                sums[2 * task + 1] = tile.kernels.dot(vector, vector, count: tile.count)
                guard sums[2 * task + 1].isFinite else { throw NotFinite.error }
            }
            try selector.forEach(kept.indices, in: tile) { task, entries in
                let mask = buffer.place(in: starts[task]), decoded = tile.scratch(0)
                tile.kernels.bits(ofNonzero: entries, into: mask, count: tile.count)
                writers[task].writeScales(entries, of: tile, buffer: buffer, decoded: decoded)
                tile.kernels.apply(mask, first: 0, to: decoded, count: tile.count)
                // The error is against the unselected vector, which is computed again.
                let whole = tile.scratch(1)
                try tile.difference(task + 1, into: whole)
                sums[2 * task] = tile.kernels.squaredError(whole, decoded, count: tile.count)
            }
        }
        for task in kept.indices {
            try writers[task].writeKnown(of: tensor)
            try writeValues(of: task, to: first[task] + 1, coders[task], selector, before[task], in: tensor)
        }
        tensor.release(0..<tensor.count)
        return kept.indices.map { VectorError(error: sums[2 * $0], energy: sums[2 * $0 + 1]) }
    }

    /// Values are encoded in place, among zeros, so that a grid's groups are groups of the tensor.
    private func coders(_ selector: Selector, in tensor: TensorPasses) throws -> [FormatCoder] {
        let format = StorageFormat.dense(values)
        guard let grid, needsRanges else { return kept.map { _ in FormatCoder(format, ranges: []) } }
        let ranges = try ValueRange.find(grid, of: kept.count, in: tensor) { tile, task in
            var found: UnsafePointer<Float>?
            try selector.forEach(task..<task + 1, in: tile) { found = UnsafePointer($1) }
            guard let found else { throw TesseraError(.internal, "a task without entries") }
            return found
        }
        return ranges.map { FormatCoder(format, ranges: $0) }
    }

    // MARK: Values

    /// Writes a task's values block by block. The counts before each tile tell which tiles a block's values come from.
    private func writeValues(
        of task: Int, to output: Int, _ coder: FormatCoder, _ selector: Selector, _ before: [Int], in tensor: TensorPasses
    ) throws {
        let format = formats[task].tensors(shape: tensor.shape)[1]
        let bits = grid?.bits ?? format.dtype.bitWidth
        let perBlock = format.blockSize * 8 / bits
        try tensor.runner.forEach(TreeDigest.blockCount(ofBytes: format.byteCount, blockSize: format.blockSize)) { block in
            let wanted = block * perBlock..<min(kept[task], (block + 1) * perBlock)
            var packed = PackedValues(count: wanted.count, bits: bits)
            var index = before.partitioningIndex { $0 > wanted.lowerBound } - 1
            try tensor.tiles.with { tile in
                while index < before.count - 1, before[index] < wanted.upperBound {
                    tile.take(tensor.tileRange(index))
                    try selector.forEach(task..<task + 1, in: tile) { _, entries in
                        packed.append(entries, of: tile, coder, skipping: max(0, wanted.lowerBound - before[index]))
                    }
                    index += 1
                }
            }
            try packed.withBytes { try tensor.sinks[output].storeBlock(block, offset: block * format.blockSize, $0) }
        }
    }
}

/// A block of values that is being filled.
private struct PackedValues {
    private var bytes: [UInt8]
    private let count: Int
    private let bits: Int
    private var filled = 0

    init(count: Int, bits: Int) {
        self.count = count
        self.bits = bits
        bytes = Array(repeating: 0, count: (count * bits + 7) / 8)
    }

    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try bytes.withUnsafeBytes(body)
    }

    /// Appends the nonzero entries of a tile, except for the first `skipped`, until the block is full.
    mutating func append(_ entries: UnsafePointer<Float>, of tile: Tile, _ coder: FormatCoder, skipping skipped: Int) {
        let buffer = tile.workspace { CodeBuffer() }
        if case .dense(.raw(let dtype)) = coder.format {
            let kept = tile.scratch(0)
            let found = withUnsafeTemporaryAllocation(byteCount: FixedTree.tileElements / 8, alignment: 8) { mask in
                guard let mask = mask.baseAddress else { return 0 }
                tile.kernels.bits(ofNonzero: entries, into: mask, count: tile.count)
                return tile.kernels.compress(entries, bits: mask, into: kept, count: tile.count)
            }
            let taken = max(0, min(found - skipped, count - filled))
            bytes.withUnsafeMutableBytes { bytes in
                guard let start = bytes.baseAddress, taken > 0 else { return }
                tile.kernels.narrow(kept + skipped, to: dtype, start + filled * bits / 8, count: taken)
            }
            filled += taken
        } else {
            coder.code(entries, of: tile, into: buffer.target, decoded: tile.scratch(0))
            var left = skipped
            for index in 0..<tile.count where entries[index] != 0 && filled < count {
                guard left == 0 else {
                    left -= 1
                    continue
                }
                let bit = filled * bits, code = UInt16(buffer.target.codes[index]) << (bit % 8)
                bytes[bit / 8] |= UInt8(truncatingIfNeeded: code)
                if code > 0xff { bytes[bit / 8 + 1] |= UInt8(code >> 8) }
                filled += 1
            }
        }
    }
}

extension [Int] {
    /// The first index from which on all elements satisfy the condition.
    fileprivate func partitioningIndex(_ isSecond: (Int) -> Bool) -> Int {
        var low = 0, high = count
        while low < high {
            let middle = (low + high) / 2
            if isSecond(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
