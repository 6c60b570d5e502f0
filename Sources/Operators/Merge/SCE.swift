package import Core
import TensorKernels

/// Select what varies, calculate the models' weights, erase what disagrees (SCE, FuseChat, arXiv 2408.07990).
///
/// With `dᵢ = xᵢ − b`: the `⌊select_topk · z⌋` entries of largest variance over the models stay, `z` being how many have any;
/// `ωᵢ = mean(dᵢ²)` over the tensor, divided by their sum, or `1/n` where that is below 1e-6; the elected sign is that of
/// `Σ dᵢ`, zero counting as plus; `out = b + Σ ωᵢdᵢ / max(Σ ωᵢ, 1e-6)` over the models whose entry has it.
package struct SCE: MergeMethod {
    package static let name = "sce"
    package static let summary = "Keeps the entries that vary most between models, and weighs models by the size of their change."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters: [Parameter] = [
        .number("select_topk", .shared, default: 1, in: 0...1, "Share of the varying entries that are kept."),
        .flag("int8_mask", default: false, "Accepted for mergekit's sake; it never had an effect on the result."),
    ]

    private let share: Double
    private let models: [Int]
    private let base: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        share = try values.number("select_topk")
        models = inputs.models
        base = try inputs.requiredBase()
    }

    private var selects: Bool { share > 0 && share < 1 && !models.isEmpty }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(
            passes: share <= 0 ? 1 : selects ? 3 : 2,
            memory: selects ? OrderStatistics.memory(queries: 1, count: Shape.count(shape)) : MemoryNeed())
    }

    package func merge(_ tensor: TensorPasses) throws {
        var edge = MagnitudeEdge(pattern: 0, limit: tensor.count)
        if share <= 0 || models.isEmpty {
            return try emitBase(tensor)
        } else if selects {
            let query = OrderStatistics.Query(stream: 0, rank: .share(Float(share)))
            let found = try OrderStatistics.find([query], in: tensor) { tile, _ in try variances(tile) }
            guard let smallest = found.first, smallest.rank > 0 else { return try emitBase(tensor) }
            let equal = OrderStatistics.EqualEntries(stream: 0, to: smallest, kept: smallest.rank - smallest.above)
            let limit = try OrderStatistics.limit(of: equal, in: tensor) { tile, _ in try variances(tile) }
            edge = MagnitudeEdge(pattern: smallest.pattern, limit: limit)
        }
        let sums = try tensor.sums(models.count) { [edge] tile, sums in
            let segments = edge.segments(of: tile)
            let own = segments.count == 1 ? try entries(tile).squares(from: segments[0].1) : try squares(ofCut: tile, at: edge)
            for (index, sum) in own.enumerated() { sums[index] += sum }
        }
        let means = sums.map { $0 / Double(max(1, tensor.count)) }, total = means.reduce(0, +)
        let weights = means.map { Float(total < 1e-6 ? 1 / Double(means.count) : $0 / total) }
        try tensor.emit { [edge] tile, out in
            for (range, pattern) in edge.segments(of: tile) {
                try entries(tile, range, weights: weights).fuse(from: pattern, floor: 1e-6, into: out + range.lowerBound)
            }
        }
    }

    private func emitBase(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in out.update(from: try tile.source(base), count: tile.count) }
    }

    /// Elements of a tile, all of them or those of `range`, counted from the beginning of the tile.
    private func entries(_ tile: Tile, _ range: Range<Int>? = nil, weights: [Float]? = nil) throws -> Kernels.VaryingEntries {
        Kernels.VaryingEntries(
            of: try models.map { try tile.storedTaskVector($0, base: base) }, base: try tile.stored(base), weights: weights,
            range: range ?? 0..<tile.count, kernels: tile.kernels)
    }

    private func variances(_ tile: Tile) throws -> UnsafePointer<Float> {
        try entries(tile).variances(into: tile.scratch(0))
        return UnsafePointer(tile.scratch(0))
    }

    /// `Σ d²` over each model's kept entries in the tile that the edge cuts.
    private func squares(ofCut tile: Tile, at edge: MagnitudeEdge) throws -> [Double] {
        let variances = try variances(tile)
        return try models.map { model in
            let row = try tile.taskVector(model)
            for index in 0..<tile.count {
                let lowest = edge.lowest(at: tile.range.lowerBound + index)
                // A NaN that is dropped remains NaN.
                row[index] *= variances[index].magnitude.bitPattern >= lowest ? 1 : 0
            }
            return tile.kernels.dot(row, row, count: tile.count)
        }
    }
}
