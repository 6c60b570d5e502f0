import Core

/// The entries that the breadcrumbs methods keep of a task vector of `n` entries.
///
/// The `⌊gamma·n⌋` largest are dropped, and the `⌊density·n⌋` next are kept; if fewer are left, the smallest are kept. Both
/// products are float64.
struct BreadcrumbShares: Sendable {
    private let gammas: [Double]

    static let gamma = Parameter.number(
        "gamma", .perModel, default: 0.01, in: 0...1, "Share of the task vector's largest entries that are dropped as outliers.")

    init(_ values: ParameterValues, _ vectors: TaskVectorSum) throws(TesseraError) {
        gammas = try vectors.models.map { (model) throws(TesseraError) in try values.number("gamma", ofInput: model) }
    }

    func cost(_ vectors: TaskVectorSum, of shape: [Int]) -> OperatorCost {
        guard vectors.isSparse else { return OperatorCost(passes: 1) }
        return OperatorCost(
            passes: vectors.passes + 1,
            memory: MagnitudeTrim.memory(
                models: vectors.models.count, queries: 2, count: Shape.count(shape)))
    }

    func trim(_ vectors: TaskVectorSum, in tensor: TensorPasses) throws -> MagnitudeTrim {
        let count = tensor.count
        let shares = zip(vectors.densities, gammas).map { density, gamma in
            guard density < 1 else { return MagnitudeTrim.Share(kept: count) }
            let kept = Int(density * Double(count)), outliers = Int(gamma * Double(count))
            return MagnitudeTrim.Share(kept: kept, outliers: min(outliers, count - kept))
        }
        return try MagnitudeTrim(shares, of: vectors.models, in: tensor)
    }
}
