package import Core
import TensorKernels

/// `out = [sin((1−t)θ)·a + sin(tθ)·b] / sin θ`, where `a` is the base, `b` the model and `θ` the angle between them.
///
/// Spherical interpolation (Shoemake, "Animating Rotation with Quaternion Curves", 1985); the tensor is one vector. Where
/// `|cos θ| > 0.9995` the result is `(1−t)·a + t·b` (mergekit-compatible), as for most fine-tunes of one base.
package struct Slerp: MergeMethod {
    package static let name = "slerp"
    package static let summary = "Interpolates between the base and one model along the arc between them."
    package static let inputs = InputContract(base: .required, models: 1...1)
    package static let whenIncomplete = IncompleteTensor.copyLone
    package static let parameters: [Parameter] = [
        .required("t", .shared, "Where on the arc: 0 is the base, 1 the model.")
    ]

    private let t: Double
    private let ends: [Int]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        t = try values.number("t")
        ends = [try inputs.requiredBase()] + inputs.models
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: 2) }

    package func merge(_ tensor: TensorPasses) throws {
        let products = try DotProducts(2, .whole, of: tensor) { try $0.rows(ends) }
        let shortest = 1e-8
        let lengths = [0, 1].map { products.norm($0) <= shortest ? 1 : products.norm($0) }
        let cosine = (products(0, 1) / (lengths[0] * lengths[1])).asCosine
        let combination = Combination(Arc(cosine: cosine, isStraight: cosine.magnitude > 0.9995).point(t))
        try tensor.emit { tile, out in combination.apply(try tile.rows(ends), of: tile, into: out) }
    }
}

/// The arc between two vectors.
struct Arc: Sendable {
    let cosine: Double
    /// Whether the vectors count as colinear.
    let isStraight: Bool

    /// The coefficients of both vectors at `t`: 0 is the first vector, 1 the second.
    func point(_ t: Double) -> [Double] {
        guard !isStraight else { return [1 - t, t] }
        let angle = Trigonometry.arcCosine(cosine), sine = Trigonometry.sine(angle)
        return [Trigonometry.sine((1 - t) * angle) / sine, Trigonometry.sine(t * angle) / sine]
    }
}
