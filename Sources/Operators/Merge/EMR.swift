package import Core
import TensorKernels

/// One task's model out of a unified vector (EMR-Merging, arXiv 2405.17461): `out = b + λ·m ⊙ u`.
///
/// `u` has at each entry the sign of `Σ dₜ` and the largest magnitude of the `dₜ` that have that sign; `m` is 1 where the sign of
/// the task's own entry is that of `u`. `λ` is `Σ mean|d| / Σ mean|m ⊙ u|` over all tensors of the model, or the same of sums.
package struct EMR: MergeMethod {
    package static let name = "emr"
    package static let summary = "Recovers one task's model from a unified task vector, by a mask and a scale."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .integer("task", .shared, default: nil, in: 1...1_000_000, "Which of the models to recover, from 1."),
        .choice(
            "rescale", of: ["means", "sums"], default: "means",
            "Whether the scale compares means over each tensor, as the authors' code, or sums, as their paper."),
    ]
    package static let modelSums = [magnitudes.means, magnitudes.sums, masked.means, masked.sums]

    private static let magnitudes = (means: "mean_magnitude", sums: "magnitude")
    private static let masked = (means: "mean_masked_magnitude", sums: "masked_magnitude")

    private let base: Int
    private let shared: SharedVector
    private let task: Int
    private let factor: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        shared = SharedVector(.emr, of: inputs.models)
        task = try inputs.task(values)
        let model = inputs.models[task], usesSums = try values.text("rescale") == "sums"
        let own = try values.number(usesSums ? Self.magnitudes.sums : Self.magnitudes.means, ofInput: model)
        let kept = try values.number(usesSums ? Self.masked.sums : Self.masked.means, ofInput: model)
        factor = kept > 0 ? own / kept : 1
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package static func measure(_ tensor: TensorPasses) throws {
        let models = tensor.inputs.models, shared = SharedVector(.emr, of: models)
        let sums = try tensor.sums(2 * models.count, isLast: true) { tile, sums in
            let kernels = tile.kernels, vector = try shared.vector(in: tile), kept = tile.scratch(1)
            for (task, model) in models.enumerated() {
                kept.update(from: vector, count: tile.count)
                try shared.keep(task, of: kept, in: tile)
                sums[2 * task] = kernels.sumOfMagnitudes(try tile.taskVector(model), count: tile.count)
                sums[2 * task + 1] = kernels.sumOfMagnitudes(kept, count: tile.count)
            }
        }
        for (offset, names) in [magnitudes, masked].enumerated() {
            var all = [Double](repeating: 0, count: tensor.sources.count)
            for (task, model) in models.enumerated() { all[model] = sums[2 * task + offset] }
            tensor.report(names.sums, all)
            tensor.report(names.means, all.map { $0 / Double(max(1, tensor.count)) })
        }
    }

    package func merge(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in
            let vector = try shared.vector(in: tile)
            try shared.keep(task, of: vector, in: tile)
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + factor * Double(vector[index])) }
        }
    }
}
