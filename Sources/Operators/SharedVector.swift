import TensorKernels

/// One vector that stands for the task vectors of all tasks, and the entries of it that a task keeps.
///
/// TALL-masks (arXiv 2405.07813): the vector is `τ = Σ τₜ`; task `t` keeps the entries with `|τₜ| > λₜ · |τ − τₜ|`.
/// EMR (arXiv 2405.17461): the vector has at each entry the sign of `Σ τₜ` (minus for zero) and the largest magnitude of the `τₜ`
/// that agree with it; task `t` keeps the entries where its own sign agrees.
package struct SharedVector: Sendable {
    package enum Rule: Sendable, Hashable {
        case tall, emr
    }

    private let rule: Rule
    /// The sources that are tasks.
    private let models: [Int]

    package init(_ rule: Rule, of models: [Int]) {
        self.rule = rule
        self.models = models
    }

    /// The vector in the current tile, in `tile.scratch(0)`. Overwrites `tile.scratch(1)`.
    package func vector(in tile: Tile) throws -> UnsafeMutablePointer<Float> {
        let sum = tile.scratch(0), kernels = tile.kernels
        sum.update(repeating: 0, count: tile.count)
        for model in models { kernels.add(try tile.taskVector(model), to: sum, count: tile.count) }
        guard rule == .emr else { return sum }
        let unified = tile.scratch(1)
        unified.update(repeating: 0, count: tile.count)
        for model in models {
            let own = try tile.taskVector(model)
            for index in 0..<tile.count {
                let isPlus = sum[index] > 0
                if isPlus ? own[index] > unified[index] : own[index] < unified[index] { unified[index] = own[index] }
            }
        }
        sum.update(from: unified, count: tile.count)
        return sum
    }

    /// Sets the bits of the entries that a task keeps. Overwrites `tile.scratch(1)`.
    ///
    /// - Parameters:
    ///   - own: the task's vector.
    ///   - shared: as `vector(in:)` returned it.
    ///   - lambda: `λₜ` of TALL-masks.
    package func mark(
        _ own: UnsafePointer<Float>, of shared: UnsafePointer<Float>, lambda: Double, into mask: UnsafeMutableRawPointer,
        in tile: Tile
    ) {
        switch rule {
        case .tall:
            let others = tile.scratch(1)
            tile.kernels.subtract(shared, own, into: others, count: tile.count)
            tile.kernels.bits(of: own, above: Float(lambda), times: others, into: mask, count: tile.count)
        case .emr: tile.kernels.bits(of: own, agreeingWith: shared, into: mask, count: tile.count)
        }
    }

    /// Sets the entries of `shared` that a task does not keep to 0. Overwrites `tile.scratch(1)`.
    func keep(_ task: Int, of shared: UnsafeMutablePointer<Float>, lambda: Double = 0, in tile: Tile) throws {
        let own = try tile.taskVector(models[task])
        withUnsafeTemporaryAllocation(byteCount: (tile.count + 7) / 8, alignment: 8) { buffer in
            guard let mask = buffer.baseAddress else { return }
            mark(own, of: shared, lambda: lambda, into: mask, in: tile)
            tile.kernels.apply(mask, first: 0, to: shared, count: tile.count)
        }
    }
}
