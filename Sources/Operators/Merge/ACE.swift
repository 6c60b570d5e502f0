package import Core
import LinearAlgebra
import TensorKernels

/// Merging by estimated input covariances (ACE-Merging, arXiv 2603.02945), as released.
///
/// `Wₜ` is `τₜ` with every column's mean over the rows taken away, `Cₜ = WₜᵀWₜ`, `Rₜ = Cₜ + epsilon·I`, and `p` the row of column
/// means of `Σ Cₜ`: `m = (Σ WₜRₜ)(Σ Rₜ + 1·p)⁻¹`.
///
/// Where the tasks move by very different amounts (the variance of `ln(‖τₜ‖² + 10⁻¹²)` over its squared mean is above 0.3), `Cₜ`
/// and epsilon are divided by `tr Cₜ + 10⁻¹²`, and `p` by the mean of `‖τₜ‖²`. Then, with the singular vectors of
/// `m + Σ τₜ(Cₜ − Σ R/T)`, the first `k = ⌊0.3·r⌋` of them times the mean of their values are added to `m`.
package struct ACE: MatrixMethod {
    package static let name = "ace"
    package static let summary = "Averages the centred task vectors, weighted by covariances that they stand for."
    package static let parameters = MatrixRole.parameters([
        .number("epsilon", .shared, default: 0.01, in: 0...1e30, "Added to the diagonal of each covariance."),
        .flag("restore_mean", default: false, "Add the mean of the column means that centring takes away."),
    ])

    let role: MatrixRole
    private let epsilon: Double
    private let restoresMean: Bool

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        epsilon = try values.number("epsilon")
        restoresMean = try values.flag("restore_mean")
    }

    func applies(to size: MatrixSize) -> Bool { size.isWithinReleasedLimit }

    func order(_ size: MatrixSize) -> Int { size.columns }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let square = size.columns * size.columns
        return MatrixNeed(
            elements: 7 * size.area + 2 * size.factors + size.work + 7 * square
                + LinearAlgebra.singularValueWork(size.columns, size.columns),
            operations: 4 * Double(size.tasks + 1) * size.gram + size.eigenvalues + size.decomposition, passes: 2)
    }

    /// Sums over the tasks.
    private struct Sums {
        /// `Σ WₜRₜ`, `Σ τₜCₜ`, `Σ τₜ`: m × n.
        let target, products, vectors: Matrix
        /// `Σ Rₜ`, and `Σ Cₜ`: n × n.
        let ridged, gram: Matrix
        /// Of the columns of all task vectors.
        var means: [Double]
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let norms = try (0..<tasks.count).map { try tasks.vector($0).squaredNorm }, isOpen = Self.isOpen(norms)
        let sums = try sums(tasks, isOpen: isOpen), size = tasks.size
        let system = try sums.ridged.copy(), meanNorm = norms.reduce(0, +) / Double(tasks.count)
        for column in 0..<size.columns {
            var mean = 0.0
            for row in 0..<size.columns { mean += sums.gram[row, column] }
            mean /= Double(size.columns) * (isOpen ? meanNorm + 1e-12 : 1)
            for row in 0..<size.columns { system[row, column] += mean }
        }
        let update = try Self.quotient(sums.target, system)
        if isOpen { try addLeading(of: sums, to: update, tasks: tasks.count) }
        if restoresMean {
            for row in 0..<size.rows {
                for column in 0..<size.columns { update[row, column] += sums.means[column] / Double(tasks.count) }
            }
        }
        return update
    }

    /// Whether the tasks move by very different amounts. One task alone does not.
    private static func isOpen(_ norms: [Double]) -> Bool {
        guard norms.count > 1 else { return false }
        let logarithms = norms.map { Exponential.logarithm($0 + 1e-12) }
        let mean = logarithms.reduce(0, +) / Double(norms.count)
        let variance = logarithms.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(norms.count - 1)
        return variance / (mean * mean + 1e-12) > 0.3
    }

    private func sums(_ tasks: TaskMatrices, isOpen: Bool) throws -> Sums {
        let size = tasks.size, square = { try tasks.tensor.matrix(rows: size.columns, columns: size.columns) }
        var sums = try Sums(
            target: tasks.zeros(), products: tasks.zeros(), vectors: tasks.zeros(), ridged: square(), gram: square(),
            means: Array(repeating: 0, count: size.columns))
        for index in 0..<tasks.count {
            let vector = try tasks.vector(index), centred = try vector.copy()
            for column in 0..<size.columns {
                var mean = 0.0
                for row in 0..<size.rows { mean += vector[row, column] }
                mean /= Double(size.rows)
                sums.means[column] += mean
                for row in 0..<size.rows { centred[row, column] -= mean }
            }
            let moments = try centred.transposed.times(centred.view())
            var trace = 1e-12
            for column in 0..<size.columns { trace += moments[column, column] }
            if isOpen { for element in moments.elements.indices { moments.elements[element] /= trace } }
            sums.gram.add(moments)
            try sums.products.assign(vector.view(), times: moments.view(), adding: true)
            sums.vectors.add(vector)
            for column in 0..<size.columns { moments[column, column] += isOpen ? epsilon / trace : epsilon }
            sums.ridged.add(moments)
            try sums.target.assign(centred.view(), times: moments.view(), adding: true)
        }
        return sums
    }

    /// `target · system⁻¹`, with the pseudo-inverse of a system that is singular.
    private static func quotient(_ target: Matrix, _ system: Matrix) throws -> Matrix {
        let result = try target.copy()
        if try system.copy().solve(into: result) { return result }
        let found = try system.singularValues(), least = found.negligible
        found.left.scaleColumns(by: found.values.map { $0 > least ? 1 / $0 : 0 })
        return try target.view().times(found.right.transposed).view().times(found.left.transposed)
    }

    private func addLeading(of sums: Sums, to update: Matrix, tasks: Int) throws {
        let difference = sums.products
        difference.add(try sums.vectors.view().times(sums.ridged.view()), scale: -1 / Double(tasks))
        difference.add(update)
        let kept = Int(0.3 * Double(min(difference.rows, difference.columns)))
        guard kept > 0 else { return }
        let found = try difference.singularValues(first: kept)
        let mean = found.values[..<kept].reduce(0, +) / Double(kept)
        found.left.scaleColumns(by: Array(repeating: mean, count: kept))
        try update.assign(found.left.view(columns: 0..<kept), times: found.right.view(rows: 0..<kept), adding: true)
    }
}
