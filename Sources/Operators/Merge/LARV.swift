package import Core
import LinearAlgebra
import TensorKernels

/// A scale for every layer (LARV, arXiv 2602.09413) of the update of another method. Experimental: the paper's levels are not
/// published in what we could reach.
///
/// Of a matrix `W` of the base and its update `Δ`, with `erank(X) = exp(−Σ pᵢ·ln pᵢ)` and `pᵢ` the shares of the squared singular
/// values: `e = erank(W)/(erank(Δ) + 10⁻⁸)` and `c = ½(‖WΔᵀ − ΔWᵀ‖ + ‖WᵀΔ − ΔᵀW‖)/(‖W‖·‖Δ‖)`. A layer has the means of its
/// matrices that have an update. In a stack of `L` layers, with `z` the distance of `c` from its mean over the layers in standard
/// deviations, layer `l` from 0 scores `e·√((l + 1)/L)/(1 + ln(1 + eᶻ))`.
///
/// By `tiered`, the thirds of the layers with the lowest, middle and highest scores get three fixed scales; by `continuous`, a
/// layer gets `1 + ½·tanh(3(score − 1))`. All tensors of the layer are scaled. Outside the layers, the scale is 1.
package struct LARV: OuterMethod {
    package static let name = "larv"
    package static let summary = "Experimental: scales another method's update layer by layer."
    package static let parameters = MatrixRole.parameters(
        [
            InnerMethod.parameter(
                "The method whose update is scaled.", of: [IsoC.name, InnerMethod.taskArithmetic, TSV.name, WUDI.name]),
            .choice("levels", of: ["tiered", "continuous"], default: "tiered", "How a score becomes a scale."),
            .number("low", .shared, default: 0.5, "The scale of the lowest third of the layers."),
            .number("middle", .shared, default: 1, "The scale of the middle third."),
            .number("high", .shared, default: 1.5, "The scale of the highest third."),
        ], others: nil, lambda: nil)
    package static let unmeasured: Set = ["levels", "low", "middle", "high", "others"]

    private static let ratio = "rank_ratio", conflict = "conflict", matrices = "matrices"

    let inner: InnerMethod
    /// Whether the layers have been measured.
    private let isMeasured: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        let base = try inputs.requiredBase()
        var factor: Double?
        if let ratios = try values.layers(Self.ratio, ofInput: base),
            let conflicts = try values.layers(Self.conflict, ofInput: base),
            let counts = try values.layers(Self.matrices, ofInput: base)
        {
            let levels = [try values.number("low"), try values.number("middle"), try values.number("high")]
            let scores = Self.scores(ratios.numbers, conflicts.numbers, counts.numbers)
            let isTiered = try values.text("levels") == "tiered"
            factor = ratios.own.map { isTiered ? Self.tier($0, of: scores, levels) : Self.continuous(scores[$0]) } ?? 1
        }
        inner = try InnerMethod(values, inputs: inputs, scaledBy: factor ?? 1)
        isMeasured = factor != nil
    }

    func order(_ size: MatrixSize) -> Int { max(size.rank, inner.order(size)) }
    func need(_ size: MatrixSize) -> MatrixNeed { inner.need(size) }
    func update(_ tasks: TaskMatrices) throws -> Matrix { try inner.update(tasks) }

    package func merge(_ tensor: TensorPasses) throws {
        guard isMeasured else { throw TesseraError.notMeasured }
        try mergeMatrix(tensor)
    }

    // MARK: Layers

    /// `nil` for a layer in which no matrix has an update.
    private static func scores(_ ratios: [Double], _ conflicts: [Double], _ counts: [Double]) -> [Double?] {
        let measured = counts.indices.filter { counts[$0] > 0 }, means = measured.map { conflicts[$0] / counts[$0] }
        let mean = means.reduce(0, +) / Double(max(1, means.count))
        let variance = means.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(max(1, means.count))
        let deviation = variance.squareRoot() < 1e-8 ? 1 : variance.squareRoot()
        var scores = [Double?](repeating: nil, count: counts.count)
        for (layer, own) in zip(measured, means) {
            let z = (own - mean) / deviation, depth = Double(layer + 1) / Double(counts.count)
            let softplus = max(0, z) + Exponential.logarithm(1 + Exponential.decay(z.magnitude))
            scores[layer] = ratios[layer] / counts[layer] * depth.squareRoot() / (1 + softplus)
        }
        return scores
    }

    /// The level of a layer, by its rank among the scores. Layers that score the same share the middle of their ranks.
    private static func tier(_ layer: Int, of scores: [Double?], _ levels: [Double]) -> Double {
        guard let own = scores[layer] else { return 1 }
        let known = scores.compactMap(\.self), twice = 2 * known.count { $0 < own } + known.count { $0 == own }
        return levels[min(levels.count - 1, twice * levels.count / (2 * known.count))]
    }

    private static func continuous(_ score: Double?) -> Double {
        score.map { 1 + 0.5 * Exponential.hyperbolicTangent(3 * ($0 - 1)) } ?? 1
    }

    // MARK: Measuring

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        [[Self.ratio, Self.conflict, Self.matrices].map { ModelStatistic($0, .sum, over: .layers) }]
    }

    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost {
        guard let size = matrixSize(shape) else { return OperatorCost(passes: 0) }
        let need = inner.need(size), square = size.rank * size.rank
        let own = 2 * size.area + 4 * square + LinearAlgebra.eigenvalueWork(size.rank, vectors: false)
        let products = 6 * Double(size.area) * Double(size.rank)
        return OperatorCost(
            passes: need.passes + 1, operations: need.operations + products, matrixElements: max(need.elements, own),
            memory: MemoryNeed(shared: LinearAlgebra.bufferBytes) + need.memory)
    }

    /// The numbers of a layer belong to the base, which every tensor has.
    package func measure(round: Int, _ tensor: TensorPasses) throws {
        var found: (ratio: Double, conflict: Double)?
        if let size = matrixSize(tensor.shape) {
            let update = try update(TaskMatrices(tensor: tensor, models: role.models, size: size))
            let weights = try tensor.matrix(role.base)
            try weights.checkFinite()
            found = try Self.compare(weights, update)
        }
        for (name, number) in [
            (Self.ratio, found?.ratio), (Self.conflict, found?.conflict), (Self.matrices, found.map { _ in 1 }),
        ] {
            tensor.report(name, tensor.sources.indices.map { $0 == role.base ? number ?? 0 : 0 })
        }
    }

    /// `e` and `c`; `nil` where one of the two is zero.
    ///
    /// All follows from the Gram matrices of the shorter side and one product. With fewer columns than rows and `P = WᵀΔ`:
    /// `‖WΔᵀ − ΔWᵀ‖² = 2⟨WᵀW, ΔᵀΔ⟩ − 2·tr(P²)`.
    private static func compare(_ weights: Matrix, _ update: Matrix) throws -> (ratio: Double, conflict: Double)? {
        let isWide = weights.rows < weights.columns
        let norm = (weights.squaredNorm * update.squaredNorm).squareRoot()
        guard norm > 0 else { return nil }
        let product =
            isWide ? try weights.view().times(update.transposed) : try weights.transposed.times(update.view())
        let ownGram = try weights.gram(), otherGram = try update.gram()
        var near = 0.0, trace = 0.0, inner = 0.0
        for row in 0..<product.rows {
            for column in 0..<product.columns {
                let one = product[row, column], other = product[column, row]
                near += (one - other) * (one - other)
                trace += one * other
                inner += ownGram[row, column] * otherGram[row, column]
            }
        }
        let far = max(0, 2 * inner - 2 * trace)
        let ratio = try effectiveRank(ownGram) / (effectiveRank(otherGram) + 1e-8)
        return (ratio, 0.5 * (near.squareRoot() + far.squareRoot()) / norm)
    }

    /// Of the matrix with this Gram matrix, whose elements are lost. Never 0.
    private static func effectiveRank(_ gram: Matrix) throws(TesseraError) -> Double {
        let values = try gram.eigenvaluesAlone(), least = Double(gram.rows) * Double.ulpOfOne * (values.first ?? 0)
        let real = values.filter { $0 > least }, total = real.reduce(0, +)
        let entropy = real.reduce(0) { $0 - $1 / total * Exponential.logarithm($1 / total) }
        return 1 / Exponential.decay(max(0, entropy))
    }
}
