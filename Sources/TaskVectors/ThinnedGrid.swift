package import Core
import Operators
import TensorKernels

/// Codes of the elements that a hash keeps, one of every `every` consecutive ones (`Thinning`). What is not kept is zero, and
/// what is kept is larger for it: a group's scale is the one with `Σ ττ̂ = Στ²` over all elements that the group stands for
/// (docs/task-vectors.md).
///
/// The mask follows from the key, so that a vector takes `(bits + 16/group) / every` bits for each of its elements, and any
/// stretch of it is read from a stretch of the codes.
package struct ThinnedGrid: Sendable, Hashable {
    /// Of a code, 1...8. The grid has no code for zero (`Kernels.risingZero`).
    package let bits: Int
    /// Kept elements that share a scale.
    package let group: Int
    package let every: Int
    /// Of the random bytes that choose (`key(seed:task:tensor:)`); 0 where the index of a store names the format, which its tasks
    /// and tensors share.
    package internal(set) var key: UInt64

    package init(bits: Int, group: Int, every: Int, key: UInt64 = 0) {
        self.bits = bits
        self.group = group
        self.every = every
        self.key = key
    }

    /// Whose masks vectors have.
    package enum Masks: String, Sendable, Hashable, Codable {
        /// Each task keeps other elements.
        case own
        /// The tasks of a recipe keep the same elements of a tensor, so that a merge which compares the tasks entry by entry does
        /// so with those that are kept.
        case common
    }

    /// The key of a tensor of a task, by their names: a task may be added to a store later, and keeps its elements.
    package static func key(
        seed: UInt64, _ masks: Masks = .own, task: String, tensor: String
    ) throws(TesseraError) -> UInt64 {
        try CounterRandom.key(seed: seed, tensor: "\(masks == .own ? task : "")#\(tensor)")
    }

    /// Elements that a group of codes stands for: at most a tile, so that no group crosses the end of a tile.
    package var span: Int { group * every }

    /// How many of `count` elements are kept.
    package func kept(of count: Int) -> Int { (count + every - 1) / every }

    func thinning(count: Int) -> Thinning { Thinning(key: key, every: every, count: count) }

    /// Of the codes, which count kept elements.
    var grid: Grid { Grid(bits: bits, granularity: .group(group)) }

    func tensors(count: Int) -> [EncodedTensor] {
        let kept = kept(of: count)
        return [
            EncodedTensor(.codes, .u8, [(kept * bits + 7) / 8], rate: ChunkRate(unit: every, bits: bits)),
            EncodedTensor(.scales, .bf16, [(kept + group - 1) / group], rate: ChunkRate(unit: span, bits: 16)),
        ]
    }
}

extension ThinnedGrid: Codable {
    private enum CodingKeys: String, CodingKey { case bits, group, every, key }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        func number(_ key: CodingKeys, _ accepted: (Int) -> Bool) throws -> Int {
            let number = try container.decode(Int.self, forKey: key)
            guard accepted(number) else {
                throw DecodingError.dataCorruptedError(
                    forKey: key, in: container, debugDescription: "a thinned vector with \(key.stringValue) \(number)")
            }
            return number
        }
        bits = try number(.bits) { Grid.bitRange.contains($0) }
        let every = try number(.every) { Thinning.strides.contains($0) }
        group = try number(.group) { Grid.groupLengths.contains($0) && $0 * every <= FixedTree.tileElements }
        self.every = every
        key = try container.decodeIfPresent(UInt64.self, forKey: .key) ?? 0
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(bits, forKey: .bits)
        try container.encode(group, forKey: .group)
        try container.encode(every, forKey: .every)
        if key != 0 { try container.encode(key, forKey: .key) }
    }
}

extension StorageFormat {
    /// The format with the elements that the seed keeps of a tensor of a task; any other format as it is.
    package func keyed(
        seed: UInt64, _ masks: ThinnedGrid.Masks, task: String, tensor: String
    ) throws(TesseraError) -> StorageFormat {
        guard case .thinned(var grid) = self else { return self }
        grid.key = try ThinnedGrid.key(seed: seed, masks, task: task, tensor: tensor)
        return .thinned(grid)
    }

    /// The format as an index names it.
    package var unkeyed: StorageFormat {
        guard case .thinned(var grid) = self else { return self }
        grid.key = 0
        return .thinned(grid)
    }

    package var isThinned: Bool { if case .thinned = self { true } else { false } }

    /// Whether only the second version of the index has the format.
    var isOfSecondVersion: Bool { isThinned || signScaling != nil }
}

/// Encodes a thinned vector, tile by tile.
struct ThinnedCoder: Sendable {
    let grid: ThinnedGrid

    /// Encodes the elements of the current tile, and decodes them again.
    ///
    /// - Parameters:
    ///   - codes: gets one byte for each kept element.
    ///   - scales: gets the bfloat16 scales of the groups.
    ///   - decoded: gets the tile as it will be read.
    func code(
        _ x: UnsafePointer<Float>, of tile: Tile, codes: UnsafeMutablePointer<UInt8>, scales: UnsafeMutableRawPointer,
        decoded: UnsafeMutablePointer<Float>
    ) {
        let kernels = tile.kernels, thinning = grid.thinning(count: Shape.count(tile.shape))
        let kept = grid.kept(of: tile.count), groups = (kept + grid.group - 1) / grid.group
        withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, 2 * kept + groups)) { buffer in
            withUnsafeTemporaryAllocation(of: Double.self, capacity: max(1, groups)) { wanted in
                guard let picked = buffer.baseAddress, let wanted = wanted.baseAddress else { return }
                let read = picked + kept, found = read + kept
                let keepsAll = grid.every == 1, source = keepsAll ? x : UnsafePointer(picked)
                if !keepsAll { kernels.pick(thinning, of: x, tile.range, into: picked) }
                kernels.sumsOfSquares(x, group: grid.span, into: wanted, count: tile.count)
                kernels.fitKept(
                    source, wanted: wanted, every: grid.every, group: grid.group, bits: grid.bits, scales: found, codes: codes,
                    decoded: keepsAll ? decoded : read, count: kept)
                kernels.narrow(found, to: .bf16, scales, count: groups)
                if !keepsAll { kernels.place(thinning, read, into: decoded, tile.range) }
            }
        }
    }
}
