package import Core
import TensorKernels

/// Like `ram`, but changes that one model alone made are scaled up where it shares many others (mergekit-compatible).
///
/// With `ρᵢ` the number of entries that model `i` and another changed, divided by the number that it changed alone, over the
/// tensor: its lone changes are multiplied by `λᵢ = 1 + r·min(max(ρᵢ, 0), alpha)`. A model without lone changes has the largest
/// `λ`.
package struct RAMPlus: MergeMethod {
    package static let name = "ramplus_tl"
    package static let summary = "Like ram, but scales up what only one model changed where it shares many changes."
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters: [Parameter] = [
        .number("r", .shared, default: 0.1, "How much the scale grows with the ratio of shared to lone changes."),
        .number("alpha", .shared, default: 0.2, "The largest ratio that counts."),
        .changeThreshold,
    ]

    private let growth: Double
    private let largestRatio: Double
    private let epsilon: Double
    private let base: Int
    private let models: [Int]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        growth = try values.number("r")
        largestRatio = try values.number("alpha")
        epsilon = try values.number("epsilon")
        base = try inputs.requiredBase()
        models = inputs.models
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 2) }

    package func merge(_ tensor: TensorPasses) throws {
        let threshold = Float(epsilon), count = models.count
        let (alone, shared) = try tensor.fold((Array(repeating: 0, count: count), Array(repeating: 0, count: count))) {
            part, tile in
            var alone = Array(repeating: UInt32(0), count: count), shared = alone
            tile.kernels.countChanges(
                try tile.taskVectors(models), above: threshold, alone: &alone, shared: &shared, count: tile.count)
            for index in 0..<count {
                part.0[index] += Int(alone[index])
                part.1[index] += Int(shared[index])
            }
        } combine: { total, part in
            for index in 0..<count {
                total.0[index] += part.0[index]
                total.1[index] += part.1[index]
            }
        }
        let factors = zip(alone, shared).map { alone, shared in
            let divisor = max(Double(alone), epsilon)
            let ratio = divisor > 0 ? Double(shared) / divisor : shared > 0 ? largestRatio : 0
            return Float(1 + growth * min(max(ratio, 0), largestRatio))
        }
        try tensor.emit { tile, out in
            tile.kernels.mergeChanges(
                try tile.taskVectors(models), factors: factors, above: threshold, into: out, count: tile.count)
            tile.kernels.add(try tile.source(base), to: out, count: tile.count)
        }
    }
}
