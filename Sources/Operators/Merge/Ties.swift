package import Core

/// Trim, elect signs, merge the agreeing entries (TIES, arXiv 2306.01708).
///
/// `dᵢ` keeps the `⌊density·n⌋` (at least one) entries of largest magnitude in the tensor, then `TaskVectorSum` combines by
/// consensus.
package struct Ties: MergeMethod {
    package static let name = "ties"
    package static let summary = "Trims each task vector by magnitude, elects a sign per entry and merges what agrees."
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectorSum.parameters(normalize: true, rescale: false)
    package static let scale: String? = TaskVectorSum.scale

    private let vectors: TaskVectorSum

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectorSum(values, inputs: inputs)
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        guard vectors.isSparse else { return OperatorCost(passes: 1) }
        return OperatorCost(
            passes: vectors.passes + 1,
            memory: MagnitudeTrim.memory(models: vectors.models.count, count: Shape.count(shape)))
    }

    package func merge(_ tensor: TensorPasses) throws {
        let shares = vectors.densities.map { MagnitudeTrim.Share(kept: Self.kept(of: tensor.count, density: $0)) }
        try vectors.merge(tensor, MagnitudeTrim(shares, of: vectors.models, in: tensor), by: .consensus)
    }

    /// The number of entries kept: all at density 1, none at 0, else at least one.
    private static func kept(of count: Int, density: Double) -> Int {
        density >= 1 ? count : density <= 0 ? 0 : max(1, Int(density * Double(count)))
    }
}
