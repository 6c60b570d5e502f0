package import Core
import TensorKernels

/// A position in the space that the task vectors span (Self Positioning, arXiv 2410.15035): `out = b + size·Σ wᵢ·dᵢ`, where the
/// `wᵢ` are not negative and add up to 1.
///
/// `wᵢ` is the model's share of the sum of all weights; with `softmax`, `exp(weightᵢ)/Σ exp(weightₖ)`.
package struct SelfPositioning: MergeMethod {
    package static let name = "self_positioning"
    package static let summary = "Adds a weighted mean of the task vectors, scaled to a size of its own."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .required("weight", .perModel, in: -1e6...1e6, "Decides this model's share; not negative without 'softmax'."),
        .flag("softmax", default: false, "The weights are the learned numbers, of which the softmax gives the shares."),
        .number("size", .shared, default: 1, "Scales the weighted mean."),
    ]
    package static let scale: String? = "size"

    private let vectors: TaskVectorSum

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        let models = inputs.models
        let weights = try models.map { (model) throws(TesseraError) in try values.number("weight", ofInput: model) }
        vectors = TaskVectorSum(
            base: try inputs.requiredBase(), models: models,
            weights: try Self.shares(weights, isSoftmax: try values.flag("softmax")).map { Float($0) },
            lambdas: try values.numbers("size").map { Float($0) })
    }

    private static func shares(_ weights: [Double], isSoftmax: Bool) throws(TesseraError) -> [Double] {
        var terms = weights
        if isSoftmax {
            let greatest = weights.max() ?? 0
            terms = weights.map { Kernels.best.exponential($0 - greatest) }
        }
        let total = terms.reduce(0, +)
        guard total > 0, terms.allSatisfy({ $0 >= 0 }) else {
            throw TesseraError(
                .badData,
                "the weights of the models are \(weights.map { "\($0)" }.joined(separator: ", ")), which gives no shares",
                advice: "write weights that are not negative and not all 0, or 'softmax: true' for learned numbers")
        }
        return terms.map { $0 / total }
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws { try vectors.merge(tensor, by: .sum) }
}
