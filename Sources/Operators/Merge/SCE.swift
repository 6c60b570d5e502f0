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
        var threshold = MagnitudeEdge(pattern: 0, limit: tensor.count)
        var squares: [Double]
        if share <= 0 || models.isEmpty {
            return try emitBase(tensor)
        } else if selects {
            let query = OrderStatistics.Query(stream: 0, rank: .share(Float(share)))
            let found = try OrderStatistics.find([query], in: tensor) { tile, _ in
                try variance(tile, try tile.taskVectors(models), into: 0)
            }
            guard let smallest = found.first, smallest.rank > 0 else { return try emitBase(tensor) }
            (threshold, squares) = try cut(tensor, at: smallest)
        } else {
            squares = try tensor.sums(models.count) { tile, sums in
                for (index, row) in try tile.taskVectors(models).enumerated() {
                    sums[index] += tile.kernels.dot(row, row, count: tile.count)
                }
            }
        }
        let means = squares.map { $0 / Double(max(1, tensor.count)) }, total = means.reduce(0, +)
        let weights = means.map { Float(total < 1e-6 ? 1 / Double(means.count) : $0 / total) }
        let (edge, isCut) = (threshold, selects)
        try tensor.emit { tile, out in
            let rows = try models.map { try tile.taskVector($0) }
            if isCut {
                let keys = try variance(tile, rows.map { UnsafePointer($0) }, into: 1)
                for row in rows { keep(from: edge, keys, row, of: tile) }
            }
            tile.kernels.fuseAgreeing(
                rows.map { UnsafePointer($0) }, weights: weights, floor: 1e-6, into: out, count: tile.count)
            tile.kernels.add(try tile.source(base), to: out, count: tile.count)
        }
    }

    private func emitBase(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in out.update(from: try tile.source(base), count: tile.count) }
    }

    private func variance(_ tile: Tile, _ rows: [UnsafePointer<Float>], into scratch: Int) throws -> UnsafePointer<Float> {
        tile.kernels.variance(rows, into: tile.scratch(scratch), count: tile.count)
        return UnsafePointer(tile.scratch(scratch))
    }

    /// The edge of the kept entries among those of equal variance, and `Σ d²` over each model's kept entries. Takes one pass.
    private func cut(
        _ tensor: TensorPasses, at smallest: OrderStatistics.Found
    ) throws -> (MagnitudeEdge, [Double]) {
        let pattern = smallest.pattern
        // For each tile, the number of entries on the edge; then for each model, the sum with them and the sum without.
        let shares = try tensor.shares(1 + 2 * models.count) { tile, sums in
            let rows = try models.map { try tile.taskVector($0) }
            let keys = try variance(tile, rows.map { UnsafePointer($0) }, into: 0)
            sums[0] = Double(tile.kernels.countEqual(keys, pattern: pattern, count: tile.count))
            // Nearly no tile has an entry on the edge.
            let limits = sums[0] > 0 ? [tensor.count, 0] : [tensor.count]
            for (index, row) in rows.enumerated() {
                for (term, limit) in limits.enumerated() {
                    keep(from: MagnitudeEdge(pattern: pattern, limit: limit), keys, row, of: tile)
                    sums[1 + 2 * index + term] = tile.kernels.dot(row, row, count: tile.count)
                }
                if limits.count == 1 { sums[2 + 2 * index] = sums[1 + 2 * index] }
            }
        }
        var left = smallest.rank - smallest.above, edge = MagnitudeEdge(pattern: pattern, limit: tensor.count)
        var leaves = models.indices.map { shares[1 + 2 * $0] }
        for (index, count) in shares[0].enumerated() {
            if left >= Int(count) {
                left -= Int(count)
                continue
            }
            if edge.limit == tensor.count {
                let equal = OrderStatistics.EqualEntries(stream: 0, pattern: pattern, kept: left, bySpan: [])
                let limit = try OrderStatistics.limit(of: equal, inTile: index, keeping: left, in: tensor) { tile, _ in
                    try variance(tile, try tile.taskVectors(models), into: 0)
                }
                edge = MagnitudeEdge(pattern: pattern, limit: limit)
                let own = try tensor.visit(tile: index) { [edge] tile in
                    let rows = try models.map { try tile.taskVector($0) }
                    let keys = try variance(tile, rows.map { UnsafePointer($0) }, into: 0)
                    return rows.map { row in
                        keep(from: edge, keys, row, of: tile)
                        return tile.kernels.dot(row, row, count: tile.count)
                    }
                }
                for model in models.indices { leaves[model][index] = own[model] }
                left = 0
            } else {
                for model in models.indices { leaves[model][index] = shares[2 + 2 * model][index] }
            }
        }
        return (edge, leaves.map(FixedTree.sum))
    }

    /// Sets entries whose key lies below the edge to zero.
    private func keep(
        from edge: MagnitudeEdge, _ keys: UnsafePointer<Float>, _ row: UnsafeMutablePointer<Float>, of tile: Tile
    ) {
        let largest: UInt32 = 0x7fff_ffff
        let inclusive = min(tile.count, max(0, edge.limit - tile.range.lowerBound))
        tile.kernels.keep(edge.pattern...largest, ofKeys: keys, row, count: inclusive)
        tile.kernels.keep(
            min(edge.pattern + 1, largest)...largest, ofKeys: keys + inclusive, row + inclusive, count: tile.count - inclusive)
    }
}
