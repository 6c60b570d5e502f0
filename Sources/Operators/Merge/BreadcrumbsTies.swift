package import Core

/// Drop the largest and the smallest entries of each task vector, then combine by consensus (Model Breadcrumbs, arXiv
/// 2312.06795).
///
/// `BreadcrumbShares` says which entries stay, `TaskVectorSum` what becomes of them.
package struct BreadcrumbsTies: MergeMethod {
    package static let name = "breadcrumbs_ties"
    package static let summary =
        "Drops each task vector's outliers and small entries, elects a sign per entry and merges what agrees."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters = TaskVectorSum.parameters(normalize: false, rescale: false) + [BreadcrumbShares.gamma]
    package static let scale: String? = TaskVectorSum.scale

    private let vectors: TaskVectorSum
    private let shares: BreadcrumbShares

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectorSum(values, inputs: inputs)
        shares = try BreadcrumbShares(values, vectors)
    }

    package func cost(of shape: [Int]) -> OperatorCost { shares.cost(vectors, of: shape) }

    package func merge(_ tensor: TensorPasses) throws {
        try vectors.merge(tensor, shares.trim(vectors, in: tensor), by: .consensus)
    }
}
