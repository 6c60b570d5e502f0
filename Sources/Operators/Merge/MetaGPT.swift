package import Core
import TensorKernels

/// Task arithmetic with closed-form coefficients (MetaGPT, arXiv 2406.11385).
///
/// `out = b + Σ λᵢ·dᵢ` with `λᵢ = ‖dᵢ‖²/Σ ‖dₖ‖²`, norms taken over the whole model. Where no model moved, all count the same.
package struct MetaGPT: MergeMethod {
    package static let name = "metagpt"
    package static let summary = "Averages the task vectors, each weighted by its squared norm over the whole model."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = []
    package static let modelSums = [squaredNorm]

    private static let squaredNorm = "squared_norm"

    private let base: Int
    private let models: [Int]
    private let coefficients: [Float]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        let norms = try models.map { (model) throws(TesseraError) in try values.number(Self.squaredNorm, ofInput: model) }
        let total = norms.reduce(0, +), even = 1 / Float(norms.count)
        coefficients = norms.map { total > 0 ? Float($0 / total) : even }
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package static func measure(_ tensor: TensorPasses) throws {
        let models = tensor.inputs.models
        let norms = try tensor.sums(models.count, isLast: true) { tile, sums in
            for (index, model) in models.enumerated() {
                let vector = try tile.taskVector(model)
                sums[index] += tile.kernels.dot(vector, vector, count: tile.count)
            }
        }
        var all = [Double](repeating: 0, count: tensor.sources.count)
        for (model, norm) in zip(models, norms) { all[model] = norm }
        tensor.report(squaredNorm, all)
    }

    package func merge(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in
            out.update(from: try tile.source(base), count: tile.count)
            for (model, coefficient) in zip(models, coefficients) {
                tile.kernels.axpy(coefficient, try tile.taskVector(model), into: out, count: tile.count)
            }
        }
    }
}
