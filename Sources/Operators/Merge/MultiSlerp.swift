package import Core
import TensorKernels

/// The weighted mean direction of several models, given the weighted mean of their lengths.
///
/// With `yᵢ = xᵢ` or, with a base, `xᵢ − b`; `nᵢ = ‖yᵢ‖`, `uᵢ = yᵢ/(nᵢ + eps)`, `μ = ‖Σ wᵢuᵢ‖` and `m = Σ wᵢuᵢ/μ`:
/// `out = m·cos(eps)·Σ wᵢnᵢ (+ b)`.
///
/// mergekit adds a step from `m` along `T = Σ wᵢ(uᵢ − (uᵢ·m)m)`, the mean in the plane that touches the sphere at `m`. That
/// is `μm − (μm·m)m = 0` for every input, so what mergekit adds is rounding noise; only its `cos(‖T‖ + eps)` is left, as above.
/// One model is returned unchanged, without the base's help.
package struct MultiSlerp: MergeMethod {
    package static let name = "multislerp"
    package static let summary = "Averages the directions of several models, and their lengths apart."
    package static let inputs = InputContract(base: .optional, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .required("weight", .perModel, "How much of this model goes into the mean."),
        .flag("normalize_weights", default: true, "Divide the weights by their sum."),
        .positive("eps", .shared, default: 1e-8, "What keeps divisions away from zero."),
    ]

    private let weights: [Double]
    private let eps: Double
    private let models: [Int]
    private let base: Int?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        models = inputs.models
        base = inputs.base
        eps = try values.number("eps")
        let weights = try models.map { (model) throws(TesseraError) in try values.number("weight", ofInput: model) }
        let sum = weights.reduce(0, +), normalize = try values.flag("normalize_weights")
        if normalize, sum == 0 {
            throw TesseraError(
                .badData, "the weights add up to zero, so their mean does not exist",
                advice: "set 'normalize_weights: false', or choose other weights")
        }
        self.weights = normalize ? weights.map { $0 / sum } : weights
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: models.count > 1 ? 2 : 1) }

    package func merge(_ tensor: TensorPasses) throws {
        guard models.count > 1 else {
            return try tensor.emit { tile, out in out.update(from: try tile.source(models[0]), count: tile.count) }
        }
        let products = try DotProducts(models.count, .whole, of: tensor) { try $0.taskVectors(models) }
        let combination = Combination(try coefficients(products))
        try tensor.emit { tile, out in
            combination.apply(try tile.taskVectors(models), of: tile, into: out)
            if let base { tile.kernels.add(try tile.source(base), to: out, count: tile.count) }
        }
    }

    private func coefficients(_ products: DotProducts) throws(TesseraError) -> [Double] {
        let lengths = weights.indices.map { products.norm($0) }
        let units = weights.indices.map { weights[$0] / (lengths[$0] + eps) }
        let mean = products.norm(ofCombination: units)
        // No mean direction. Where nothing differs from the base, none is needed.
        if mean < eps {
            guard weights.count == 2 || lengths.allSatisfy({ $0 == 0 }) else {
                throw TesseraError(
                    .badData, "the weighted directions of the models cancel each other, so they have no mean",
                    advice: "choose other weights, or another method for this tensor")
            }
            return weights
        }
        let length = zip(weights, lengths).reduce(0) { $0 + $1.0 * $1.1 }
        return units.map { $0 / mean * Trigonometry.cosine(eps) * length }
    }
}
