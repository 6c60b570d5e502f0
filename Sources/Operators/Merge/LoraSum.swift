package import Core
package import LinearAlgebra
import TensorKernels

/// Adapters folded into one model with weights: `out = b + λ Σ wₜ·sₜBₜAₜ`.
///
/// PaLoRA (arXiv 2407.08056) with weights on the simplex, which a user chooses, and MultiLoRA (arXiv 2311.11501). Where an
/// adapter does more to a tensor than add a product of factors, the difference from the base takes the place of the product.
package struct LoraSum: FactoredMethod {
    package static let name = "lora_sum"
    package static let summary = "Adds the weighted low-rank updates of adapters to the base."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .number("weight", .perModel, default: 1, "Scales this adapter's update, besides its own scale."),
        .number("lambda", .shared, default: 1, "Scales the sum of the updates."),
    ]

    private let base: Int
    private let models: [Int]
    private let weights: [Double]
    private let lambda: Double
    /// Of each model: `TensorInputs.ranks`.
    private let ranks: [Int?]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        weights = try models.map { (model) throws(TesseraError) in try values.number("weight", ofInput: model) }
        lambda = try values.number("lambda")
        ranks = models.map { inputs.ranks[$0] }
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 1, memory: MemoryNeed(perThread: FixedTree.tileElements * MemoryLayout<Double>.stride))
    }

    // MARK: As an adapter

    package func factorCost(of shape: [Int]) -> OperatorCost {
        let size = MatrixSize(shape, tasks: models.count)
        return OperatorCost(passes: 0, matrixElements: 2 * ranks.reduce(0) { $0 + ($1 ?? 0) } * (size.rows + size.columns))
    }

    package func factors(_ tensor: TensorPasses) throws -> (left: Matrix, right: Matrix) {
        let size = MatrixSize(tensor.shape, tasks: models.count)
        return try TaskMatrices(tensor: tensor, models: models, size: size).weightedFactors(weights.map { lambda * $0 })
    }

    package func merge(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in
            var sums = [Double](repeating: 0, count: tile.count)
            for (model, weight) in zip(models, weights) {
                let vector = try tile.lowRankVector(model)
                for index in 0..<tile.count { sums[index] += weight * Double(vector[index]) }
            }
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + lambda * sums[index]) }
        }
    }
}
