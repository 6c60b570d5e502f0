import Operators
import TensorKernels

/// Which entries of a task vector are kept.
package enum Selection: Sendable, Hashable, Codable {
    /// For each task, this many entries of the largest magnitudes; of equal ones, those with the lowest indices.
    case largest([Int])
    /// Each entry with probability `density`, by which it is then divided (DARE, arXiv 2311.03099). One key per task.
    case random(density: Double, keys: [UInt64])
    /// In every `m` consecutive entries, the `n` largest magnitudes. If `isDisjoint`, not those that an earlier task keeps,
    /// unless too few others are left (CABS, arXiv 2503.01874).
    case blocks(n: Int, m: Int, tail: Tail, isDisjoint: Bool)

    /// What happens to the last entries of a tensor if they are fewer than `m`.
    package enum Tail: String, Sendable, Hashable, Codable, CaseIterable {
        /// They are dropped, as in the paper's script.
        case drop
        /// `⌈n · length / m⌉` of them are kept.
        case prorate
    }

    var isDisjoint: Bool {
        if case .blocks(_, _, _, true) = self { true } else { false }
    }

    /// The number of passes before entries can be selected.
    var passes: Int {
        if case .largest = self { 1 } else { 0 }
    }

    /// The largest number of entries that are kept of `count`.
    package static func kept(n: Int, m: Int, tail: Tail, of count: Int) -> Int {
        count / m * n + keptOfTail(n: n, m: m, tail: tail, length: count % m)
    }

    static func keptOfTail(n: Int, m: Int, tail: Tail, length: Int) -> Int {
        tail == .drop ? 0 : (n * length + m - 1) / m
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

    /// Calls `body` for each of `tasks` in order, with the current tile of its task vector, in which unselected entries are zero.
    /// If tasks are disjoint, earlier tasks are selected too.
    func forEach(
        _ tasks: Range<Int>, in tile: Tile, _ body: (_ task: Int, UnsafeMutablePointer<Float>) throws -> Void
    ) throws {
        let buffer = tile.workspace { SelectionBuffer() }
        if selection.isDisjoint { buffer.taken.update(repeating: 0, count: tile.count) }
        for task in selection.isDisjoint ? 0..<tasks.upperBound : tasks {
            let entries = try tile.taskVector(task + 1)
            try select(task, entries, of: tile, buffer)
            if tasks.contains(task) { try body(task, entries) }
        }
    }

    private func select(
        _ task: Int, _ entries: UnsafeMutablePointer<Float>, of tile: Tile, _ buffer: SelectionBuffer
    ) throws {
        switch selection {
        case .largest: keepLargest(task, entries, of: tile)
        case .random(let density, let keys):
            guard density < 1 else { return }
            CounterRandom(key: keys[task], stream: 0).flag(
                probability: density, first: tile.range.lowerBound, buffer.keep, count: tile.count, kernels: tile.kernels)
            buffer.clear(entries, count: tile.count)
            tile.kernels.scale(entries, by: Float(1 / density), into: entries, count: tile.count)
        case .blocks(let n, let m, let tail, let isDisjoint):
            if !isDisjoint { buffer.taken.update(repeating: 0, count: tile.count) }
            let lastKept = Selection.keptOfTail(n: n, m: m, tail: tail, length: tile.count % m)
            tile.kernels.keepLargest(
                n, ofEach: m, keptAtEnd: lastKept, entries, taken: buffer.taken, into: buffer.keep, count: tile.count)
            buffer.clear(entries, count: tile.count)
            if isDisjoint {
                for index in 0..<tile.count { buffer.taken[index] |= buffer.keep[index] }
            }
        }
    }
}

extension Selector {
    private func keepLargest(_ task: Int, _ entries: UnsafeMutablePointer<Float>, of tile: Tile) {
        guard let trim else { return }
        var start = tile.range.lowerBound
        while start < tile.range.upperBound {
            let (band, limit) = trim.band(task, from: start), end = min(limit, tile.range.upperBound)
            for index in start - tile.range.lowerBound..<end - tile.range.lowerBound {
                let pattern = entries[index].magnitude.bitPattern
                entries[index] = pattern >= band.from && pattern <= band.to ? entries[index] : 0
            }
            start = end
        }
    }
}

/// Buffers for the selection in a tile.
private final class SelectionBuffer {
    let taken = UnsafeMutablePointer<UInt8>.allocate(capacity: FixedTree.tileElements)
    let keep = UnsafeMutablePointer<UInt8>.allocate(capacity: FixedTree.tileElements)

    /// Sets entries that are not kept to zero.
    func clear(_ entries: UnsafeMutablePointer<Float>, count: Int) {
        for index in 0..<count { entries[index] = keep[index] == 0 ? 0 : entries[index] }
    }

    deinit {
        taken.deallocate()
        keep.deallocate()
    }
}
