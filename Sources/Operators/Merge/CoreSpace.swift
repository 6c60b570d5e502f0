package import Core
import LinearAlgebra

/// Merging of adapters in the space that their factors span (Core Space, arXiv 2509.17786).
///
/// With `U` an orthonormal basis of the columns of all `Bₜ` and `V` one of the rows of all `Aₜ`: `Mₜ = (Uᵀ·Bₜ)·(Aₜ·V)`, and
/// `m = U·M·Vᵀ` with `M` the merged cores. Nothing is lost: `U·Mₜ·Vᵀ = Bₜ·Aₜ`. The scale of an adapter is part of `Bₜ`.
///
/// By `ties`, each core keeps its published share `density` of largest entries (`PublishedTrim`), then those are averaged that
/// have the sign of their sum; both within the matrix. A whole checkpoint's task vector is cut to its first `rank` triplets.
package struct CoreSpace: MatrixMethod {
    package static let name = "core_space"
    package static let summary = "Merges adapters as small matrices between the directions that they use."
    package static let parameters = MatrixRole.parameters([
        .choice("rule", of: ["ties", "mean", "sum"], default: "ties", "How the cores are merged."),
        .number("density", .shared, default: 0.1, in: 0...1, "Share of a core's entries that 'ties' keeps."),
        .flag("isotropic", default: false, "Replace the singular values of the merged core by their mean."),
        .integer("rank", .shared, default: 16, in: 1...LinearAlgebra.limit, "The rank of task vectors of whole checkpoints."),
    ])

    let role: MatrixRole
    private let rule: String
    private let density: Double
    private let isIsotropic: Bool
    private let rank: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        rule = try values.text("rule")
        density = try values.number("density")
        isIsotropic = try values.flag("isotropic")
        rank = try values.integer("rank")
    }

    func order(_ size: MatrixSize) -> Int {
        max(size.rank, min(max(size.rows, size.columns), role.factorCount(limit: min(rank, size.rank))))
    }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let limit = min(rank, size.rank), count = role.factorCount(limit: limit)
        var need = role.factorNeed(size, limit: limit)
        need.elements += (size.tasks + 4) * count * count + LinearAlgebra.singularValueWork(count, count)
        need.operations += 16 * Double(count) * Double(count) * Double(count)
        return need
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let factors = try TaskFactors(tasks, limit: rank), right = try factors.rightBasis(tasks)
        guard factors.basis.columns > 0, right.rows > 0 else { return try tasks.zeros() }
        var cores: [Matrix] = []
        for part in factors.parts {
            let left = try factors.basis.transposed.times(part.left.view())
            cores.append(try left.view().times(part.right.view().times(right.transposed).view()))
        }
        let merged = try self.merged(cores)
        return try factors.basis.view().times(merged.view()).view().times(right.view())
    }

    /// Changes the cores.
    private func merged(_ cores: [Matrix]) throws -> Matrix {
        if rule == "ties" {
            for core in cores { trim(core) }
            let votes = ElectedMean.votes(cores)
            ElectedMean.merge(cores, zeroIsMinus: votes.minus > votes.plus)
        } else {
            for core in cores.dropFirst() { cores[0].add(core) }
            let share = rule == "mean" ? 1 / Double(cores.count) : 1
            for place in cores[0].elements.indices { cores[0].elements[place] *= share }
        }
        return isIsotropic ? try cores[0].isotropic() : cores[0]
    }

    private func trim(_ core: Matrix) {
        guard density < 1 else { return }
        let magnitudes = core.elements.map(\.magnitude).sorted(by: >)
        let least = density > 0 ? magnitudes[PublishedTrim.rank(of: magnitudes.count, share: density) - 1] : .infinity
        for place in core.elements.indices where core.elements[place].magnitude < least { core.elements[place] = 0 }
    }
}
