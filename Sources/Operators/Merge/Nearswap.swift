package import Core
import TensorKernels

/// `out = w·x + (1−w)·b` with `w = t / |x − b|` for each entry, at least 0 and at most 1 (mergekit-compatible).
///
/// Entries that lie within `t` of each other are swapped for the model's, the others move by about `t` towards it. `|x − b|`
/// counts as at least 1e-6.
package struct Nearswap: MergeMethod {
    package static let name = "nearswap"
    package static let summary = "Takes the model's entries where they are close to the base's."
    package static let inputs = InputContract(base: .required, models: 1...1)
    package static let whenIncomplete = IncompleteTensor.copyLoneBase
    package static let parameters: [Parameter] = [
        .required("t", .shared, "The distance up to which entries are swapped.")
    ]

    private let t: Float
    private let base: Int
    private let models: [Int]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        t = Float(try values.number("t"))
        base = try inputs.requiredBase()
        models = inputs.models
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        try tensor.emit { tile, out in
            let rows = try tile.rows([base] + models)
            tile.kernels.nearswap(t, rows[0], rows[1], into: out, count: tile.count)
        }
    }
}
