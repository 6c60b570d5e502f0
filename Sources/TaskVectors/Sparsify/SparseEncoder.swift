import Core
import Operators
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

    /// The passes of the selection and for ranges, and for each task one that selects, one for the bitmap and one for the values.
    var passes: Int { selection.passes + (needsRanges ? 1 : 0) + 3 }

    /// The memory of the selection and of the bitmaps.
    func memory(count: Int) -> MemoryNeed {
        selectionMemory(count: count)
            + MemoryNeed(shared: SelectionBitmaps.byteCount(count: count, isDisjoint: selection.isDisjoint))
    }

    /// The memory of the selection alone.
    func selectionMemory(count: Int) -> MemoryNeed {
        if case .largest(let kept) = selection { MagnitudeTrim.memory(models: kept.count, count: count) } else { MemoryNeed() }
    }

    private var grid: Grid? {
        if case .grid(let grid) = values { grid } else { nil }
    }

    private var needsRanges: Bool { grid.map(GridCoder.needsRanges) ?? false }

    /// - Returns: for each task, the number of entries that were selected and are not zero.
    func countKept(in tensor: TensorPasses) throws -> [Int] {
        let selector = try Selector(selection, in: tensor)
        let counts = try tensor.counts(kept.count, isLast: true) { tile, counts in
            let taken = SelectionBuffer.ofNone(in: tile)
            for task in kept.indices {
                counts[task] = tile.kernels.countNonzero(
                    try selector.select(task, in: tile, taken: taken), count: tile.count)
            }
        }
        return counts.map { $0.reduce(0, +) }
    }

    /// Encodes one task after the other: what a task's entries are selected from depends only on the bitmap of what the tasks
    /// before it took, so that each tile of each task is selected once.
    ///
    /// - Returns: the error of each task's stored vector.
    func encode(_ tensor: TensorPasses) throws -> [VectorError] {
        let selector = try Selector(selection, in: tensor)
        let bitmaps = SelectionBitmaps(count: tensor.count, isDisjoint: selection.isDisjoint)
        var errors: [VectorError] = [], firstOutput = 0
        for task in kept.indices {
            let before = try mark(task, selector, bitmaps, in: tensor)
            let coder = try coder(of: task, selector, bitmaps, in: tensor)
            errors.append(try writeBitmap(of: task, to: firstOutput, coder, selector, bitmaps, in: tensor))
            try writeValues(of: task, to: firstOutput + 1, coder, selector, bitmaps, before, in: tensor)
            firstOutput += formats[task].tensors(shape: tensor.shape).count
        }
        tensor.release(0..<tensor.count)
        return errors
    }

    /// Selects a task's entries.
    ///
    /// - Returns: the number of values before each tile, and of all.
    private func mark(
        _ task: Int, _ selector: Selector, _ bitmaps: SelectionBitmaps, in tensor: TensorPasses
    ) throws -> [Int] {
        let counts = try tensor.counts(1) { tile, counts in
            let entries = try selector.select(task, in: tile, taken: bitmaps.taken(in: tile))
            counts[0] = bitmaps.mark(entries, in: tile)
        }
        let before = counts[0].reduce(into: [0]) { $0.append(($0.last ?? 0) + $1) }
        guard before.last ?? 0 <= kept[task] else {
            throw TesseraError(
                .badData, "changed while it was being read: \(before.last ?? 0) entries were selected, and \(kept[task]) earlier")
        }
        return before
    }

    /// Values are encoded in place, among zeros, so that a grid's groups are groups of the tensor.
    private func coder(
        of task: Int, _ selector: Selector, _ bitmaps: SelectionBitmaps, in tensor: TensorPasses
    ) throws -> FormatCoder {
        guard let grid, needsRanges else { return FormatCoder(.dense(values), ranges: []) }
        let ranges = try ValueRange.find(grid, of: 1, in: tensor) { tile, _ in
            UnsafePointer(try selector.selected(task, by: bitmaps, in: tile))
        }
        return FormatCoder(.dense(values), ranges: ranges[0])
    }

    /// Writes a task's bitmap, and the scales of its values.
    private func writeBitmap(
        of task: Int, to output: Int, _ coder: FormatCoder, _ selector: Selector, _ bitmaps: SelectionBitmaps,
        in tensor: TensorPasses
    ) throws -> VectorError {
        let writer = FormatWriter(coder, firstOutput: output + 1, shape: tensor.shape)
        let rates = Array(repeating: nil, count: output) + formats[task].tensors(shape: tensor.shape).map(\.rate)
        let sums = try tensor.emit(rates, terms: 2, isLast: false) { tile, buffer, sums in
            let vector = try tile.taskVector(task + 1), selected = tile.scratch(1), decoded = tile.scratch(0)
            sums[1] = tile.kernels.dot(vector, vector, count: tile.count)
            guard sums[1].isFinite else { throw NotFinite.error }
            selected.update(from: vector, count: tile.count)
            selector.keep(bitmaps, of: selected, in: tile)
            let bitmap = bitmaps.kept(in: tile)
            buffer.place(in: output).copyMemory(from: bitmap, byteCount: (tile.count + 7) / 8)
            writer.writeScales(selected, of: tile, buffer: buffer, decoded: decoded)
            tile.kernels.apply(bitmap, first: 0, to: decoded, count: tile.count)
            sums[0] = tile.kernels.squaredError(vector, decoded, count: tile.count)
        }
        try writer.writeKnown(of: tensor)
        return VectorError(error: sums[0], energy: sums[1])
    }

    // MARK: Values

    /// Writes a task's values block by block. The counts before each tile tell which tiles a block's values come from.
    private func writeValues(
        of task: Int, to output: Int, _ coder: FormatCoder, _ selector: Selector, _ bitmaps: SelectionBitmaps, _ before: [Int],
        in tensor: TensorPasses
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
                    let entries = try selector.selected(task, by: bitmaps, in: tile)
                    packed.append(entries, of: tile, coder, skipping: max(0, wanted.lowerBound - before[index]))
                    index += 1
                }
            }
            try packed.withBytes { bytes in
                let start = block * format.blockSize
                try tensor.sinks[output].storeBlocks(BlockPair(index: block, start..<start + bytes.count), bytes)
            }
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
