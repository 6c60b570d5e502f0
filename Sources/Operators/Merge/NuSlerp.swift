package import Core
import TensorKernels

/// Spherical interpolation between two models at `t = w₁/(w₀ + w₁)`, of the tensors or, with a base, of the task vectors.
///
/// `out = [sin((1−t)θ)·y₀ + sin(tθ)·y₁] / sin θ (+ b)` for each vector of the tensor: all of it (`nuslerp_flatten`), those along
/// the last dimension, or those down dimension 0 (`nuslerp_row_wise`). Colinear vectors, `1 − cos²θ ≤ 1e-16`, are interpolated
/// linearly (mergekit-compatible).
package struct NuSlerp: MergeMethod {
    package static let name = "nuslerp"
    package static let summary = "Interpolates between two models along the arc between them, by weight."
    package static let inputs = InputContract(base: .optional, models: 2...2)
    package static let whenIncomplete = IncompleteTensor.copyLone
    package static let parameters: [Parameter] = [
        .required("weight", .perModel, "This model's part; what counts is its share of both."),
        .flag("nuslerp_flatten", default: true, "Take the tensor as one vector."),
        .flag("nuslerp_row_wise", default: false, "Without flattening: vectors down dimension 0 in place of along the last."),
    ]

    private let t: Double
    private let flatten: Bool
    private let downFirst: Bool
    private let models: [Int]
    private let base: Int?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        models = inputs.models
        base = inputs.base
        guard models.count == 2 else { throw TesseraError(.badData, "the plan has \(models.count) models for 'nuslerp'") }
        let first = try values.number("weight", ofInput: models[0]), second = try values.number("weight", ofInput: models[1])
        t = (first + second).magnitude < 1e-6 ? 0.5 : second / (first + second)
        flatten = try values.flag("nuslerp_flatten")
        downFirst = try values.flag("nuslerp_row_wise")
    }

    package func cost(of shape: [Int]) -> OperatorCost {
        OperatorCost(passes: 2, memory: DotProducts.memory(order: 2, cut(of: shape), shape: shape))
    }

    private func cut(of shape: [Int]) -> VectorCut {
        flatten ? .whole : downFirst ? .alongFirst(shape) : .alongLast(shape)
    }

    package func merge(_ tensor: TensorPasses) throws {
        let products = try DotProducts(2, cut(of: tensor.shape), of: tensor) { try $0.taskVectors(models) }
        let combination = Combination(products) { piece in
            let lengths = [0, 1].map { max(1e-7, products.norm($0, in: piece)) }
            let cosine = (products(0, 1, in: piece) / (lengths[0] * lengths[1])).asCosine
            return Arc(cosine: cosine, isStraight: 1 - cosine * cosine <= 1e-16).point(t)
        }
        try tensor.emit { tile, out in
            combination.apply(try tile.taskVectors(models), of: tile, into: out)
            if let base { tile.kernels.add(try tile.source(base), to: out, count: tile.count) }
        }
    }
}
