package import Core
import TensorKernels

/// One task's model out of a unified vector (EMR-Merging, arXiv 2405.17461): `out = b + λ·m ⊙ u`.
///
/// `u` has at each entry the sign of `Σ dₜ` and the largest magnitude of the `dₜ` that have that sign; `m` is 1 where the sign of
/// the task's own entry is that of `u`. `λ` is `Σ mean|d| / Σ mean|m ⊙ u|` over all tensors of the model, or the same of sums.
package struct EMR: MergeMethod {
    package static let name = "emr"
    package static let summary = "Recovers one task's model from a unified task vector, by a mask and a scale."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .integer("task", .shared, default: nil, in: 1...1_000_000, "Which of the models to recover, from 1."),
        .choice(
            "rescale", of: ["means", "sums"], default: "means",
            "Whether the scale compares means over each tensor, as the authors' code, or sums, as their paper."),
    ]

    package static let unmeasured: Set = ["task"]

    private static let magnitudes = (means: "mean_magnitude", sums: "magnitude")
    private static let masked = (means: "mean_masked_magnitude", sums: "masked_magnitude")

    private let base: Int
    private let shared: SharedVector
    private let task: Int
    private let usesSums: Bool
    /// `λ`; `nil` before it has been measured.
    private let factor: Double?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        shared = SharedVector(.emr, of: inputs.models)
        task = try inputs.task(values)
        usesSums = try values.text("rescale") == "sums"
        let model = [inputs.models[task]]
        let own = try values.statistics(usesSums ? Self.magnitudes.sums : Self.magnitudes.means, of: model)?.first
        let kept = try values.statistics(usesSums ? Self.masked.sums : Self.masked.means, of: model)?.first
        factor = if let own, let kept { kept > 0 ? own / kept : 1 } else { nil }
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        let names = usesSums ? [Self.magnitudes.sums, Self.masked.sums] : [Self.magnitudes.means, Self.masked.means]
        return [names.map { ModelStatistic($0, .sum) }]
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func measure(round: Int, _ tensor: TensorPasses) throws {
        let models = tensor.inputs.models
        let sums = try tensor.sums(2 * models.count, isLast: true) { tile, sums in
            let kernels = tile.kernels, vector = try shared.vector(in: tile), kept = tile.scratch(1)
            for (task, model) in models.enumerated() {
                kept.update(from: vector, count: tile.count)
                try shared.keep(task, of: kept, in: tile)
                sums[2 * task] = kernels.sumOfMagnitudes(try tile.taskVector(model), count: tile.count)
                sums[2 * task + 1] = kernels.sumOfMagnitudes(kept, count: tile.count)
            }
        }
        for (offset, names) in [Self.magnitudes, Self.masked].enumerated() {
            var all = [Double](repeating: 0, count: tensor.sources.count)
            for (task, model) in models.enumerated() { all[model] = sums[2 * task + offset] }
            if usesSums {
                tensor.report(names.sums, all)
            } else {
                tensor.report(names.means, all.map { $0 / Double(max(1, tensor.count)) })
            }
        }
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard let factor else { throw TesseraError.notMeasured }
        try tensor.emit { tile, out in
            let vector = try shared.vector(in: tile)
            try shared.keep(task, of: vector, in: tile)
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + factor * Double(vector[index])) }
        }
    }
}
