package import Core
import LinearAlgebra
import TensorKernels

/// Merging without interference (WUDI, arXiv 2503.08099), in closed form: the minimum of `Σ ‖(m − τₜ)·τₜᵀ‖²/‖τₜ‖²`.
///
/// With `Gₜ = τₜᵀτₜ/‖τₜ‖²`, `C = Σ Gₜ` and `D = Σ τₜGₜ`: `m = D·C⁺ + (Σ τₜ)(I − C·C⁺)`.
///
/// With `spectral`, the method's descent from `Σ τₜ` is followed for so many steps in the eigenvectors `q` of `C` with the
/// largest eigenvalues `e`, a share of all of them: there `m·q = (Σ τₜ)·q·(1 − f) + D·q·f/e` with `f = 1 − exp(−steps·e)`.
package struct WUDI: MatrixMethod {
    package static let name = "wudi"
    package static let summary = "Adds the update that agrees best with every task vector along that task vector."
    package static let parameters = MatrixRole.parameters([
        .number(
            "spectral", .shared, default: 0, in: 0...1, "Share of the eigenvectors that the descent changes; 0 is its end in all."
        ),
        .integer("steps", .shared, default: 300, in: 1...1_000_000, "Steps of the descent; needs 'spectral'."),
    ])

    let role: MatrixRole
    private let share: Double
    private let steps: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        share = try values.number("spectral")
        steps = Double(try values.integer("steps"))
    }

    func order(_ size: MatrixSize) -> Int { size.gramOrder }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed { size.gramNeed }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let sums = try GramSums(tasks) { _, vector in
            let norm = vector.squaredNorm
            return (vector, norm == 0 ? 0 : 1 / norm)
        }
        let changed = Int(share * Double(tasks.size.columns))
        return try sums.solve { [share, steps] index, value, negligible in
            guard value > negligible else { return (0, 1) }
            if share == 0 { return (1 / value, 0) }
            let part = index < changed ? Exponential.saturation(steps * value) : 0
            return (part / value, 1 - part)
        }
    }
}
