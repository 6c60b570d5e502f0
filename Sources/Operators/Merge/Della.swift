package import Core

/// Drop entries of each task vector at random, small ones more likely, then combine by consensus (DELLA, arXiv 2406.11617).
///
/// `RankedDrop` states the probabilities, `TaskVectorSum` what becomes of the entries that stay.
package struct Della: MergeMethod {
    package static let name = "della"
    package static let summary =
        "Drops small entries of each row more likely than large ones, rescales the rest and merges what agrees in sign."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectorSum.parameters(normalize: true, rescale: true) + [RankedDrop.epsilon]
    package static let scale: String? = TaskVectorSum.scale
    package static let isRandom = true

    private let vectors: TaskVectorSum
    private let drop: RankedDrop

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectorSum(values, inputs: inputs)
        drop = try RankedDrop(values, vectors, inputs: inputs)
    }

    package func cost(of shape: [Int]) -> OperatorCost { drop.cost(vectors, shape: shape) }

    package func merge(_ tensor: TensorPasses) throws { try vectors.merge(tensor, drop, by: .consensus) }
}
