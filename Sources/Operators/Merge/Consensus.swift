package import Core
import TensorKernels

/// The entries that several tasks use (Consensus merging with TALL masks, arXiv 2405.07813).
///
/// With `τ` the sum of the task vectors, or what TIES makes of them (`Ties.published`), task `t` uses an entry where
/// `|dₜ| > mask_lambda·|τ − dₜ|`. With `c` 1 where at least `agreement` tasks use the entry, and else 0: `out = b + λ·c·τ`.
package struct Consensus: MergeMethod {
    package static let name = "consensus"
    package static let summary = "Adds the sum of the task vectors where several tasks use it."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .number("mask_lambda", .shared, default: 0.4, in: 0...1e6, "How far a task's entry must stand out to be used by it."),
        .integer("agreement", .shared, default: 2, in: 0...1_000_000, "The least number of tasks that use an entry that stays."),
        .number("lambda", .shared, default: 0.3, "Scales the merged task vector."),
        InnerMethod.parameter("What adds up the task vectors.", of: [InnerMethod.taskArithmetic, Ties.name]),
    ]
    package static let scale: String? = "lambda"
    package static let unmeasured: Set = ["mask_lambda", "agreement"]

    private let base: Int
    private let models: [Int]
    private let maskLambda: Double
    private let agreement: Int
    private let lambdas: [Double]
    /// `nil` for the plain sum.
    private let ties: Ties?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        maskLambda = try values.number("mask_lambda")
        agreement = try values.integer("agreement")
        lambdas = try values.numbers("lambda")
        ties = try values.text(InnerMethod.name) == Ties.name ? .published(values, inputs: inputs) : nil
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 1, memory: MemoryNeed(perThread: FixedTree.tileElements * MemoryLayout<Double>.stride))
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] { ties?.modelRounds(of: shape) ?? [] }
    package func measure(round: Int, _ tensor: TensorPasses) throws { try ties?.measure(round: round, tensor) }

    package func merge(_ tensor: TensorPasses) throws {
        let update = try update(tensor)
        try tensor.emit(lambdas.count) { tile, output, out in
            let sums = try update(tile), base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + lambdas[output] * sums[index]) }
        }
    }

    /// The update of a tile without the scale.
    func update(_ tensor: TensorPasses) throws -> @Sendable (Tile) throws -> [Double] {
        let merged = try ties?.update(tensor)
        return { tile in
            var sums: [Double]
            if let merged {
                let values = tile.scratch(0)
                try merged(tile, values)
                sums = (0..<tile.count).map { Double(values[$0]) }
            } else {
                sums = try tile.taskVectorSum(models)
            }
            let vectors = try models.map { try tile.taskVector($0) }
            var users = [Int32](repeating: 0, count: tile.count)
            for vector in vectors {
                for index in 0..<tile.count {
                    let entry = Double(vector[index])
                    if entry.magnitude > maskLambda * (sums[index] - entry).magnitude { users[index] += 1 }
                }
            }
            for index in 0..<tile.count where users[index] < agreement { sums[index] = 0 }
            return sums
        }
    }
}
