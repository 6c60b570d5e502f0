package import Checkpoints
import TensorKernels

/// `out = b + λ Σ wᵢ(xᵢ − b)`, the sum divided by `Σ wᵢ` when `normalize` is set (arXiv 2212.04089).
package struct TaskArithmetic: MergeMethod {
    package static let name = "task_arithmetic"
    package static let summary = "Adds the weighted task vectors to the base."
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectors.parameters(normalize: false, rescale: false)

    private let vectors: TaskVectors
    private let base: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectors(values, inputs: inputs)
        base = try inputs.requiredBase()
    }

    package var cost: OperatorCost { OperatorCost(reads: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        let total = vectors.weights.reduce(0, +)
        let divisor: Float? = vectors.normalize && abs(total) >= 1e-8 ? total : nil
        try tensor.emit { grain, out in
            out.update(repeating: 0, count: grain.count)
            for (model, weight) in zip(vectors.models, vectors.weights) {
                grain.kernels.axpy(weight, try grain.taskVector(model), into: out, count: grain.count)
            }
            if let divisor { grain.kernels.divide(out, by: divisor, count: grain.count) }
            try vectors.addToBase(grain, out, base: base)
        }
    }
}
