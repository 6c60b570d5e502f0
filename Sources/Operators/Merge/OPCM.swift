package import Core
import LinearAlgebra

/// Merging models that arrive one after the other (OPCM, arXiv 2501.09522), in the order of the recipe.
///
/// `S₁ = τ₁`, and `Sₜ = Sₜ₋₁ + τₜ − U·(diag P ∪ P_kk)·Wᵀ` with `Sₜ₋₁ = U·Σ·Wᵀ` and `P = Uᵀ·τₜ·W`: what lies along the directions
/// of the merged update is taken out, and so is the leading `k × k` block of `P`, where `k` is the number of singular values
/// whose sum does not exceed the share `alpha`. At the end `m = S_T·n̄/‖S_T‖`, with `n̄` the mean of `‖τₜ‖`; both norms are over
/// the whole model. Other tensors: `Sₜ = Sₜ₋₁ + τₜ`.
///
/// The task vector of an adapter is a difference of numbers that were rounded to float32 when the adapter was folded in. Singular
/// values that this rounding explains have no directions that could be taken out (`TaskMatrices.rounding`).
///
/// The paper scales the update after every model, and the next model by as much; that cancels out.
package struct OPCM: MatrixMethod {
    package static let name = "opcm"
    package static let summary = "Adds one task vector after the other, without what lies along those before it."
    package static let parameters = MatrixRole.parameters(
        [
            .number(
                "alpha", .shared, default: 0.5, in: 0...1,
                "Share of the sum of singular values, whose directions are taken out of the next task as a whole.")
        ], others: .sum)

    private static let taskNorm = "squared_norm", updateNorm = "update_norm"

    let role: MatrixRole
    private let alpha: Double
    /// `n̄/‖S_T‖`; `nil` before it has been measured.
    private let factor: Double?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        let base = try inputs.requiredBase(), norms = try values.statistics(Self.taskNorm, of: inputs.models)
        if let norms, let update = try values.optionalNumber(Self.updateNorm, ofInput: base) {
            let mean = norms.reduce(0) { $0 + $1.squareRoot() } / Double(norms.count)
            factor = update > 0 ? mean / update.squareRoot() : 1
        } else {
            factor = nil
        }
        role = try MatrixRole(values, inputs: inputs, others: .sum).scaled(by: factor ?? 1)
        alpha = try values.number("alpha")
    }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        MatrixNeed(
            elements: 3 * size.area + 2 * size.factors + 2 * size.rank * size.rank + size.work,
            operations: Double(size.tasks - 1) * (size.decomposition + 8 * Double(size.area) * Double(size.rank)), passes: 2)
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        [[ModelStatistic(Self.taskNorm, .sum), ModelStatistic(Self.updateNorm, .sum)]]
    }

    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost { cost(of: shape) }

    /// The norm of the update belongs to the base, which every tensor has.
    package func measure(round: Int, _ tensor: TensorPasses) throws {
        let norm: Double
        if let size = matrixSize(tensor.shape) {
            norm = try update(tasks(tensor, size)).squaredNorm
        } else {
            norm = try role.squaredNormOfOther(tensor)
        }
        tensor.report(Self.updateNorm, tensor.sources.indices.map { $0 == role.base ? norm : 0 })
        tensor.report(Self.taskNorm, try tensor.squaredNorms(of: role.models))
    }

    package func merge(_ tensor: TensorPasses) throws {
        guard factor != nil else { throw TesseraError.notMeasured }
        try mergeMatrix(tensor)
    }

    /// `S_T`.
    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let update = try tasks.vector(0), rounding = try tasks.rounding(of: role.base)
        for index in 1..<tasks.count {
            let found = try update.copy().singularValues(), vector = try tasks.vector(index)
            let inner = try found.left.transposed.times(vector.view()).view().times(found.right.transposed)
            let kept = leading(found)
            for row in 0..<inner.rows {
                for column in 0..<inner.columns {
                    // Directions that the update does not have, or that are only rounding, are not taken out.
                    let least = max(found.negligible, Double(index) * rounding)
                    let isReal = min(found.values[row], found.values[column]) > least
                    let isTaken = row == column || (row < kept && column < kept)
                    inner[row, column] = isTaken && isReal ? -inner[row, column] : 0
                }
            }
            update.add(vector)
            try update.assign(found.left.view().times(inner.view()).view(), times: found.right.view(), adding: true)
        }
        return update
    }

    /// The number of leading singular values before the one with which their sum exceeds the share.
    private func leading(_ found: SingularValues) -> Int {
        let total = found.values.reduce(0, +)
        var sum = 0.0
        for (index, value) in found.values.enumerated() {
            sum += value
            if sum > alpha * total { return index }
        }
        return 0
    }
}

extension TaskMatrices {
    /// The largest singular value of the errors of a task vector whose model was rounded to float32 near the base `b`.
    ///
    /// The errors are at most `u·|bᵢⱼ|` with `u = 2⁻²⁴`, and as good as independent: a random m × n matrix of entries with
    /// standard deviation `s` has singular values up to `s·(√m + √n)`. With `s = 2u·‖b‖/√(mn)` there is room.
    fileprivate func rounding(of base: Int) throws -> Double {
        let whole = MatrixSize(tensor.shape, tasks: count), rows = Double(whole.rows), columns = Double(whole.columns)
        let squares = try tensor.sums(1) { tile, sums in
            let values = try tile.source(base)
            for place in 0..<tile.count { sums[0] += Double(values[place]) * Double(values[place]) }
        }[0]
        return 0x1p-23 * squares.squareRoot() * (1 / rows.squareRoot() + 1 / columns.squareRoot())
    }
}
