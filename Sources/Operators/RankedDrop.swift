import Core
import TensorKernels

/// Keeps an entry of a task vector with a probability that grows with its rank in its row (DELLA, arXiv 2406.11617).
///
/// With `r` the rank of `|d|` among the `R` entries of the row, from 1 for the smallest, equal ones by index:
/// `p = (density − epsilon) + 2·epsilon·(r − 1)/(R − 1)`. A row runs along dimension 1, also with three or more dimensions; a
/// tensor of one dimension is one row, and a row of one entry stays with the probability `density` (mergekit ends with an error
/// there).
struct RankedDrop: Sparsifier {
    private let models: [Int]
    private let densities: [Double]
    private let epsilons: [Double]
    private let random: [CounterRandom]

    static let epsilon = Parameter.number(
        "epsilon", .perModel, default: 0.15, in: 0...1,
        "How far the probability of the row's smallest and largest entry lies from the density.")

    init(_ values: ParameterValues, _ vectors: TaskVectorSum, inputs: TensorInputs) throws(TesseraError) {
        models = vectors.models
        densities = vectors.densities
        epsilons = try models.map { (model) throws(TesseraError) in try values.number("epsilon", ofInput: model) }
        random = models.map { CounterRandom(key: inputs.randomKey, stream: UInt32(truncatingIfNeeded: $0)) }
        for (density, epsilon) in zip(densities, epsilons) where density > 0 && density < 1 {
            guard density - epsilon > 0, density + epsilon < 1 else {
                let limit = (min(density, 1 - density) * 1e6).rounded() / 1e6
                throw TesseraError(
                    .badData,
                    "density \(density) with epsilon \(epsilon): density - epsilon and density + epsilon must lie strictly "
                        + "between 0 and 1",
                    advice: "set 'epsilon' below \(limit), or choose another density; density 0 and 1 need no epsilon")
            }
        }
    }

    func cost(_ vectors: TaskVectorSum, shape: [Int]) -> OperatorCost {
        guard vectors.isSparse else { return vectors.cost }
        let rows = RowGroups(shape: shape)
        // Rows that cross the ends of tiles are read apart from the tiles.
        let passes = rows.fitsTiles ? vectors.passes : 2 * vectors.passes
        return OperatorCost(
            passes: passes,
            memory: MemoryNeed(
                perThread: RankBuffer.byteCount(row: rows.length) + rows.groupBuffer * (4 + models.count)
                    + (rows.stride > 1 ? rows.groupLength * 4 + rows.length * 9 : 0) + vectors.flagBytes))
    }

    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int) { (densities[index] > 0 ? .all : .none, .max) }

    func isFlagging(_ index: Int) -> Bool { densities[index] > 0 && densities[index] < 1 }

    func flag(_ index: Int, _ own: UnsafeMutablePointer<UInt8>, of tile: Tile) throws {
        let buffer = tile.workspace { RankedDropBuffer(models: models.count) }
        let rows = RowGroups(shape: tile.shape)
        guard rows.length <= RankBuffer.rowLimit else {
            throw TesseraError(
                .badData,
                "has rows of \(rows.length) elements, more than \(RankBuffer.rowLimit), which is the most that can be ranked"
            )
        }
        let length = rows.groupLength
        let flags = try buffer.flags(index, rows.groups(of: tile.range), rows) { groups, flags in
            let elements = groups.lowerBound * length..<groups.upperBound * length
            let deltas = buffer.deltas(rows.groupBuffer)
            try tile.loadTaskVector(models[index], elements, into: deltas)
            for start in stride(from: elements.lowerBound, to: elements.upperBound, by: length) {
                let offset = start - elements.lowerBound
                choose(index, rows, first: start, deltas + offset, buffer: buffer, flags: flags + offset, kernels: tile.kernels)
            }
        }
        own.update(from: flags + tile.range.lowerBound % length, count: tile.count)
    }

    private func choose(
        _ index: Int, _ rows: RowGroups, first: Int, _ deltas: UnsafePointer<Float>, buffer: RankedDropBuffer,
        flags: UnsafeMutablePointer<UInt8>, kernels: Kernels
    ) {
        let lowest = densities[index] - epsilons[index], spread = 2 * epsilons[index]
        if rows.stride == 1 {
            buffer.ranks.choose(
                deltas, random[index], first: first, lowest: lowest, spread: spread, flags: flags, count: rows.length,
                kernels: kernels)
            return
        }
        let words = buffer.words(rows.groupLength)
        random[index].draw(first: first, into: words, count: rows.groupLength, kernels: kernels)
        let row = buffer.row(rows.length)
        for column in 0..<rows.stride {
            for position in 0..<rows.length {
                row.deltas[position] = deltas[position * rows.stride + column]
                row.words[position] = words[position * rows.stride + column]
            }
            buffer.ranks.choose(
                row.deltas, words: row.words, lowest: lowest, spread: spread, flags: row.flags, count: rows.length,
                kernels: kernels)
            for position in 0..<rows.length { flags[position * rows.stride + column] = row.flags[position] }
        }
    }
}

/// The rows along dimension 1. `stride` rows are interleaved in each group of consecutive elements.
private struct RowGroups {
    let length: Int
    let stride: Int
    var groupLength: Int { length * stride }
    /// The largest number of elements in the groups that a tile overlaps.
    let groupBuffer: Int
    /// Whether each group lies within one tile.
    var fitsTiles: Bool { FixedTree.tileElements % groupLength == 0 }

    init(shape: [Int]) {
        length = max(1, shape.count > 1 ? shape[1] : shape.first ?? 1)
        stride = max(1, Shape.count(Array(shape.dropFirst(2))))
        groupBuffer = min(Shape.count(shape), FixedTree.tileElements + 2 * length * stride)
    }

    /// The groups that a tile overlaps.
    func groups(of tile: Range<Int>) -> Range<Int> {
        tile.lowerBound / groupLength..<(tile.upperBound - 1) / groupLength + 1
    }
}

/// One thread's rows, and its last choice for each model: neighbouring tiles need the same row.
private final class RankedDropBuffer {
    let ranks = RankBuffer()
    private var chosen: [Range<Int>]
    private var flags: [ScratchBuffer<UInt8>]
    private let deltaBuffer = ScratchBuffer<Float>(), wordBuffer = ScratchBuffer<UInt32>()
    private let rowDeltas = ScratchBuffer<Float>(), rowWords = ScratchBuffer<UInt32>(), rowFlags = ScratchBuffer<UInt8>()

    init(models: Int) {
        chosen = Array(repeating: 0..<0, count: models)
        flags = (0..<models).map { _ in ScratchBuffer() }
    }

    func deltas(_ count: Int) -> UnsafeMutablePointer<Float> { deltaBuffer.pointer(count) }
    func words(_ count: Int) -> UnsafeMutablePointer<UInt32> { wordBuffer.pointer(count) }

    func row(_ count: Int) -> (
        deltas: UnsafeMutablePointer<Float>, words: UnsafeMutablePointer<UInt32>, flags: UnsafeMutablePointer<UInt8>
    ) {
        (rowDeltas.pointer(count), rowWords.pointer(count), rowFlags.pointer(count))
    }

    /// The flags of all elements of some groups. `choose` computes those that are not among the model's last ones.
    func flags(
        _ index: Int, _ groups: Range<Int>, _ rows: RowGroups,
        _ choose: (Range<Int>, UnsafeMutablePointer<UInt8>) throws -> Void
    ) rethrows -> UnsafePointer<UInt8> {
        let length = rows.groupLength, buffer = flags[index].pointer(rows.groupBuffer)
        let last = chosen[index], known = last.contains(groups.lowerBound) ? last.clamped(to: groups) : groups.prefix(0)
        if !known.isEmpty {
            buffer.update(from: buffer + (known.lowerBound - last.lowerBound) * length, count: known.count * length)
        }
        chosen[index] = known
        if known != groups { try choose(known.upperBound..<groups.upperBound, buffer + known.count * length) }
        chosen[index] = groups
        return UnsafePointer(buffer)
    }
}
