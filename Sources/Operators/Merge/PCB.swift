package import Core
import TensorKernels

/// Parameter competition balancing (PCB-Merging, arXiv 2410.02396).
///
/// With all quantiles over the whole model, `T` tasks and `yₜ` the magnitudes of `dₜ`, brought between their 0.01 % and 99.99 %
/// quantiles and then scaled to `[0, 1]`: `sₜ = exp(T·(yₜ² − 1))·tanh(dₜ·Σ d)`. What is below the `(1 − density)` quantile of
/// `sₜ` becomes that quantile, and the result scaled to `[0, 1]` is the weight `wₜ`. With `d̂ₜ` the entries whose magnitudes were
/// brought in: `out = b + λ·Σ wₜ·d̂ₜ/max(Σ wₜ, 10⁻¹²)`. The paper's scores are `exp(T)` times as large, which cancels out.
package struct PCB: MergeMethod {
    package static let name = "pcb"
    package static let summary = "Averages the task vectors, each entry weighted by how it stands out and how the others agree."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .number("density", .shared, default: 0.1, in: 0...1, "Share of the model's entries that get a weight."),
        .number("lambda", .shared, default: 1.2, "Scales the merged task vector."),
    ]
    package static let scale: String? = "lambda"

    /// The magnitudes at both ends; the quantile of the scores, which may be negative, and the largest of them.
    private static let low = "low", high = "high", above = "cut_above", below = "cut_below", best = "best"
    /// The share of entries beyond either end.
    private static let outliers = 0.0001

    private let base: Int
    private let models: [Int]
    private let density: Double
    private let lambdas: [Double]
    /// `nil` before they have been measured.
    private let ends: [ClosedRange<Double>]?
    private let cuts: [(quantile: Float, best: Double)]?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        density = try values.number("density")
        lambdas = try values.numbers("lambda")
        let low = try values.statistics(Self.low, of: models), high = try values.statistics(Self.high, of: models)
        ends = if let low, let high { zip(low, high).map { $0...max($0, $1) } } else { nil }
        let above = try values.statistics(Self.above, of: models), below = try values.statistics(Self.below, of: models)
        let best = try values.statistics(Self.best, of: models)
        cuts =
            if let above, let below, let best {
                models.indices.map { (Float(above[$0] > 0 ? above[$0] : -below[$0]), best[$0]) }
            } else {
                nil
            }
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1, memory: workspace) }

    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost {
        OperatorCost(passes: round == 0 ? 1 : 2, memory: workspace)
    }

    private var workspace: MemoryNeed {
        MemoryNeed(
            perThread: FixedTree.tileElements * (models.count * MemoryLayout<Float>.stride + 3 * MemoryLayout<Double>.stride))
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        // Of `count` scores in rising order, the one with so many below it.
        @Sendable func rank(_ count: Int, below: Double) -> Int { count - Int(below) }
        let outliers = Self.outliers, kept = 1 - density
        return [
            [
                ModelStatistic(Self.low, .magnitude { rank($1, below: Double($1) * outliers) }),
                ModelStatistic(Self.high, .magnitude { rank($1, below: Double($1) * (1 - outliers) - 1) }),
            ],
            [
                ModelStatistic(Self.best, .greatest),
                ModelStatistic(Self.above, .magnitude { rank($1, below: Double($1) * kept) }),
                // Where it lies among the scores below zero, it has another rank among their magnitudes.
                ModelStatistic(Self.below, .magnitude { $1 - rank($1, below: Double($1) * kept) + 1 }),
            ],
        ]
    }

    package func measure(round: Int, _ tensor: TensorPasses) throws {
        let least = -Float.greatestFiniteMagnitude
        let best = try tensor.fold(Array(repeating: least, count: models.count)) { best, tile in
            let scores = try scores(tile)
            for index in models.indices {
                for place in 0..<tile.count { best[index] = max(best[index], scores[index * FixedTree.tileElements + place]) }
            }
        } combine: { total, part in
            for index in total.indices { total[index] = max(total[index], part[index]) }
        }
        var all = [Double](repeating: Double(least), count: tensor.sources.count)
        for (model, score) in zip(models, best) { all[model] = Double(score) }
        tensor.report(Self.best, all)
    }

    package func entries(of statistic: String, _ source: Int, _ tile: Tile) throws -> UnsafePointer<Float> {
        guard statistic != Self.low, statistic != Self.high else { return UnsafePointer(try tile.taskVector(source)) }
        guard let index = models.firstIndex(of: source) else { throw TesseraError.notMeasured }
        let scores = try scores(tile), sign: Float = statistic == Self.above ? 1 : -1, target = tile.scratch(0)
        for place in 0..<tile.count {
            target[place] = max(0, sign * scores[index * FixedTree.tileElements + place])
        }
        return UnsafePointer(target)
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard let ends, let cuts else { throw TesseraError.notMeasured }
        try tensor.emit(lambdas.count) { tile, output, out in
            let scores = try scores(tile), lambda = lambdas[output], space = tile.workspace { Scores(models: models.count) }
            let weights = space.first, sums = space.second
            weights.update(repeating: 0, count: tile.count)
            sums.update(repeating: 0, count: tile.count)
            for (index, model) in models.enumerated() {
                let vector = try tile.taskVector(model), (quantile, best) = cuts[index], own = ends[index]
                let span = best - Double(quantile), scale = span > 0 ? 1 / span : 0
                for place in 0..<tile.count {
                    let score = max(quantile, scores[index * FixedTree.tileElements + place])
                    let weight = (Double(score) - Double(quantile)) * scale
                    let entry = Double(vector[place]), inner = max(own.lowerBound, min(own.upperBound, entry.magnitude))
                    weights[place] += weight
                    sums[place] += weight * (entry < 0 ? -inner : entry > 0 ? inner : 0)
                }
            }
            let base = try tile.source(base)
            for place in 0..<tile.count {
                out[place] = Float(Double(base[place]) + lambda * sums[place] / max(weights[place], 1e-12))
            }
        }
    }

    // MARK: Scores

    /// The scores of all models for one tile, and room for sums.
    private final class Scores {
        let scores: UnsafeMutablePointer<Float>
        let first: UnsafeMutablePointer<Double>
        let second: UnsafeMutablePointer<Double>
        var range: Range<Int>?

        init(models: Int) {
            scores = .allocate(capacity: models * FixedTree.tileElements)
            first = .allocate(capacity: FixedTree.tileElements)
            second = .allocate(capacity: FixedTree.tileElements)
        }

        deinit {
            scores.deallocate()
            first.deallocate()
            second.deallocate()
        }
    }

    /// Model after model, a tile's length apart. Computed once for each tile.
    private func scores(_ tile: Tile) throws -> UnsafePointer<Float> {
        guard let ends else { throw TesseraError.notMeasured }
        let space = tile.workspace { Scores(models: models.count) }
        guard space.range != tile.range else { return UnsafePointer(space.scores) }
        let sums = space.first, tasks = Double(models.count)
        sums.update(repeating: 0, count: tile.count)
        for model in models {
            let vector = try tile.taskVector(model)
            for place in 0..<tile.count { sums[place] += Double(vector[place]) }
        }
        for (index, model) in models.enumerated() {
            let vector = try tile.taskVector(model), own = ends[index], width = own.upperBound - own.lowerBound
            let target = space.scores + index * FixedTree.tileElements, scale = width > 0 ? 1 / width : 0
            for place in 0..<tile.count {
                let entry = Double(vector[place])
                let part = (max(own.lowerBound, min(own.upperBound, entry.magnitude)) - own.lowerBound) * scale
                let ownScore = tile.kernels.exponential(tasks * (part * part - 1))
                target[place] = Float(ownScore * Exponential.hyperbolicTangent(entry * sums[place]))
            }
        }
        space.range = tile.range
        return UnsafePointer(space.scores)
    }
}
