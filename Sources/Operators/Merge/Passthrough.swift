package import Core
import TensorKernels

/// `out = x`, or `out = scale · x` when `scale` is set.
package struct Passthrough: MergeMethod {
    package static let name = "passthrough"
    package static let summary = "Takes the tensor of the only model, optionally scaled."
    package static let inputs = InputContract(base: .plainInput, models: 1...1)
    package static let parameters: [Parameter] = [
        .number("scale", .perInput, default: nil, "Multiplies the tensor.")
    ]

    private let scale: Float?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        scale = try values.optionalNumber("scale", ofInput: 0).map { Float($0) }
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 1) }

    package func merge(_ tensor: TensorPasses) throws {
        if scale == nil, tensor.isStoredAsIs(0) {
            return try tensor.emitBytes(ofSource: 0)
        }
        try tensor.emit { tile, out in
            tile.kernels.weightedSum([try tile.stored(0)], weights: [scale ?? 1], into: out, count: tile.count)
        }
    }
}
