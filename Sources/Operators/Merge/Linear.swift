package import Core
import TensorKernels

/// `out = Σ wᵢxᵢ`, divided by `Σ wᵢ` when `normalize` is set.
///
/// Model soups (arXiv 2203.05482). Sums run in input order; a base in the recipe is an input like any other.
package struct Linear: MergeMethod {
    package static let name = "linear"
    package static let summary = "Weighted mean of the models."
    package static let inputs = InputContract(base: .plainInput, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .required("weight", .perInput, "How much of this model goes into the mean."),
        .flag("normalize", default: true, "Divide by the sum of the weights."),
    ]

    private let weights: [Float]
    private let divisor: Float

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        var weights: [Float] = []
        for input in 0..<inputs.count { weights.append(Float(try values.number("weight", ofInput: input))) }
        self.weights = weights
        divisor = try values.flag("normalize") ? weights.reduce(0, +) : 1
        if divisor == 0 {
            throw TesseraError(
                .badData, "the weights add up to zero, so their mean does not exist",
                advice: "set 'normalize: false', or choose other weights")
        }
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in
            let sources = try weights.indices.map { try tile.stored($0) }
            tile.kernels.weightedSum(sources, weights: weights, divisor: divisor, into: out, count: tile.count)
        }
    }
}
