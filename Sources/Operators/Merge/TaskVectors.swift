import Checkpoints
import TensorKernels

/// Drops entries of task vectors.
protocol Sparsifier: Sendable {
    /// Zeroes what is dropped from the grain of the `index`-th model's task vector. The same entries each time it is asked.
    func sparsify(_ index: Int, _ entries: UnsafeMutablePointer<Float>, of grain: Grain) throws

    /// For one that keeps a range of magnitudes: the range that holds from flat index `start` on, and up to where it does; else `nil`.
    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int)?
}

extension Sparsifier {
    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int)? { nil }
}

/// Drops nothing.
struct KeepAll: Sparsifier {
    func sparsify(_ index: Int, _ entries: UnsafeMutablePointer<Float>, of grain: Grain) {}
    func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int)? { (.all, .max) }
}

/// The parameters and the last steps that all methods on task vectors share.
///
/// With `dᵢ = xᵢ − b` after the method's own sparsifying, `eᵢ = wᵢdᵢ`, and `M` their combination, the result is `b + λ·M`:
/// - by sum (task arithmetic, arXiv 2212.04089): `M = Σ eᵢ`, divided by `Σ wᵢ` when `normalize` is set and that is not about zero;
/// - by consensus (TIES, arXiv 2306.01708): the elected sign is that of `Σ eᵢ`, zero counting as plus; `M = Σ eᵢ` over the
///   models whose entry has it, divided by their `Σ wᵢ` when `normalize` is set.
///
/// With `rescale`, `dᵢ` is multiplied by `Σ|d| / Σ|kept d|` over the tensor.
struct TaskVectors: Sendable {
    enum Combination: Sendable {
        case sum, consensus
    }

    let base: Int
    let models: [Int]
    let weights: [Float]
    let densities: [Double]
    private let normalize: Bool
    let rescale: Bool
    private let lambda: Float

    static func parameters(normalize: Bool, rescale: Bool) -> [Parameter] {
        [
            .required("weight", .perModel, "Scales this model's task vector."),
            .number("density", .perModel, default: 1, in: 0...1, "Share of the task vector's entries that are kept."),
            .flag("normalize", default: normalize, "Divide by the sum of the weights that take part."),
            .flag("rescale", default: rescale, "Scale what is kept so that the sum of magnitudes stays as it was."),
            .number("lambda", .shared, default: 1, "Scales the merged task vector."),
            .flag("int8_mask", default: false, "Accepted for mergekit's sake; it never had an effect on the result."),
        ]
    }

    init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError) {
        base = try inputs.requiredBase()
        models = inputs.models
        weights = try models.map { (model) throws(TesseraError) in Float(try values.number("weight", ofInput: model)) }
        densities = try models.map { (model) throws(TesseraError) in try values.number("density", ofInput: model) }
        normalize = try values.flag("normalize")
        rescale = try values.flag("rescale")
        lambda = Float(try values.number("lambda"))
    }

    /// Whether anything is dropped at all.
    var isSparse: Bool { densities.contains { $0 < 1 } }

    /// Reads of `merge`, the sparsifier's own passes not counted.
    var reads: Int { isSparse && rescale ? 2 : 1 }

    func merge(_ tensor: TensorPasses, _ sparsifier: any Sparsifier = KeepAll(), by combination: Combination) throws {
        let factors = isSparse && rescale ? try rescalingFactors(sparsifier, in: tensor) : nil
        let total = weights.reduce(0, +)
        let divisor: Float? = normalize && abs(total) >= 1e-8 ? total : nil
        let isBand = models.indices.allSatisfy { sparsifier.band($0, from: 0) != nil }
        if isBand, models.count <= Kernels.TrimmedMerge.modelLimit {
            return try tensor.emit { grain, out in
                let merge = Kernels.TrimmedMerge(
                    try models.map { try grain.stored($0) }, base: try grain.stored(base), weights: weights,
                    factors: factors ?? Array(repeating: 1, count: models.count), isConsensus: combination == .consensus,
                    normalize: normalize, divisor: divisor ?? 1, lambda: lambda)
                apply(merge, sparsifier, to: grain, into: out)
            }
        }
        try tensor.emit { grain, out in
            var entries: [UnsafePointer<Float>] = []
            if combination == .sum { out.update(repeating: 0, count: grain.count) }
            for (index, model) in models.enumerated() {
                let entry = try grain.taskVector(model)
                try sparsifier.sparsify(index, entry, of: grain)
                if let factors, factors[index] != 1 {
                    grain.kernels.scale(entry, by: factors[index], into: entry, count: grain.count)
                }
                switch combination {
                case .sum: grain.kernels.axpy(weights[index], entry, into: out, count: grain.count)
                case .consensus:
                    grain.kernels.scale(entry, by: weights[index], into: entry, count: grain.count)
                    entries.append(UnsafePointer(entry))
                }
            }
            switch combination {
            case .sum: if let divisor { grain.kernels.divide(out, by: divisor, count: grain.count) }
            case .consensus:
                grain.kernels.signConsensus(entries, weights: weights, normalize: normalize, into: out, count: grain.count)
            }
            if lambda != 1 { grain.kernels.scale(out, by: lambda, into: out, count: grain.count) }
            try grain.kernels.add(grain.source(base), to: out, count: grain.count)
        }
    }

    /// Stretch by stretch, within each of which the same magnitudes of every model stay.
    private func apply(
        _ merge: Kernels.TrimmedMerge, _ sparsifier: any Sparsifier, to grain: Grain, into out: UnsafeMutablePointer<Float>
    ) {
        var start = grain.range.lowerBound
        while start < grain.range.upperBound {
            let bands = models.indices.map { sparsifier.band($0, from: start) ?? (.all, .max) }
            let end = bands.reduce(grain.range.upperBound) { min($0, $1.end) }
            merge.apply(
                start - grain.range.lowerBound..<end - grain.range.lowerBound, bands: bands.map(\.0), into: out,
                kernels: grain.kernels)
            start = end
        }
    }

    /// `Σ|d| / Σ|kept d|` for each model; 1 where either sum is too small to divide by.
    private func rescalingFactors(_ sparsifier: any Sparsifier, in tensor: TensorPasses) throws -> [Float] {
        let sums = try tensor.sums(2 * models.count) { grain, sums in
            for (index, model) in models.enumerated() where densities[index] < 1 {
                let entries = try grain.taskVector(model)
                sums[2 * index] += grain.kernels.sumOfMagnitudes(entries, count: grain.count)
                try sparsifier.sparsify(index, entries, of: grain)
                sums[2 * index + 1] += grain.kernels.sumOfMagnitudes(entries, count: grain.count)
            }
        }
        let least = 1e-7
        return models.indices.map { index in
            let all = sums[2 * index], kept = sums[2 * index + 1]
            return all < least || kept < least ? 1 : Float(all / kept)
        }
    }
}
