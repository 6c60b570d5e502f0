package import Core

/// The largest change of each entry (MagMax, arXiv 2407.06322): `out = b + λ·d`, where `d` is the entry of the task vectors with
/// the largest magnitude, of equal ones the last.
package struct MagMax: MergeMethod {
    package static let name = "magmax"
    package static let summary = "Takes each entry from the task vector in which it is largest."
    package static let comparesTasks = true
    package static let inputs = InputContract(base: .required, models: 1...Int.max)
    package static let parameters: [Parameter] = [.number("lambda", .shared, default: 0.5, "Scales the merged task vector.")]
    package static let scale: String? = "lambda"

    private let base: Int
    private let models: [Int]
    private let lambdas: [Float]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        lambdas = try values.numbers("lambda").map { Float($0) }
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        let merged: TileValues = { tile, out in
            out.update(repeating: 0, count: tile.count)
            for model in models {
                let vector = try tile.taskVector(model)
                // Written so that an entry that is not a number stays.
                for index in 0..<tile.count where !(vector[index].magnitude < out[index].magnitude) && !out[index].isNaN {
                    out[index] = vector[index]
                }
            }
        }
        try tensor.emit(lambdas.count, merged: merged) { tile, output, out in
            try tile.addBase(base, to: out, scaledBy: lambdas[output])
        }
    }
}
