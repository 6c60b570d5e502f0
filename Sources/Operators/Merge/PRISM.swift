package import Core
import TensorKernels

/// The mean of the task vectors without what is within the noise between them (PRISM, arXiv 2610.03199). Experimental.
///
/// Over the tensors of the layers, `xₜ = sₜ·τₜ` with `sₜ = min ‖τ‖/(‖τₜ‖ + 10⁻¹⁰)`. With all means over the `T` tasks, an entry
/// has the interference `v = mean(x²) − mean(x)²` and the conflict `min(2/T·min(Σ x⁺, Σ x⁻)², v)`. If the conflict of all
/// entries is at least the share `gate` of their interference, a layer of `n` entries with the mean interference `I` has the
/// threshold `θ = kappa·√I·√(2·ln n)`, else 0. Then `out = b + λ·sign(y)·max(|y| − θ, 0)` with `y = mean(x)`. Where less than
/// the share `keep` of a tensor's entries would stay, `θ` is the `⌊keep·n⌋`-th largest `|y|` of the tensor. `λ` is `1/T` by
/// default.
///
/// Tensors outside the layers are those of the base.
package struct PRISM: MergeMethod {
    package static let name = "prism"
    package static let summary = "Experimental: averages the task vectors of the layers without what is noise between them."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .number("lambda", .shared, default: nil, "Scales the mean; 1 over the number of models by default."),
        .number("kappa", .shared, default: 1, in: 0...1e6, "Scales the thresholds."),
        .number("gate", .shared, default: 0.1, in: 0...1, "The least share of conflict in the interference with thresholds."),
        .number("keep", .shared, default: 0.001, in: 0...1, "The least share of a tensor's entries that stays."),
        .tensorNames("include", default: true, "Parts of the names of tensors that are merged; all others stay at the base."),
    ]
    package static let scale: String? = "lambda"
    package static let unmeasured: Set = ["kappa", "gate", "keep"]

    private static let squaredNorm = "squared_norm"
    private static let interference = "interference", entries = "entries", all = "all_interference", conflict = "conflict"

    private let base: Int
    private let models: [Int]
    private let lambdas: [Double]
    private let keep: Double
    private let isIncluded: Bool
    /// For each model; `nil` before the norms have been measured.
    private let scales: [Double]?
    /// Of the tensor's layer; `nil` before it has been measured.
    private let threshold: Double?
    private let isOutside: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        lambdas = values.optionalNumbers("lambda") ?? [1 / Double(models.count)]
        keep = try values.number("keep")
        isIncluded = try values.flag("include")
        scales = try values.statistics(Self.squaredNorm, of: models).map { squares in
            let norms = squares.map { $0.squareRoot() }, least = norms.min() ?? 0
            return norms.allSatisfy { $0 == 0 } ? norms.map { _ in 1 } : norms.map { least / ($0 + 1e-10) }
        }
        if let layers = try values.layers(Self.interference, ofInput: base),
            let counts = try values.layers(Self.entries, ofInput: base)
        {
            isOutside = layers.own == nil
            let total = try values.optionalNumber(Self.all, ofInput: base) ?? 0
            let conflict = try values.optionalNumber(Self.conflict, ofInput: base) ?? 0
            let kappa = try values.number("kappa"), gate = try values.number("gate")
            threshold = layers.own.map { own in
                guard conflict / (total + 1e-12) >= gate else { return 0 }
                let count = max(2, counts.numbers[own]), mean = max(1e-12, layers.numbers[own] / max(1, counts.numbers[own]))
                return kappa * mean.squareRoot() * (2 * Exponential.logarithm(count)).squareRoot()
            }
        } else {
            isOutside = false
            threshold = nil
        }
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 3, memory: OrderStatistics.memory(queries: 1, count: Shape.count(shape)) + Self.workspace)
    }

    private static let workspace = MemoryNeed(perThread: 4 * FixedTree.tileElements * MemoryLayout<Double>.stride)

    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost { OperatorCost(passes: 1, memory: Self.workspace) }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        guard isIncluded else { return [] }
        return [
            [ModelStatistic(Self.squaredNorm, .sum)],
            [
                ModelStatistic(Self.interference, .sum, over: .layers), ModelStatistic(Self.entries, .sum, over: .layers),
                ModelStatistic(Self.all, .sum), ModelStatistic(Self.conflict, .sum),
            ],
        ]
    }

    package func measure(round: Int, _ tensor: TensorPasses) throws {
        guard round > 0 else { return tensor.report(Self.squaredNorm, try tensor.squaredNorms(of: models)) }
        guard let scales else { throw TesseraError.notMeasured }
        let tasks = Double(models.count)
        let sums = try tensor.sums(2, isLast: true) { tile, sums in
            var squares = [Double](repeating: 0, count: tile.count), plus = squares, minus = squares
            for (model, scale) in zip(models, scales) {
                let vector = try tile.taskVector(model)
                for place in 0..<tile.count {
                    let x = scale * Double(vector[place])
                    squares[place] += x * x
                    plus[place] += max(0, x)
                    minus[place] += max(0, -x)
                }
            }
            for place in 0..<tile.count {
                let mean = (plus[place] - minus[place]) / tasks, variance = max(0, squares[place] / tasks - mean * mean)
                let opposed = min(plus[place], minus[place])
                sums[0] += variance
                sums[1] += min(2 / tasks * opposed * opposed, variance)
            }
        }
        let found = [
            (Self.interference, sums[0]), (Self.entries, Double(tensor.count)), (Self.all, sums[0]), (Self.conflict, sums[1]),
        ]
        for (name, number) in found { tensor.report(name, tensor.sources.indices.map { $0 == base ? number : 0 }) }
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard isIncluded, !isOutside else {
            return try tensor.emit(lambdas.count) { tile, _, out in out.update(from: try tile.source(base), count: tile.count) }
        }
        guard let scales, let threshold else { throw TesseraError.notMeasured }
        let least = try floor(threshold, tensor, scales)
        try tensor.emit(lambdas.count) { tile, output, out in
            let means = try means(tile, scales), base = try tile.source(base), lambda = lambdas[output]
            for place in 0..<tile.count {
                let size = max(0, Double(means[place].magnitude) - least)
                let value = Float(Double(base[place]) + lambda * (means[place] < 0 ? -size : size))
                out[place] = value.isFinite ? value : base[place]
            }
        }
    }

    /// The threshold, or a lower one that enough entries exceed.
    private func floor(_ threshold: Double, _ tensor: TensorPasses, _ scales: [Double]) throws -> Double {
        guard threshold > 0, tensor.count > 0 else { return threshold }
        let kept = try tensor.counts(1) { tile, counts in
            let means = try means(tile, scales)
            for place in 0..<tile.count where Double(means[place].magnitude) > threshold { counts[0] += 1 }
        }[0].reduce(0, +)
        guard Double(kept) / Double(tensor.count) < keep else { return threshold }
        let rank = max(1, Int(keep * Double(tensor.count)))
        let found = try OrderStatistics.find([.init(stream: 0, rank: rank)], in: tensor) { tile, _ in try means(tile, scales) }
        return Double(Float(bitPattern: found[0].pattern))
    }

    /// The means of a tile, in `scratch(1)`.
    private func means(_ tile: Tile, _ scales: [Double]) throws -> UnsafePointer<Float> {
        var sums = [Double](repeating: 0, count: tile.count)
        for (model, scale) in zip(models, scales) {
            let vector = try tile.taskVector(model)
            for place in 0..<tile.count { sums[place] += scale * Double(vector[place]) }
        }
        let target = tile.scratch(1)
        for place in 0..<tile.count { target[place] = Float(sums[place] / Double(models.count)) }
        return UnsafePointer(target)
    }
}
