package import Core
import TensorKernels

/// Task arithmetic on task vectors that are pruned tensor by tensor by a saliency (after LwPTV, arXiv 2506.09093).
///
/// The paper's score, threshold and ratios are not published in what we could reach. Here the score of an entry is how far it
/// lies from the mean of the task vectors, `|dₜ − d̄|`, or its magnitude `|dₜ|`. The `⌈density·count⌉` entries of highest score
/// are kept: `out = b + λ Σ (kept dₜ)`.
package struct LwPTV: MergeMethod {
    package static let name = "lwptv"
    package static let summary = "Experimental: adds the task vectors without their redundant entries."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .required("density", .shared, in: 0...1, "Share of each task vector's entries that are kept."),
        .choice(
            "saliency", of: ["deviation", "magnitude"], default: "deviation",
            "The score of an entry: its distance from the mean of the task vectors, or its magnitude."),
        .number("lambda", .shared, default: 0.3, "Scales the merged task vector."),
    ]

    private let base: Int
    private let models: [Int]
    private let density: Double
    private let isDeviation: Bool
    private let lambda: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        density = try values.number("density")
        isDeviation = try values.text("saliency") == "deviation"
        lambda = try values.number("lambda")
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        let buffers = 2 * FixedTree.tileElements * MemoryLayout<Double>.stride
        return OperatorCost(
            passes: 2,
            memory: MagnitudeTrim.memory(models: models.count, count: Shape.count(shape)) + MemoryNeed(perThread: buffers))
    }

    package func merge(_ tensor: TensorPasses) throws {
        let kept = min(tensor.count, Int((density * Double(tensor.count)).rounded(.up)))
        let shares = models.map { _ in MagnitudeTrim.Share(kept: kept) }
        let trim = try MagnitudeTrim(shares, in: tensor) { tile, index in try scores(index, of: tile) }
        try tensor.emit { tile, out in
            var sums = [Double](repeating: 0, count: tile.count)
            for (index, model) in models.enumerated() {
                let scores = try scores(index, of: tile), vector = try tile.taskVector(model)
                trim.keep(index, of: vector, scores: scores, in: tile)
                for index in 0..<tile.count { sums[index] += Double(vector[index]) }
            }
            let base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + lambda * sums[index]) }
        }
    }

    /// In `tile.scratch(1)`, or in the slot of the task vector.
    private func scores(_ index: Int, of tile: Tile) throws -> UnsafePointer<Float> {
        guard isDeviation else { return UnsafePointer(try tile.taskVector(models[index])) }
        let means = tile.workspace { Means() }, scores = tile.scratch(1)
        // Found at the first score of a tile, before entries of its task vectors are dropped.
        if means.range != tile.range {
            means.values = [Double](repeating: 0, count: tile.count)
            for model in models {
                let vector = try tile.taskVector(model)
                for index in 0..<tile.count { means.values[index] += Double(vector[index]) }
            }
            for index in 0..<tile.count { means.values[index] /= Double(models.count) }
            means.range = tile.range
        }
        let vector = try tile.taskVector(models[index])
        for index in 0..<tile.count { scores[index] = Float(Double(vector[index]) - means.values[index]) }
        return UnsafePointer(scores)
    }

    /// The mean of the task vectors in a tile.
    private final class Means {
        var range = 0..<0
        var values: [Double] = []
    }
}
