package import Core
import TensorKernels

/// Task arithmetic with closed-form coefficients (MetaGPT, arXiv 2406.11385).
///
/// `out = b + Σ λᵢ·dᵢ` with `λᵢ = ‖dᵢ‖²/Σ ‖dₖ‖²`, norms taken over the whole model. Where no model moved, all count the same.
///
/// With another method, the `dᵢ` are what that method keeps of the task vectors of a tensor, rescaled, and the `λᵢ` are its
/// weights.
package struct MetaGPT: MergeMethod {
    package static let name = "metagpt"
    package static let summary = "Averages the task vectors, each weighted by its squared norm over the whole model."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        InnerMethod.parameter(
            "The method that merges with these weights.", of: [InnerMethod.taskArithmetic] + methods.map { $0.name }),
        .number(
            "density", .perModel, default: nil, in: 0...1,
            "Share of the task vector's entries that are kept, unless all are: \(publishedDensity)."),
    ]
    /// With the methods that drop entries at random.
    package static let isRandom = true

    private static let methods: [any SparseSum.Type] = [Ties.self, DareLinear.self, DareTies.self]
    private static let publishedDensity = 0.55, squaredNorm = "squared_norm"

    private let base: Int
    private let models: [Int]
    /// `nil` before the norms have been measured.
    private let coefficients: [Float]?
    /// `nil` for whole task vectors.
    private let sparse: (any SparseSum)?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        let norms = try values.statistics(Self.squaredNorm, of: models), total = norms?.reduce(0, +) ?? 0
        let even = 1 / Float(models.count)
        let coefficients = norms?.map { total > 0 ? Float($0 / total) : even }
        self.coefficients = coefficients
        let name = try values.text(InnerMethod.name)
        let densities = try models.map { (model) throws(TesseraError) in
            try values.optionalNumber("density", ofInput: model) ?? Self.publishedDensity
        }
        sparse = try Self.methods.first { $0.name == name }?.with(
            weights: models.indices.map { Double(coefficients?[$0] ?? 1) }, densities: densities, inputs: inputs)
    }

    package func cost(of shape: [Int]) -> OperatorCost { sparse?.cost(of: shape) ?? OperatorCost(passes: 1) }

    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost { cost(of: shape) }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] { [[ModelStatistic(Self.squaredNorm, .sum)]] }

    package func measure(round: Int, _ tensor: TensorPasses) throws {
        tensor.report(Self.squaredNorm, try sparse?.squaredNorms(tensor) ?? tensor.squaredNorms(of: models))
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard let coefficients else { throw TesseraError.notMeasured }
        if let sparse { return try sparse.merge(tensor) }
        try tensor.emit { tile, out in
            out.update(from: try tile.source(base), count: tile.count)
            for (model, coefficient) in zip(models, coefficients) {
                tile.kernels.axpy(coefficient, try tile.taskVector(model), into: out, count: tile.count)
            }
        }
    }
}

extension TensorPasses {
    /// `‖d‖²` of each model's task vector; 0 for other sources.
    func squaredNorms(of models: [Int]) throws -> [Double] {
        let norms = try sums(models.count, isLast: true) { tile, sums in
            for (index, model) in models.enumerated() {
                let vector = try tile.taskVector(model)
                sums[index] += tile.kernels.dot(vector, vector, count: tile.count)
            }
        }
        var all = [Double](repeating: 0, count: sources.count)
        for (model, norm) in zip(models, norms) { all[model] = norm }
        return all
    }
}
