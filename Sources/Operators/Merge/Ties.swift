package import Core
import TensorKernels

/// Trim, elect signs, merge the agreeing entries (TIES, arXiv 2306.01708).
///
/// `dᵢ` keeps the `⌊density·n⌋` (at least one) entries of largest magnitude in the tensor, then `TaskVectorSum` combines by
/// consensus.
///
/// With `trim: model`, the share is of the whole model (`PublishedTrim`), and an entry whose sum is zero gets the sign that most
/// entries of the model have elected.
package struct Ties: SparseSum {
    package static let name = "ties"
    package static let summary = "Trims each task vector by magnitude, elects a sign per entry and merges what agrees."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters =
        TaskVectorSum.parameters(normalize: true, rescale: false) + [
            .choice(
                "trim", of: ["tensor", "model"], default: nil,
                "Whether a density is a share of each tensor, which is the default, or of the whole model.")
        ]

    package static let scale: String? = TaskVectorSum.scale
    package static let unmeasured: Set = ["normalize", "int8_mask"]

    private static let threshold = "threshold", plus = "plus", minus = "minus"

    static let combination = TaskVectorSum.Combination.consensus

    let vectors: TaskVectorSum
    private let isModelWide: Bool
    /// Of the whole model; `nil` before they have been measured.
    private let thresholds: [Double]?
    private let votes: (plus: Double, minus: Double)?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        vectors = try TaskVectorSum(values, inputs: inputs)
        isModelWide = values.optionalText("trim") == "model"
        thresholds = try values.statistics(Self.threshold, of: inputs.models)
        let plus = try values.optionalNumber(Self.plus, ofInput: vectors.base)
        let minus = try values.optionalNumber(Self.minus, ofInput: vectors.base)
        votes = if let plus, let minus { (plus, minus) } else { nil }
    }

    /// As other methods begin with it: 20 % of each model's entries stay, and those that agree are added up.
    ///
    /// - Throws: as the initializer.
    static func published(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) -> Ties {
        var own = values
        for parameter in parameters where parameter.scope == .shared && own.shared[parameter.name] == nil {
            own.shared[parameter.name] = parameter.defaultValue
        }
        own.shared.merge(["trim": .text("model"), "normalize": .flag(false)]) { $1 }
        for model in inputs.models { own.perInput[model].merge(["weight": .number(1), "density": .number(0.2)]) { $1 } }
        return try Ties(own, inputs: inputs)
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        guard vectors.isSparse, !isModelWide else { return OperatorCost(passes: vectors.passes) }
        return OperatorCost(
            passes: vectors.passes + 1,
            memory: MagnitudeTrim.memory(models: vectors.models.count, count: Shape.count(shape)))
    }

    package func merge(_ tensor: TensorPasses) throws {
        if isModelWide {
            guard let votes else { throw TesseraError.notMeasured }
            return try vectors.merge(tensor, trim(), by: .consensus, zeroIsMinus: votes.minus > votes.plus)
        }
        try vectors.merge(tensor, sparsifier(in: tensor), by: .consensus)
    }

    /// By a share of the tensor.
    func sparsifier(in tensor: TensorPasses) throws -> any Sparsifier {
        let shares = vectors.densities.map { MagnitudeTrim.Share(kept: Self.kept(of: tensor.count, density: $0)) }
        return try MagnitudeTrim(shares, of: vectors.models, in: tensor)
    }

    /// The number of entries kept: all at density 1, none at 0, else at least one.
    private static func kept(of count: Int, density: Double) -> Int {
        density >= 1 ? count : density <= 0 ? 0 : max(1, Int(density * Double(count)))
    }

    // MARK: The whole model

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        guard isModelWide else { return [] }
        let densities = Dictionary(uniqueKeysWithValues: zip(vectors.models, vectors.densities))
        let threshold = ModelStatistic(
            Self.threshold, .magnitude { PublishedTrim.rank(of: $1, share: densities[$0] ?? 1) })
        return [[threshold], [ModelStatistic(Self.plus, .sum), ModelStatistic(Self.minus, .sum)]]
    }

    /// The votes of the models belong to the base, which every tensor has.
    package func measure(round: Int, _ tensor: TensorPasses) throws {
        let found = try vectors.votes(tensor, trim())
        for (name, count) in [(Self.plus, found.plus), (Self.minus, found.minus)] {
            tensor.report(name, tensor.sources.indices.map { $0 == vectors.base ? Double(count) : 0 })
        }
    }

    func update(_ tensor: TensorPasses) throws -> TileValues {
        guard isModelWide else { return try vectors.update(tensor, sparsifier(in: tensor), by: .consensus) }
        guard let votes else { throw TesseraError.notMeasured }
        return try vectors.update(tensor, trim(), by: .consensus, zeroIsMinus: votes.minus > votes.plus)
    }

    private func trim() throws(TesseraError) -> ModelTrim {
        guard let thresholds else { throw .notMeasured }
        return ModelTrim(bands: zip(thresholds, vectors.densities).map { PublishedTrim.band(from: $0, share: $1) })
    }
}
