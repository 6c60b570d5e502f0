package import Core
import TensorKernels

/// Task arithmetic in a subspace that a mask describes (Concrete, arXiv 2312.06173): `out = b + λ Σ (m/m̄)·dₜ`.
///
/// The recipe gives the mask's logits `l`, one for each entry. `m` is made of them; `m̄` is its mean over the tensor. A mask that
/// is 0 everywhere gives the base.
package struct Concrete: MergeMethod {
    package static let name = "concrete"
    package static let summary = "Adds the task vectors through a mask that all of them share."
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .tensors(mask, .shared, of: .everyTensor, "The file of the mask's logits."),
        .choice(
            "mask_as", of: Reading.allCases.map(\.rawValue), default: Reading.expected.rawValue,
            "What is made of a logit: its sigmoid, the median of the relaxed mask, or 1 where it is above 0."),
        .number("lambda", .shared, default: 0.3, "Scales the merged task vector."),
    ]

    private static let mask = "mask"

    private enum Reading: String, CaseIterable, Sendable {
        /// `σ(l)`, the mean of a Bernoulli mask.
        case expected
        /// `σ(l/0.5)`, the median of the relaxed mask at the paper's temperature.
        case median
        /// 1 where `l > 0`.
        case hard

        func value(_ logit: Double) -> Double {
            switch self {
            case .expected: Self.sigmoid(logit)
            case .median: Self.sigmoid(logit / 0.5)
            case .hard: logit > 0 ? 1 : 0
            }
        }

        private static func sigmoid(_ x: Double) -> Double {
            let decay = Exponential.decay(x.magnitude)
            return (x < 0 ? decay : 1) / (1 + decay)
        }
    }

    private let base: Int
    private let models: [Int]
    private let reading: Reading
    private let lambda: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        lambda = try values.number("lambda")
        reading = Reading(rawValue: try values.text("mask_as")) ?? .expected
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        let count = Double(Shape.count(shape))
        return OperatorCost(
            passes: 1, operations: 100 * count,
            memory: MemoryNeed(perThread: 2 * MemoryLayout<Double>.stride * FixedTree.tileElements))
    }

    package func merge(_ tensor: TensorPasses) throws {
        let given = try tensor.givenIndex(Self.mask)
        let total = try tensor.sums(1) { tile, sums in sums[0] = try values(given, of: tile, in: tensor).reduce(0, +) }[0]
        let mean = total / Double(max(1, tensor.count)), scale = mean > 0 ? lambda / mean : 0
        try tensor.emit { tile, out in
            let sums = try tile.taskVectorSum(models), mask = try values(given, of: tile, in: tensor),
                base = try tile.source(base)
            for index in 0..<tile.count { out[index] = Float(Double(base[index]) + scale * mask[index] * sums[index]) }
        }
    }

    /// - Throws: `badData` for a logit that is not a number.
    private func values(_ given: Int, of tile: Tile, in tensor: TensorPasses) throws -> [Double] {
        let logits = try tile.given(given)
        return try (0..<tile.count).map { index in
            guard !logits[index].isNaN else {
                throw tensor.given[given].refusal(
                    "is not a number at element \(tile.range.lowerBound + index)", advice: "train or save the mask again")
            }
            return reading.value(Double(logits[index]))
        }
    }
}
