package import Core
import TensorKernels

/// The point on the sphere with the least sum of squared angles to the models' directions, given the mean of their lengths.
///
/// Riemannian centre of mass (Karcher, 1977); each tensor is one vector `xᵢ = nᵢuᵢ`. From the normed mean of the `uᵢ`, up to
/// `max_iter` steps along `T = Σ α(θᵢ/sin θᵢ)(uᵢ − cos θᵢ·m)`, where `θᵢ` is the angle between `uᵢ` and `m`, until `‖T‖ < tol`:
/// `m ← cos‖T‖·m + sin‖T‖·T/‖T‖`. `out = m·mean(nᵢ)`. Models with `nᵢ ≤ tol` have no direction, but count in the mean of lengths.
///
/// All vectors lie in the span of the inputs, so the steps work on coefficients and need nothing but the inputs' dot products.
package struct Karcher: MergeMethod {
    package static let name = "karcher"
    package static let summary = "Takes the centre of the models on the sphere of directions."
    package static let inputs = InputContract(base: .plainInput, models: 1...Int.max)
    package static let parameters: [Parameter] = [
        .integer("max_iter", .shared, default: 10, in: 0...1_000_000, "Steps at most."),
        .positive("tol", .shared, default: 1e-5, "Angles and lengths below this are taken for zero."),
    ]

    private let stepLimit: Int
    private let tolerance: Double
    private let models: [Int]

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        stepLimit = try values.integer("max_iter")
        tolerance = try values.number("tol")
        models = inputs.models
    }

    package func cost(of shape: [Int]) -> OperatorCost { OperatorCost(passes: models.count > 1 ? 2 : 1) }

    package func merge(_ tensor: TensorPasses) throws {
        guard models.count > 1 else {
            return try tensor.emit { tile, out in out.update(from: try tile.source(models[0]), count: tile.count) }
        }
        let combination = Combination(coefficients(try DotProducts(models.count, .whole, of: tensor) { try $0.rows(models) }))
        try tensor.emit { tile, out in combination.apply(try tile.rows(models), of: tile, into: out) }
    }

    /// The result's coefficients over the inputs.
    private func coefficients(_ products: DotProducts) -> [Double] {
        let lengths = models.indices.map { products.norm($0) }
        let used = models.indices.filter { !(lengths[$0] <= tolerance) }
        guard let first = used.first else { return models.map { _ in 0 } }
        let share = 1 / Double(used.count)

        // Coefficients over the inputs as they are: a unit vector has the inverse of its length.
        func unit(_ index: Int) -> [Double] { models.indices.map { $0 == index ? 1 / lengths[$0] : 0 } }
        var centre = models.indices.map { used.contains($0) ? share / lengths[$0] : 0 }
        let start = products.norm(ofCombination: centre)
        centre = start < tolerance ? unit(first) : centre.map { $0 / start }

        for _ in 0..<stepLimit {
            var step = models.map { _ in 0.0 }
            for index in used {
                let cosine = (products.dot(centre, with: index) / lengths[index]).asCosine, angle = Trigonometry.arcCosine(cosine)
                guard !(angle < tolerance) else { continue }
                let factor = share * angle / Trigonometry.sine(angle)
                step[index] += factor / lengths[index]
                for other in models.indices { step[other] -= factor * cosine * centre[other] }
            }
            let length = products.norm(ofCombination: step)
            if !(length >= tolerance) { break }
            centre = zip(centre, step).map { Trigonometry.cosine(length) * $0 + Trigonometry.sine(length) / length * $1 }
            let norm = products.norm(ofCombination: centre)
            if norm > tolerance { centre = centre.map { $0 / norm } }
        }
        let length = lengths.reduce(0, +) / Double(models.count)
        return centre.map { $0 * length }
    }
}
