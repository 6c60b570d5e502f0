package import Core
import TensorKernels

/// `out = t·avg + (1−t)·b`, where the angle between the task vectors says how far the mean of the models is to be trusted.
///
/// Model Stock (arXiv 2403.19522). With `c` the mean over pairs of the cosine between `xᵢ − b` and `xⱼ − b`, and `n` models:
/// `t = n·c / (1 + (n−1)·c)`, 0 where that divisor is below 1e-6 (mergekit-compatible). For the tensor as one vector, or for each
/// vector along the last dimension (`filter_wise`). Computed as `b + t/n·Σ (xᵢ − b)`, which is the same.
package struct ModelStock: MergeMethod {
    package static let name = "model_stock"
    package static let summary = "Moves from the base towards the mean of the models, the further the more they agree."
    package static let inputs = InputContract(base: .required, models: 2...Int.max)
    package static let whenIncomplete = IncompleteTensor.copyBaseOrLeaveOut
    package static let parameters: [Parameter] = [
        .flag("filter_wise", default: false, "A step of its own for each vector along the last dimension.")
    ]

    private let filterWise: Bool
    private let models: [Int]
    private let base: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        filterWise = try values.flag("filter_wise")
        models = inputs.models
        base = try inputs.requiredBase()
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(
            passes: 2, memory: DotProducts.memory(order: models.count, cut(of: shape), shape: shape))
    }

    private func cut(of shape: [Int]) -> VectorCut { filterWise ? .alongLast(shape) : .whole }

    package func merge(_ tensor: TensorPasses) throws {
        let products = try DotProducts(models.count, cut(of: tensor.shape), of: tensor) { try $0.taskVectors(models) }
        let count = Double(models.count)
        let combination = Combination(products) { piece in
            var sum = 0.0
            for i in models.indices {
                for j in i + 1..<max(i + 1, models.count) {
                    let lengths = products.norm(i, in: piece) * products.norm(j, in: piece)
                    sum += (products(i, j, in: piece) / max(lengths, 1e-6)).asCosine
                }
            }
            let cosine = sum / max(1, count * (count - 1) / 2), divisor = 1 + (count - 1) * cosine
            let t = divisor.magnitude < 1e-6 ? 0 : count * cosine / divisor
            return models.map { _ in t / count }
        }
        try tensor.emit { tile, out in
            combination.apply(try tile.taskVectors(models), of: tile, into: out)
            tile.kernels.add(try tile.source(base), to: out, count: tile.count)
        }
    }
}
