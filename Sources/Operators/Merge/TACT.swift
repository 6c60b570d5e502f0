package import Core
import LinearAlgebra
import TensorKernels

/// `actmat` with trimmed second moments (TACT, arXiv 2604.01329).
///
/// `Cₜ = τ̃ₜᵀτ̃ₜ`, where `τ̃ₜ` keeps the `round(density·n)` entries of `τₜ` with the largest magnitudes (half to even, at least
/// one; of equal ones the first): `m = (Σ τₜCₜ)(Σ Cₜ)⁺`.
package struct TACT: MatrixMethod {
    package static let name = "tact"
    package static let summary = "Averages the task vectors, each weighted by the second moments of its large entries."
    package static let parameters = MatrixRole.parameters([
        .number("density", .shared, default: 0.5, in: 0...1, "Share of the entries that the second moments are taken of.")
    ])

    let role: MatrixRole
    private let density: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        density = try values.number("density")
    }

    func applies(to size: MatrixSize) -> Bool { size.isWithinReleasedLimit }

    func order(_ size: MatrixSize) -> Int { size.gramOrder }

    func need(_ size: MatrixSize) -> MatrixNeed {
        var need = size.gramNeed
        need.passes += 1
        need.memory = MagnitudeTrim.memory(models: size.tasks, count: size.area)
        return need
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let area = Double(tasks.size.area), kept = max(1, Int((density * area).rounded(.toNearestOrEven)))
        let trim = try MagnitudeTrim(tasks.models.map { _ in .init(kept: kept) }, of: tasks.models, in: tasks.tensor)
        let sums = try GramSums(tasks) { index, vector in
            let trimmed = try vector.copy()
            var start = 0
            while start < tasks.size.area {
                let (band, limit) = trim.band(index, from: start), end = min(limit, tasks.size.area)
                for element in start..<end where !band.contains(Float(vector.elements[element])) { trimmed.elements[element] = 0 }
                start = end
            }
            return (trimmed, 1)
        }
        return try sums.solve { _, value, negligible in (value > negligible ? 1 / value : 0, 0) }
    }
}
