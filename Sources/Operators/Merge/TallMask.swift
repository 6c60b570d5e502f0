package import Core

/// One task's model out of the vector of all tasks (TALL-masks, arXiv 2405.07813): `out = b + m ⊙ τ` with `τ = Σ dₜ`, or what
/// TIES makes of the task vectors (`Ties.published`), and `m` 1 where `|d_task| > mask_lambda·|τ − d_task|`, else 0.
package struct TallMask: MergeMethod {
    package static let name = "tall"
    package static let summary = "Recovers one task's model from the sum of all task vectors, by a mask."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .integer("task", .shared, default: nil, in: 1...1_000_000, "Which of the models to recover, from 1."),
        .number("mask_lambda", .shared, default: 0.4, in: 0...1e6, "How far the task's entry must stand out to be kept."),
        InnerMethod.parameter("What adds up the task vectors.", of: [InnerMethod.taskArithmetic, Ties.name]),
    ]
    package static let unmeasured: Set = ["mask_lambda", "task"]

    private let base: Int
    private let shared: SharedVector
    private let task: Int
    private let lambda: Double
    /// `nil` for the plain sum.
    private let ties: Ties?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        shared = SharedVector(.tall, of: inputs.models)
        task = try inputs.task(values)
        lambda = try values.number("mask_lambda")
        ties = try values.text(InnerMethod.name) == Ties.name ? .published(values, inputs: inputs) : nil
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] { ties?.modelRounds(of: shape) ?? [] }
    package func measure(round: Int, _ tensor: TensorPasses) throws { try ties?.measure(round: round, tensor) }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        let merged = try ties?.update(tensor)
        try tensor.emit { tile, out in
            let vector = merged == nil ? try shared.vector(in: tile) : tile.scratch(0)
            try merged?(tile, vector)
            try shared.keep(task, of: vector, lambda: lambda, in: tile)
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = base[index] + vector[index] }
        }
    }
}

extension TensorInputs {
    /// The parameter `task`, counted from 0.
    ///
    /// - Throws: `badData` when there are fewer models.
    func task(_ values: ParameterValues) throws(TesseraError) -> Int {
        let number = try values.integer("task")
        guard number >= 1, number <= models.count else {
            throw TesseraError(
                .badData, "'task' is \(number), and there are \(models.count) models",
                advice: "write the number of a model, from 1 in the order of the recipe")
        }
        return number - 1
    }
}
