package import Core

/// `out = b + λ Σ wᵢ(xᵢ − b)`, the sum divided by `Σ wᵢ` when `normalize` is set (arXiv 2212.04089).
package struct TaskArithmetic: MergeMethod {
    package static let name = "task_arithmetic"
    package static let summary = "Adds the weighted task vectors to the base."
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectorSum.parameters(normalize: false, rescale: false)
    package static let scale: String? = TaskVectorSum.scale

    private let vectors: TaskVectorSum

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectorSum(values, inputs: inputs)
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws { try vectors.merge(tensor, by: .sum) }
}
