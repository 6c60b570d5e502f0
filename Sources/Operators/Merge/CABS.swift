package import Core
import TensorKernels

/// Task arithmetic on task vectors that share few entries (CABS, arXiv 2503.01874).
///
/// Task by task, in every `m` consecutive entries of a tensor the `n` of largest magnitude are kept that no earlier task keeps;
/// where too few are left, the largest of the others too. `out = b + Σ wₜ·(kept dₜ)`, or, with `overlap: average` (CABS+, arXiv
/// 2608.12842), at an entry that several tasks keep the mean of those `wₜdₜ` that have the sign of their sum.
package struct CABS: MergeMethod {
    package static let name = "cabs"
    package static let summary = "Adds the task vectors, of which each keeps the largest entries that the earlier ones leave."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .number("weight", .perModel, default: 1, "Scales this model's task vector."),
        .integer("n", .shared, default: 64, in: 1...Kernels.blockLimit, "The number of entries that are kept of each block."),
        .integer("m", .shared, default: 256, in: 1...Kernels.blockLimit, "The number of entries of a block."),
        .choice(
            "tail", of: EntryBlocks.Tail.allCases.map(\.rawValue), default: EntryBlocks.Tail.drop.rawValue,
            "Whether a last block that is not full is dropped, or keeps its share."),
        .choice(
            "overlap", of: ["sum", "average"], default: "sum",
            "What becomes of entries that several tasks keep: the sum, or the mean of those with the elected sign."),
    ]

    private let models: [Int]
    private let base: Int
    private let weights: [Double]
    private let blocks: EntryBlocks
    private let averages: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        weights = try models.map { (model) throws(TesseraError) in try values.number("weight", ofInput: model) }
        let kept = try values.integer("n"), size = try values.integer("m")
        guard kept <= size else {
            throw TesseraError(
                .badData, "'n' is \(kept) and 'm' is \(size)", advice: "keep at most all entries of a block: n ≤ m")
        }
        guard (1...Kernels.blockLimit).contains(size), kept > 0, let tail = EntryBlocks.Tail(rawValue: try values.text("tail"))
        else { throw TesseraError(.badData, "the plan has blocks of \(size) entries, of which \(kept) are kept") }
        blocks = EntryBlocks(kept: kept, size: size, tail: tail)
        averages = try values.text("overlap") == "average"
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 1, memory: MemoryNeed(perThread: Buffer.byteCount))
    }

    package func merge(_ tensor: TensorPasses) throws {
        let count = tensor.count
        try tensor.emit { tile, out in
            // Blocks may begin before the tile and end behind it.
            let elements = blocks.covering(tile.range, of: count), offset = tile.range.lowerBound - elements.lowerBound
            let buffer = tile.workspace { Buffer() }
            buffer.taken.update(repeating: 0, count: elements.count)
            var entries = [Claims](repeating: Claims(), count: tile.count)
            for (model, weight) in zip(models, weights) {
                try tile.loadTaskVector(model, elements, into: buffer.values)
                blocks.flag(
                    buffer.values, taken: buffer.taken, into: buffer.flags, count: elements.count, kernels: tile.kernels)
                for index in 0..<tile.count where buffer.flags[offset + index] != 0 {
                    entries[index].add(weight * Double(buffer.values[offset + index]))
                }
                for index in 0..<elements.count { buffer.taken[index] |= buffer.flags[index] }
            }
            let base = try tile.source(base)
            for index in 0..<tile.count {
                out[index] = Float(Double(base[index]) + (averages ? entries[index].average : entries[index].sum))
            }
        }
    }

    /// What the tasks that keep an entry have there.
    private struct Claims {
        private var plus = 0.0, minus = 0.0
        private var plusCount = 0.0, minusCount = 0.0

        mutating func add(_ value: Double) {
            if value < 0 {
                minus += value
                minusCount += 1
            } else {
                plus += value
                plusCount += 1
            }
        }

        var sum: Double { plus + minus }

        /// The mean of the values that have the sign of the sum; 0 where they cancel.
        var average: Double {
            sum > 0 ? plus / plusCount : sum < 0 ? minus / minusCount : sum
        }
    }

    /// A tile's blocks.
    private final class Buffer {
        private static let capacity = FixedTree.tileElements + 2 * Kernels.blockLimit
        let values = UnsafeMutablePointer<Float>.allocate(capacity: capacity)
        let taken = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        let flags = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)

        /// Bytes, with those of the claims.
        static let byteCount =
            capacity * (MemoryLayout<Float>.stride + 2) + FixedTree.tileElements * MemoryLayout<Claims>.stride

        deinit {
            values.deallocate()
            taken.deallocate()
            flags.deallocate()
        }
    }
}
