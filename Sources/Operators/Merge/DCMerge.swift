package import Core
import LinearAlgebra

/// A merge inside the basis that the tasks share (DC-Merge, arXiv 2603.06242), for full weights and, with `rank`, for adapters.
///
/// `Ũ` and `Ṽ` are made of the first `d = ⌊r/T⌋` singular vectors of every task as in `tsv`, `τ̂ₜ` is `τₜ` cut to those. Of each
/// core `Mₜ = Ũᵀ·τ̂ₜ·Ṽᵀ`, the entries with at least the `q`-th largest magnitude stay, `q = max(1, ⌊density·r²⌋)`, or
/// `max(1, ⌊per_direction·d⌋)`, which means the same for matrices of every size. The cores are merged by sign election and mean,
/// blocks of `d` off the diagonal are dropped, and `m = Ũ·M·Ṽ`.
///
/// With `rank`, `d` is that or `⌊r/T⌋`, whichever is smaller, and the share is of the entries of a core, `(T·d)²`. With
/// `smoothing`, the singular values `σ₁ … σ_d` of each task are made more equal before: all become their mean, or they fall
/// linearly from the first to the last, to `1/min(rho, σ₁/σ_d)` of the first, with the sum that they had.
package struct DCMerge: MatrixMethod {
    package static let name = "dc_merge"
    package static let summary = "Elects signs and averages inside the basis of all tasks' leading singular vectors."
    package static let parameters = MatrixRole.parameters([
        .number("density", .shared, default: 0.001, in: 0...1, "Share of the largest entries of each core that is kept."),
        .number(
            "per_direction", .shared, default: nil, in: 0...1e6,
            "Entries of each core that are kept for each direction of a task, in place of the share."),
        .integer("rank", .shared, default: 0, in: 0...LinearAlgebra.limit, "The rank of the adapters; 0 for full weights."),
        .choice(
            "smoothing", of: Smoothing.allCases.map(\.rawValue), default: "none",
            "How the singular values of a task are made more equal."),
        .number("rho", .shared, default: 5, in: 1...1e6, "The largest over the smallest value after 'linear' smoothing."),
    ])

    private enum Smoothing: String, CaseIterable {
        case none, average, linear
    }

    let role: MatrixRole
    private let density: Double
    private let perDirection: Double?
    private let rank: Int
    private let smoothing: Smoothing
    private let rho: Double

    package init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        role = try MatrixRole(values, inputs: inputs)
        density = try values.number("density")
        perDirection = values.optionalNumber("per_direction")
        rank = try values.integer("rank")
        smoothing = Smoothing(rawValue: try values.text("smoothing")) ?? .none
        rho = try values.number("rho")
    }

    func applies(to size: MatrixSize) -> Bool { size.rank >= size.tasks }

    var isEquivariant: Bool { true }

    func need(_ size: MatrixSize) -> MatrixNeed {
        var need = size.stackingNeed
        need.elements += 2 * size.factors + (size.tasks + 4) * size.rank * size.rank
        return need
    }

    func update(_ tasks: TaskMatrices) throws -> Matrix {
        let full = tasks.size.rank / tasks.count, share = rank == 0 ? full : min(rank, full)
        let side = Double(rank == 0 ? tasks.size.rank : share * tasks.count)
        var basis = try StackedTriplets(share * tasks.count, of: tasks)
        for index in 0..<tasks.count { basis.append(try tasks.vector(index).singularValues(first: share), first: share) }
        let own = (left: try basis.left.copy(), right: try basis.right.copy())
        own.left.scaleColumns(
            by: stride(from: 0, to: basis.values.count, by: share).flatMap { smoothed(Array(basis.values[$0..<$0 + share])) })
        try basis.orthogonalize()
        let kept = max(1, Int(perDirection.map { $0 * Double(share) } ?? density * side * side))
        let cores = try (0..<tasks.count).map { index in
            try tasks.tensor.checkCancellation()
            let triplets = index * share..<(index + 1) * share
            let left = try basis.left.transposed.times(own.left.view(columns: triplets))
            let core = try left.view().times(own.right.view(rows: triplets).times(basis.right.transposed).view())
            core.keepLargest(kept)
            return core
        }
        let core = try tasks.tensor.matrix(rows: share * tasks.count, columns: share * tasks.count)
        for row in 0..<core.rows {
            for column in row / share * share..<(row / share + 1) * share {
                core[row, column] = Self.elected(cores.lazy.map { $0[row, column] })
            }
        }
        return try basis.left.view().times(core.view()).view().times(basis.right.view())
    }

    /// Singular values of a task, which fall. Those that are 0 have no direction and stay 0.
    private func smoothed(_ values: [Double]) -> [Double] {
        let known = values.count { $0 > 0 }, sum = values.reduce(0, +)
        guard known > 0, smoothing != .none else { return values }
        let ratio = smoothing == .linear ? min(rho, values[0] / values[known - 1]) : 1
        // From the ratio down to 1.
        let steps = (0..<known).map { known == 1 ? 1 : ratio + (1 - ratio) * Double($0) / Double(known - 1) }
        let total = steps.reduce(0, +)
        return steps.map { sum * ($0 / total) } + Array(repeating: 0, count: values.count - known)
    }

    /// The mean of the values that have the sign of the sum; 0 where that is 0.
    private static func elected(_ values: some Sequence<Double>) -> Double {
        let sum = values.reduce(0, +), agreeing = values.filter { $0 * sum > 0 }
        return agreeing.isEmpty ? 0 : agreeing.reduce(0, +) / Double(agreeing.count)
    }
}

extension Matrix {
    /// Sets entries to 0 whose magnitude is below the `count`-th largest.
    fileprivate func keepLargest(_ count: Int) {
        guard count < elements.count else { return }
        let least = elements.map(\.magnitude).sorted(by: >)[count - 1]
        for element in elements.indices where elements[element].magnitude < least { elements[element] = 0 }
    }
}
