package import Checkpoints
import TensorKernels

/// Trim, elect signs, merge the agreeing entries (TIES, arXiv 2306.01708).
///
/// `dᵢ` keeps the `⌊density·n⌋` (at least one) entries of largest magnitude in the tensor; `eᵢ = wᵢdᵢ`; the elected sign is
/// that of `Σ eᵢ`, zero counting as plus; `M = Σ eᵢ` over the models whose entry has the elected sign, divided by their
/// `Σ wᵢ` when `normalize` is set; `out = b + λM`. With `rescale`, `dᵢ` is multiplied by `Σ|d| / Σ|kept d|`.
package struct Ties: MergeMethod {
    package static let name = "ties"
    package static let summary = "Trims each task vector by magnitude, elects a sign per entry and merges what agrees."
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectors.parameters(normalize: true, rescale: false)

    private let vectors: TaskVectors
    private let base: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectors(values, inputs: inputs)
        base = try inputs.requiredBase()
    }

    package var cost: OperatorCost {
        let trims = vectors.densities.contains { $0 < 1 }
        return OperatorCost(
            reads: 1 + (trims ? 2 : 0) + (vectors.rescale ? 1 : 0),
            statisticsBytes: trims ? MagnitudeTrim.statisticsBytes(models: vectors.models.count) : 0)
    }

    package func merge(_ tensor: TensorPasses) throws {
        let trims = try MagnitudeTrim.largest(
            of: vectors.models, keeping: vectors.densities.map { Self.kept(of: tensor.count, density: $0) }, in: tensor)
        let factors = vectors.rescale ? try trims.rescalingFactors(in: tensor) : nil
        try tensor.emit { grain, out in
            var entries: [UnsafePointer<Float>] = []
            for (index, model) in vectors.models.enumerated() {
                let entry = try grain.taskVector(model)
                trims.apply(index, to: entry, of: grain)
                if let factors { grain.kernels.scale(entry, by: factors[index], into: entry, count: grain.count) }
                grain.kernels.scale(entry, by: vectors.weights[index], into: entry, count: grain.count)
                entries.append(UnsafePointer(entry))
            }
            grain.kernels.signConsensus(
                entries, weights: vectors.weights, normalize: vectors.normalize, into: out, count: grain.count)
            try vectors.addToBase(grain, out, base: base)
        }
    }

    /// How many entries survive: all at density 1, none at 0, and otherwise at least one.
    private static func kept(of count: Int, density: Double) -> Int {
        density >= 1 ? count : density <= 0 ? 0 : max(1, Int(density * Double(count)))
    }
}
