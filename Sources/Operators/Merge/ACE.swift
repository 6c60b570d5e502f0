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

    func order(_ size: MatrixSize) -> Int { size.gramOrder }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let order = size.gramOrder, square = order * order, leading = 2 * size.factors + size.work
        if size.isStacked {
            let products = Double((2 * size.tasks + 12) * order) * Double(size.area), side = Double(order)
            return MatrixNeed(
                elements: (size.tasks + 8) * size.area + 6 * size.rows * order + size.rows * size.rows + 2 * square
                    + LinearAlgebra.eigenvalueWork(order) + leading,
                operations: products + 9 * side * side * side + size.decomposition, passes: 2)
        }
        return MatrixNeed(
            elements: 7 * size.area + leading + 7 * square + LinearAlgebra.singularValueWork(order, order),
            operations: 4 * Double(size.tasks + 1) * size.gram + size.eigenvalues + size.decomposition, passes: 2)
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let norms = try (0..<tasks.count).map { try tasks.vector($0).squaredNorm }, isOpen = Self.isOpen(norms)
        var means = [Double](repeating: 0, count: tasks.size.columns)
        // `p` is the sum of the rows of `Σ Cₜ` over this.
        let divisor = Double(tasks.size.columns) * (isOpen ? norms.reduce(0, +) / Double(tasks.count) + 1e-12 : 1)
        let update =
            try tasks.size.isStacked
            ? stackedUpdate(tasks, isOpen, divisor, &means) : squareUpdate(tasks, isOpen, divisor, &means)
        if restoresMean {
            for row in 0..<update.rows {
                for column in 0..<update.columns { update[row, column] += means[column] / Double(tasks.count) }
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

    /// `Wₜ`. Adds the means of the columns.
    private static func centred(_ vector: Matrix, addingTo means: inout [Double]) throws(TesseraError) -> Matrix {
        let centred = try vector.copy()
        for column in 0..<vector.columns {
            var mean = 0.0
            for row in 0..<vector.rows { mean += vector[row, column] }
            mean /= Double(vector.rows)
            means[column] += mean
            for row in 0..<vector.rows { centred[row, column] -= mean }
        }
        return centred
    }

    // MARK: By the second moments of the columns

    private func squareUpdate(
        _ tasks: TaskMatrices, _ isOpen: Bool, _ divisor: Double, _ means: inout [Double]
    ) throws -> Matrix {
        let size = tasks.size, square = { try tasks.tensor.matrix(rows: size.columns, columns: size.columns) }
        // `Σ WₜRₜ`, `Σ τₜCₜ`, `Σ τₜ`; `Σ Rₜ`, and `Σ Cₜ`, which becomes the system.
        let target = try tasks.zeros(), products = try tasks.zeros(), vectors = try tasks.zeros()
        let ridged = try square(), system = try square()
        for index in 0..<tasks.count {
            let vector = try tasks.vector(index), centred = try Self.centred(vector, addingTo: &means)
            let moments = try centred.transposed.times(centred.view())
            var trace = 1e-12
            for column in 0..<size.columns { trace += moments[column, column] }
            if isOpen { for element in moments.elements.indices { moments.elements[element] /= trace } }
            system.add(moments)
            try products.assign(vector.view(), times: moments.view(), adding: true)
            vectors.add(vector)
            for column in 0..<size.columns { moments[column, column] += isOpen ? epsilon / trace : epsilon }
            ridged.add(moments)
            try target.assign(centred.view(), times: moments.view(), adding: true)
        }
        let sums = (0..<size.columns).map { column in
            (0..<size.columns).reduce(0.0) { $0 + system[$1, column] } / divisor
        }
        for place in ridged.elements.indices { system.elements[place] = ridged.elements[place] + sums[place % size.columns] }
        let update = try Self.quotient(target, system)
        guard isOpen else { return update }
        products.add(try vectors.view().times(ridged.view()), scale: -1 / Double(tasks.count))
        try Self.addLeading(of: products, to: update)
        return update
    }

    /// `target · system⁻¹`, with the pseudo-inverse of a system that is singular.
    private static func quotient(_ target: Matrix, _ system: Matrix) throws -> Matrix {
        let result = try target.copy()
        if try system.copy().solve(into: result) { return result }
        let found = try system.singularValues(), least = found.negligible
        found.left.scaleColumns(by: found.values.map { $0 > least ? 1 / $0 : 0 })
        return try target.view().times(found.right.transposed).view().times(found.left.transposed)
    }

    // MARK: By the second moments of the rows

    /// The same where all task vectors together have fewer rows than columns.
    ///
    /// The rows `√wₜ·Wₜ` of all tasks, one below the other, are `X`, where `wₜ` multiplies `Cₜ` and epsilon: `Σ Cₜ = XᵀX`, and
    /// `Σ WₜRₜ = L·X` with the blocks `√wₜ·(WₜWₜᵀ + epsilon·I)` side by side in `L`. With `v = X·1`, `1·p = 1·vᵀ·X/divisor`.
    /// With `E` the sum of all epsilons, `X·(XᵀX + 1·vᵀ·X/divisor + E·I)⁻¹ = (X·Xᵀ + v·vᵀ/divisor + E·I)⁻¹·X`, so that
    /// `m = L·(X·Xᵀ + v·vᵀ/divisor + E·I)⁻¹·X`.
    private func stackedUpdate(
        _ tasks: TaskMatrices, _ isOpen: Bool, _ divisor: Double, _ means: inout [Double]
    ) throws -> Matrix {
        let size = tasks.size, space = tasks.tensor, order = size.gramOrder
        let rows = try space.matrix(rows: order, columns: size.columns), vectors = try tasks.zeros()
        // `L`, and the same with `√wₜ·τₜWₜᵀ` as blocks.
        let left = try space.matrix(rows: size.rows, columns: order), products = try space.matrix(rows: size.rows, columns: order)
        var ridge = 0.0
        for index in 0..<tasks.count {
            let vector = try tasks.vector(index), centred = try Self.centred(vector, addingTo: &means)
            let weight = isOpen ? 1 / (centred.squaredNorm + 1e-12) : 1, root = weight.squareRoot(), first = index * size.rows
            let moments = try centred.view().times(centred.transposed)
            for row in 0..<size.rows { moments[row, row] += epsilon }
            left.copy(moments, rows: size.rows, columns: size.rows, toRow: 0, column: first, scale: root)
            let block = try vector.view().times(centred.transposed)
            products.copy(block, rows: size.rows, columns: size.rows, toRow: 0, column: first, scale: root)
            rows.copy(centred, rows: size.rows, columns: size.columns, toRow: first, column: 0, scale: root)
            vectors.add(vector)
            ridge += epsilon * weight
        }
        let solved = try Self.quotient(left, rows: rows, divisor: divisor, ridge: ridge)
        let update = try solved.view().times(rows.view())
        guard isOpen else { return update }
        let count = Double(tasks.count)
        products.add(try vectors.view().times(rows.transposed), scale: -1 / count)
        let difference = try products.view().times(rows.view())
        difference.add(vectors, scale: -ridge / count)
        try Self.addLeading(of: difference, to: update)
        return update
    }

    /// `left · (X·Xᵀ + v·vᵀ/divisor + ridge·I)⁺`. `X` holds nothing in the directions that are left out.
    private static func quotient(
        _ left: Matrix, rows: Matrix, divisor: Double, ridge: Double
    ) throws(TesseraError) -> Matrix {
        let system = try rows.gram(ofColumns: false)
        let sums = (0..<rows.rows).map { row in (0..<rows.columns).reduce(0.0) { $0 + rows[row, $1] } }
        for row in sums.indices {
            for column in sums.indices { system[row, column] += sums[row] * sums[column] / divisor }
            system[row, row] += ridge
        }
        let found = try system.eigenvalues()
        let least = Double(rows.columns) * Double.ulpOfOne * max(0, found.values.first ?? 0)
        let solved = try left.view().times(found.vectors.view())
        solved.scaleColumns(by: found.values.map { $0 > least ? 1 / $0 : 0 })
        return try solved.view().times(found.vectors.transposed)
    }

    /// Adds the leading singular vectors of `difference + update`, times the mean of their values. Changes `difference`.
    private static func addLeading(of difference: Matrix, to update: Matrix) throws(TesseraError) {
        difference.add(update)
        let kept = Int(0.3 * Double(min(difference.rows, difference.columns)))
        guard kept > 0 else { return }
        let found = try difference.singularValues(first: kept)
        let mean = found.values[..<kept].reduce(0, +) / Double(kept)
        found.left.scaleColumns(by: Array(repeating: mean, count: kept))
        try update.assign(found.left.view(columns: 0..<kept), times: found.right.view(rows: 0..<kept), adding: true)
    }
}
