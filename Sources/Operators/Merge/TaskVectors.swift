import Checkpoints
import TensorKernels

/// The parameters and the last steps that all methods on task vectors share.
///
/// With `dᵢ = xᵢ − b` after the method's own sparsifying and `M` their (consensus) combination, the result is
/// `b + λ·M` (task arithmetic, arXiv 2212.04089; TIES, arXiv 2306.01708).
struct TaskVectors: Sendable {
    let models: [Int]
    let weights: [Float]
    let densities: [Double]
    let normalize: Bool
    let rescale: Bool
    let lambda: Float

    static func parameters(normalize: Bool, rescale: Bool) -> [Parameter] {
        [
            .required("weight", .perModel, "Scales this model's task vector."),
            .number("density", .perModel, default: 1, in: 0...1, "Share of the task vector's entries that are kept."),
            .flag("normalize", default: normalize, "Divide by the sum of the weights that take part."),
            .flag("rescale", default: rescale, "Scale what is kept so that the sum of magnitudes stays as it was."),
            .number("lambda", .shared, default: 1, "Scales the merged task vector."),
            .flag("int8_mask", default: false, "Accepted for mergekit's sake; it never had an effect on the result."),
        ]
    }

    init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        models = inputs.models
        var weights: [Float] = []
        var densities: [Double] = []
        for model in models {
            weights.append(Float(try values.number("weight", ofInput: model)))
            densities.append(try values.number("density", ofInput: model))
        }
        self.weights = weights
        self.densities = densities
        normalize = try values.flag("normalize")
        rescale = try values.flag("rescale")
        lambda = Float(try values.number("lambda"))
    }

    /// `out = b + λ·out`.
    func addToBase(_ grain: Grain, _ out: UnsafeMutablePointer<Float>, base: Int) throws {
        if lambda != 1 { grain.kernels.scale(out, by: lambda, into: out, count: grain.count) }
        try grain.kernels.add(grain.source(base), to: out, count: grain.count)
    }
}
