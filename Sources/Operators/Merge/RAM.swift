package import Core
import TensorKernels

/// Changes that one model alone made are kept whole, changes that several made are averaged (mergekit-compatible).
///
/// With `dᵢ = xᵢ − b` and `zᵢ = [|dᵢ| > epsilon]` for each entry: `out = b + Σ zᵢdᵢ / max(1, Σ zᵢ)`.
package struct RAM: MergeMethod {
    package static let name = "ram"
    package static let summary = "Keeps what only one model changed, and averages what several changed."
    package static let inputs = InputContract(base: .required, models: 0...Int.max)
    package static let parameters: [Parameter] = [.changeThreshold]

    private let epsilon: Float
    private let base: Int
    private let models: [Int]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        epsilon = Float(try values.number("epsilon"))
        base = try inputs.requiredBase()
        models = inputs.models
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        let factors = [Float](repeating: 1, count: models.count)
        try tensor.emit { tile, out in
            tile.kernels.mergeChanges(
                try tile.taskVectors(models), factors: factors, above: epsilon, into: out, count: tile.count)
            tile.kernels.add(try tile.source(base), to: out, count: tile.count)
        }
    }
}

extension Parameter {
    /// What `ram` and `ramplus_tl` take for a change.
    static let changeThreshold = number(
        "epsilon", .shared, default: 1e-5, in: 0...Double.greatestFiniteMagnitude, "Differences up to this are no change.")
}
