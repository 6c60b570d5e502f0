import Checkpoints
import TensorKernels

/// Keeps each entry of a task vector with the probability `density` of its model (DARE, arXiv 2311.03099).
struct RandomDrop: Sparsifier {
    private let densities: [Double]
    private let random: [CounterRandom]

    init(_ vectors: TaskVectors, inputs: TensorInputs) {
        densities = vectors.densities
        random = vectors.models.map { CounterRandom(key: inputs.randomKey, stream: UInt32(truncatingIfNeeded: $0)) }
    }

    func sparsify(_ index: Int, _ entries: UnsafeMutablePointer<Float>, of grain: Grain) {
        guard densities[index] < 1 else { return }
        random[index].keep(
            probability: densities[index], first: grain.range.lowerBound, entries, count: grain.count, kernels: grain.kernels)
    }
}
