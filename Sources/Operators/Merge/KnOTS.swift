package import Core
import LinearAlgebra
import TensorKernels

/// TIES of aligned adapters (KnOTS-TIES and KnOTS-DARE-TIES, arXiv 2410.19735).
///
/// `[τ₁ … τ_T] = U·[C₁ … C_T]`, where `U` is a basis of what all task vectors span and, from the singular values and vectors of
/// the `C` side by side, each block becomes `Σ·Vₜ`. Singular values up to 10⁻⁵ of the largest are left out. Over all matrices of
/// the model, each task keeps the published share `density` of the largest entries of its `Σ·Vₜ` (`PublishedTrim`). Those that
/// have the sign of their sum are averaged, and a sum of zero has the sign of most others. `m = U·merged`. By `dare_ties`, each
/// entry of a `Σ·Vₜ` is dropped with the probability `drop` before, and the others are scaled to make up for it.
package struct KnOTS: FactoredMatrixMethod {
    package static let name = "knots"
    package static let summary = "Aligns adapters by their common left singular vectors and merges them by elected signs."
    package static let parameters = MatrixRole.parameters(
        [
            .choice("rule", of: [Ties.name, DareTies.name], default: Ties.name, "How the aligned entries are merged."),
            .number("density", .shared, default: 0.2, in: 0...1, "Share of the aligned entries of the model that stay."),
            .number("drop", .shared, default: 0.3, in: 0...0.999, "Probability with which 'dare_ties' drops an entry."),
        ], lambda: 0.6)

    /// By `dare_ties`.
    package static let isRandom = true

    private static let threshold = "threshold", plus = "plus", minus = "minus"

    package static let unmeasured: Set = ["others"]

    let role: MatrixRole
    private let density: Double
    /// `nil` where nothing is dropped at random.
    private let drop: EntryDrop?
    /// Of the whole model; `nil` before they have been measured.
    private let thresholds: [Double]?
    private let votes: (plus: Double, minus: Double)?

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        density = try values.number("density")
        let probability = try values.number("drop"), rule = try values.text("rule")
        drop = rule == DareTies.name ? EntryDrop(probability: probability, key: inputs.randomKey) : nil
        thresholds = try values.statistics(Self.threshold, of: inputs.models)
        let plus = try values.optionalNumber(Self.plus, ofInput: role.base)
        let minus = try values.optionalNumber(Self.minus, ofInput: role.base)
        votes = if let plus, let minus { (plus, minus) } else { nil }
    }

    /// An adapter's factors are smaller than any reduced matrix.
    var isEquivariant: Bool { role.hasNoFactors }

    func order(_ size: MatrixSize) -> Int { max(size.rank, min(size.rows, role.factorCount(limit: size.rank))) }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let count = min(role.factorCount(limit: size.rank), size.rows), width = size.tasks * size.columns
        var need = role.factorNeed(size, limit: size.rank)
        need.elements += 3 * count * width + 2 * count * count + LinearAlgebra.singularValueWork(count, width)
        need.operations += 16 * Double(width) * Double(count) * Double(count)
        return need
    }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] {
        guard matrixSize(shape) != nil else { return [] }
        let share = density
        return [
            [ModelStatistic(Self.threshold, .magnitude { PublishedTrim.rank(of: $1, share: share) })],
            [ModelStatistic(Self.plus, .sum), ModelStatistic(Self.minus, .sum)],
        ]
    }

    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost { cost(of: shape) }

    package func count(
        _ statistics: [String], of tensor: TensorPasses, in counters: MagnitudeCounters
    ) throws -> MagnitudeCounters {
        guard let size = matrixSize(tensor.shape) else { return counters }
        var counted = counters
        let aligned = try aligned(tasks(tensor, size))
        for (model, part) in zip(role.models, aligned.parts) {
            for row in 0..<part.rows {
                let values = (0..<part.columns).map { Float(part[row, $0]) }
                counted.add(values, count: values.count, to: Self.threshold, of: model, kernels: tensor.kernels)
            }
        }
        return counted
    }

    package func measure(round: Int, _ tensor: TensorPasses) throws {
        guard let size = matrixSize(tensor.shape) else { return }
        let aligned = try trimmed(tasks(tensor, size))
        let found = ElectedMean.votes(aligned.parts)
        for (name, count) in [(Self.plus, found.plus), (Self.minus, found.minus)] {
            tensor.report(name, tensor.sources.indices.map { $0 == role.base ? Double(count) : 0 })
        }
    }

    func factoredUpdate(_ tasks: TaskMatrices) throws -> (left: Matrix, right: Matrix) {
        guard let votes else { throw TesseraError.notMeasured }
        let aligned = try trimmed(tasks)
        guard let merged = aligned.parts.first else {
            return (aligned.basis, try tasks.tensor.matrix(rows: 0, columns: tasks.size.columns))
        }
        ElectedMean.merge(aligned.parts, zeroIsMinus: votes.minus > votes.plus)
        return (aligned.basis, merged)
    }

    private func aligned(_ tasks: TaskMatrices) throws -> Aligned {
        let aligned = try Aligned(tasks)
        for (model, part) in zip(role.models, aligned.parts) { drop?.apply(to: part, of: model, tasks.tensor.kernels) }
        return aligned
    }

    private func trimmed(_ tasks: TaskMatrices) throws -> Aligned {
        guard let thresholds else { throw TesseraError.notMeasured }
        let aligned = try aligned(tasks)
        for (part, threshold) in zip(aligned.parts, thresholds) {
            let band = PublishedTrim.band(from: threshold, share: density)
            for place in 0..<part.rows * part.columns where !band.contains(Float(part.elements[place])) {
                part.elements[place] = 0
            }
        }
        return aligned
    }

    /// All task vectors in one basis: `basis · parts[t]` is `τₜ`.
    private struct Aligned {
        /// m × p, with orthonormal columns.
        let basis: Matrix
        /// `Σ·Vₜ`, each p × n.
        let parts: [Matrix]

        init(_ tasks: TaskMatrices) throws {
            let factors = try TaskFactors(tasks, limit: tasks.size.rank), columns = tasks.size.columns
            let space = tasks.tensor
            let stack = try space.matrix(rows: factors.basis.columns, columns: tasks.count * columns)
            for (task, part) in factors.parts.enumerated() {
                let core = try factors.basis.transposed.times(part.left.view()).view().times(part.right.view())
                for row in 0..<core.rows {
                    for column in 0..<columns { stack[row, task * columns + column] = core[row, column] }
                }
            }
            let found = try stack.singularValues(), least = 1e-5 * (found.values.first ?? 0)
            let count = found.values.count { $0 > max(least, found.negligible) }
            basis = try factors.basis.view().times(found.left.view(columns: 0..<count))
            var parts: [Matrix] = []
            for task in 0..<tasks.count {
                let part = try space.matrix(rows: count, columns: columns)
                for row in 0..<count {
                    for column in 0..<columns {
                        part[row, column] = found.values[row] * found.right[row, task * columns + column]
                    }
                }
                parts.append(part)
            }
            self.parts = parts
        }
    }
}
