package import Operators
import TensorKernels

/// Which entries of a task vector are kept.
package enum Selection: Sendable, Hashable, Codable {
    /// For each task, this many entries of the largest magnitudes; of equal ones, those with the lowest indices.
    case largest([Int])
    /// Each entry with probability `density`, by which it is then divided (DARE, arXiv 2311.03099). One key per task.
    case random(density: Double, keys: [UInt64])
    /// In every `m` consecutive entries, the `n` largest magnitudes. If `isDisjoint`, not those that an earlier task keeps,
    /// unless too few others are left (CABS, arXiv 2503.01874).
    case blocks(n: Int, m: Int, tail: EntryBlocks.Tail, isDisjoint: Bool)

    var isDisjoint: Bool {
        if case .blocks(_, _, _, true) = self { true } else { false }
    }

    /// The number of passes before entries can be selected.
    var passes: Int {
        if case .largest = self { 1 } else { 0 }
    }
}

/// A selection with what it needs to know about the whole tensor.
struct Selector: Sendable {
    private let selection: Selection
    private let trim: MagnitudeTrim?

    init(_ selection: Selection, in tensor: TensorPasses) throws {
        self.selection = selection
        if case .largest(let kept) = selection {
            trim = try MagnitudeTrim(kept.map { .init(kept: $0) }, of: Array(1...tensor.taskCount), in: tensor)
        } else {
            trim = nil
        }
    }

    /// Selects entries of the current tile of a task's vector.
    ///
    /// - Parameter taken: a flag for each entry that an earlier task keeps. If tasks are disjoint, those of this task are added.
    /// - Returns: the vector in its slot, in which unselected entries are zero.
    func select(
        _ task: Int, in tile: Tile, taken: UnsafeMutablePointer<UInt8>
    ) throws -> UnsafeMutablePointer<Float> {
        let entries = try tile.taskVector(task + 1), keep = tile.workspace { SelectionBuffer() }.keep
        switch selection {
        case .largest: trim?.keep(task, of: entries, scores: entries, in: tile)
        case .random(let density, let keys):
            guard density < 1 else { break }
            CounterRandom(key: keys[task], stream: 0).flag(
                probability: density, first: tile.range.lowerBound, keep, count: tile.count, kernels: tile.kernels)
            for index in 0..<tile.count { entries[index] = keep[index] == 0 ? 0 : entries[index] }
            rescale(entries, in: tile)
        case .blocks(let n, let m, let tail, let isDisjoint):
            if !isDisjoint { taken.update(repeating: 0, count: tile.count) }
            EntryBlocks(kept: n, size: m, tail: tail).flag(
                entries, taken: taken, into: keep, count: tile.count, kernels: tile.kernels)
            for index in 0..<tile.count {
                entries[index] = keep[index] == 0 ? 0 : entries[index]
                taken[index] |= keep[index]
            }
        }
        return entries
    }

    /// The current tile of a task's vector in its slot, with the entries that were selected before.
    func selected(_ task: Int, by bitmaps: SelectionBitmaps, in tile: Tile) throws -> UnsafeMutablePointer<Float> {
        let entries = try tile.taskVector(task + 1)
        keep(bitmaps, of: entries, in: tile)
        return entries
    }

    /// Makes of a task's vector what `select` made of it.
    func keep(_ bitmaps: SelectionBitmaps, of entries: UnsafeMutablePointer<Float>, in tile: Tile) {
        tile.kernels.apply(bitmaps.kept(in: tile), first: 0, to: entries, count: tile.count)
        rescale(entries, in: tile)
    }

    private func rescale(_ entries: UnsafeMutablePointer<Float>, in tile: Tile) {
        guard case .random(let density, _) = selection, density < 1 else { return }
        tile.kernels.scale(entries, by: Float(1 / density), into: entries, count: tile.count)
    }
}

/// Which entries of a tensor the current task keeps and, if tasks are disjoint, which the tasks so far took: a bit for each.
///
/// Unchecked: the bytes of a tile, which are no other tile's, are used only by the thread that works on the tile.
final class SelectionBitmaps: @unchecked Sendable {
    private let kept: UnsafeMutablePointer<UInt8>
    private let taken: UnsafeMutablePointer<UInt8>?

    init(count: Int, isDisjoint: Bool) {
        func bitmap() -> UnsafeMutablePointer<UInt8> {
            let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, (count + 7) / 8))
            bytes.initialize(repeating: 0, count: (count + 7) / 8)
            return bytes
        }
        kept = bitmap()
        taken = isDisjoint ? bitmap() : nil
    }

    deinit {
        kept.deallocate()
        taken?.deallocate()
    }

    /// Bytes of the bitmaps of a tensor with `count` elements.
    static func byteCount(count: Int, isDisjoint: Bool) -> Int { (isDisjoint ? 2 : 1) * ((count + 7) / 8) }

    /// The bits of the tile's entries that the current task keeps.
    func kept(in tile: Tile) -> UnsafeRawPointer { UnsafeRawPointer(kept + tile.range.lowerBound / 8) }

    /// Sets the bits of a task's selected entries.
    ///
    /// - Returns: their number.
    func mark(_ entries: UnsafePointer<Float>, in tile: Tile) -> Int {
        let first = tile.range.lowerBound / 8, own = kept + first
        tile.kernels.bits(ofNonzero: entries, into: own, count: tile.count)
        if let taken { for byte in 0..<(tile.count + 7) / 8 { taken[first + byte] |= own[byte] } }
        return tile.kernels.countBits(own, count: tile.count)
    }

    /// A flag for each of the tile's entries that an earlier task keeps.
    func taken(in tile: Tile) -> UnsafeMutablePointer<UInt8> {
        let flags = SelectionBuffer.ofNone(in: tile)
        guard let taken else { return flags }
        let own = taken + tile.range.lowerBound / 8
        for index in 0..<tile.count { flags[index] = own[index / 8] >> (index % 8) & 1 }
        return flags
    }
}

/// Flags for the selection in a tile.
final class SelectionBuffer {
    fileprivate let taken = UnsafeMutablePointer<UInt8>.allocate(capacity: FixedTree.tileElements)
    fileprivate let keep = UnsafeMutablePointer<UInt8>.allocate(capacity: FixedTree.tileElements)

    /// The tile's flags of taken entries, none of which is set.
    static func ofNone(in tile: Tile) -> UnsafeMutablePointer<UInt8> {
        let flags = tile.workspace { SelectionBuffer() }.taken
        flags.update(repeating: 0, count: tile.count)
        return flags
    }

    deinit {
        taken.deallocate()
        keep.deallocate()
    }
}
