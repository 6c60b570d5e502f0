package import Core
import LinearAlgebra
import TensorKernels

/// Merging of adapters in the space that their factors span (Core Space, arXiv 2509.17786).
///
/// With `U` an orthonormal basis of the columns of all `Bₜ` and `V` one of the rows of all `Aₜ`: `Mₜ = (Uᵀ·Bₜ)·(Aₜ·V)`, and
/// `m = U·M·Vᵀ` with `M` the merged cores. Nothing is lost: `U·Mₜ·Vᵀ = Bₜ·Aₜ`. The scale of an adapter is part of `Bₜ`.
///
/// By `ties`, each core keeps its published share `density` of largest entries (`PublishedTrim`), then those are averaged that
/// have the sign of their sum; both within the matrix. By `dare`, each entry of a core is dropped with the probability `drop`,
/// the others are scaled to make up for it, and the cores are added; by `dare_ties`, what is left goes to `ties`. By `tsv` and
/// `cart`, the cores are merged as these methods merge matrices. A whole checkpoint's task vector is cut to its first `rank`
/// triplets.
package struct CoreSpace: FactoredMatrixMethod {
    package static let name = "core_space"
    package static let summary = "Merges adapters as small matrices between the directions that they use."
    package static let parameters = MatrixRole.parameters([
        .choice("rule", of: Rule.allCases.map(\.rawValue), default: "ties", "How the cores are merged."),
        .number("density", .shared, default: 0.1, in: 0...1, "Share of a core's entries that 'ties' and 'dare_ties' keep."),
        .number("drop", .shared, default: 0.3, in: 0...0.999, "Probability with which 'dare' and 'dare_ties' drop an entry."),
        .flag("isotropic", default: false, "Replace the singular values of the merged core by their mean."),
        .integer("rank", .shared, default: 16, in: 1...LinearAlgebra.limit, "The rank of task vectors of whole checkpoints."),
    ])

    /// By `dare` and `dare_ties`.
    package static let isRandom = true

    private enum Rule: String, CaseIterable {
        case ties, mean, sum, tsv, cart, dare
        case dareTies = "dare_ties"
    }

    let role: MatrixRole
    private let rule: Rule
    private let drop: EntryDrop
    /// What merges the cores, for the rules that are methods of their own.
    private let inner: (any MatrixMethod)?
    private let density: Double
    private let isIsotropic: Bool
    private let rank: Int

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        let word = try values.text("rule")
        guard let rule = Rule(rawValue: word) else { throw TesseraError(.badData, "there is no rule '\(word)' for cores") }
        self.rule = rule
        drop = EntryDrop(probability: try values.number("drop"), key: inputs.randomKey)
        let method: (any MatrixMethod.Type)? = rule == .tsv ? TSV.self : rule == .cart ? CART.self : nil
        var own = values
        for parameter in method?.parameters ?? [] { own.shared[parameter.name] = parameter.defaultValue }
        inner = try method?.init(own, inputs: inputs)
        density = try values.number("density")
        isIsotropic = try values.flag("isotropic")
        rank = try values.integer("rank")
    }

    /// An adapter's factors are smaller than any reduced matrix.
    var isEquivariant: Bool { role.hasNoFactors }

    func order(_ size: MatrixSize) -> Int {
        max(size.rank, min(max(size.rows, size.columns), role.factorCount(limit: min(rank, size.rank))))
    }

    func need(_ size: MatrixSize) -> MatrixNeed {
        let limit = min(rank, size.rank), count = role.factorCount(limit: limit)
        var need = role.factorNeed(size, limit: limit)
        let core = MatrixSize([count, count], tasks: size.tasks)
        need.elements += (size.tasks + 4) * core.area + max(core.work, inner?.need(core).elements ?? 0)
        need.operations += max(core.decomposition, inner?.need(core).operations ?? 0)
        return need
    }

    func factoredUpdate(_ tasks: TaskMatrices) throws -> (left: Matrix, right: Matrix) {
        let factors = try TaskFactors(tasks, limit: rank), right = try factors.rightBasis(tasks)
        guard factors.basis.columns > 0, right.rows > 0 else {
            return (try factors.basis.firstColumns(0), try right.firstRows(0))
        }
        var cores: [Matrix] = []
        for part in factors.parts {
            let left = try factors.basis.transposed.times(part.left.view())
            cores.append(try left.view().times(part.right.view().times(right.transposed).view()))
        }
        let merged = try self.merged(cores, tasks)
        return (try factors.basis.view().times(merged.view()), right)
    }

    /// Changes the cores.
    private func merged(_ cores: [Matrix], _ tasks: TaskMatrices) throws -> Matrix {
        if rule == .dare || rule == .dareTies {
            for (core, model) in zip(cores, role.models) { drop.apply(to: core, of: model, tasks.tensor.kernels) }
        }
        let merged: Matrix
        let size = MatrixSize([cores[0].rows, cores[0].columns], tasks: cores.count)
        if let inner, inner.applies(to: size) {
            merged = try inner.update(TaskMatrices(tensor: tasks.tensor, models: role.models, size: size, factors: cores))
        } else if rule == .ties || rule == .dareTies {
            for core in cores { trim(core) }
            let votes = ElectedMean.votes(cores)
            ElectedMean.merge(cores, zeroIsMinus: votes.minus > votes.plus)
            merged = cores[0]
        } else {
            for core in cores.dropFirst() { cores[0].add(core) }
            // Too few directions for a method of its own: their mean, as in whole matrices.
            let share = rule == .sum || rule == .dare ? 1 : 1 / Double(cores.count)
            for place in cores[0].elements.indices { cores[0].elements[place] *= share }
            merged = cores[0]
        }
        return isIsotropic ? try merged.isotropic() : merged
    }

    private func trim(_ core: Matrix) {
        guard density < 1 else { return }
        let magnitudes = core.elements.map(\.magnitude).sorted(by: >)
        let least = density > 0 ? magnitudes[PublishedTrim.rank(of: magnitudes.count, share: density) - 1] : .infinity
        for place in core.elements.indices where core.elements[place].magnitude < least { core.elements[place] = 0 }
    }
}
