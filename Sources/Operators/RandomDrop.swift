import TensorKernels

/// Keeps each entry of a task vector with the probability `density` of its model (DARE, arXiv 2311.03099).
struct RandomDrop: Sparsifier {
    private let densities: [Double]
    private let random: [CounterRandom]

    init(_ vectors: TaskVectorSum, inputs: TensorInputs) {
        densities = vectors.densities
        random = vectors.models.map { CounterRandom(key: inputs.randomKey, stream: UInt32(truncatingIfNeeded: $0)) }
    }

    func isFlagging(_ index: Int) -> Bool { densities[index] < 1 }

    func flag(_ index: Int, _ flags: UnsafeMutablePointer<UInt8>, of tile: Tile) {
        random[index].flag(
            probability: densities[index], first: tile.range.lowerBound, flags, count: tile.count, kernels: tile.kernels)
    }
}
