package import Core

/// Drop entries of each task vector at random, then combine by consensus (DARE, arXiv 2311.03099).
///
/// An entry stays with probability `density`. What stays is rescaled by the L1 norm over the tensor, not by `1/density`
/// (mergekit-compatible): see `TaskVectorSum`.
package struct DareTies: SparseSum {
    package static let name = "dare_ties"
    package static let summary = "Drops entries of each task vector at random, rescales the rest and merges what agrees in sign."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectorSum.parameters(normalize: false, rescale: true)
    package static let scale: String? = TaskVectorSum.scale
    package static let isRandom = true

    static let combination = TaskVectorSum.Combination.consensus

    let vectors: TaskVectorSum
    private let drop: RandomDrop

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectorSum(values, inputs: inputs)
        drop = RandomDrop(vectors, inputs: inputs)
    }

    package func cost(of shape: [Int]) -> OperatorCost { vectors.cost }

    func sparsifier(in tensor: TensorPasses) -> any Sparsifier { drop }

    package func merge(_ tensor: TensorPasses) throws { try vectors.merge(tensor, drop, by: .consensus) }
}
