import Checkpoints
import TensorKernels

/// Which entries of each task vector a trim by magnitude keeps.
///
/// Exact: of the entries that are equal to the threshold, those with the lowest flat index stay, so that as many remain as were asked for.
struct MagnitudeTrim: Sendable {
    private enum Rule: Sendable {
        case keepAll
        case keepNone
        /// Keeps magnitudes above `pattern`, and those equal to it at indices below `equalLimit`.
        case threshold(pattern: UInt32, equalLimit: Int)
    }

    private let models: [Int]
    private let rules: [Rule]

    /// Bytes of statistics that each thread keeps.
    static func statisticsBytes(models: Int) -> Int { models * MagnitudeHistogram.byteCount }

    /// Keeps the `counts[i]` largest entries of the task vector of `models[i]`.
    ///
    /// Reads the sources twice, and once more when the threshold cuts through equal entries.
    static func largest(of models: [Int], keeping counts: [Int], in tensor: TensorPasses) throws -> MagnitudeTrim {
        guard tensor.count <= MagnitudeHistogram.countLimit else {
            throw TesseraError(
                .badData, "has \(tensor.count) elements, more than the \(MagnitudeHistogram.countLimit) that can be ranked")
        }
        var rules = counts.map { $0 >= tensor.count ? Rule.keepAll : .keepNone }
        let trimmed = counts.indices.filter { counts[$0] > 0 && counts[$0] < tensor.count }
        guard !trimmed.isEmpty else { return MagnitudeTrim(models: models, rules: rules) }

        let coarse = try places(of: trimmed.map { models[$0] }, ranks: trimmed.map { counts[$0] }, in: tensor) { _ in .coarse() }
        let fine = try places(
            of: trimmed.map { models[$0] }, ranks: zip(trimmed, coarse).map { counts[$0] - $1.above }, in: tensor
        ) { .fine(inBin: coarse[$0].bin) }

        var cut: [EqualEntries] = []
        for (position, index) in trimmed.enumerated() {
            let pattern = coarse[position].bin << 16 | fine[position].bin
            let kept = counts[index] - coarse[position].above - fine[position].above
            rules[index] = .threshold(pattern: pattern, equalLimit: tensor.count)
            if kept < fine[position].inside {
                cut.append(EqualEntries(index: index, model: models[index], pattern: pattern, kept: kept))
            }
        }
        for (equal, limit) in zip(cut, try EqualEntries.limits(of: cut, in: tensor)) {
            rules[equal.index] = .threshold(pattern: equal.pattern, equalLimit: limit)
        }
        return MagnitudeTrim(models: models, rules: rules)
    }

    /// One round of counting for all models together.
    private static func places(
        of models: [Int], ranks: [Int], in tensor: TensorPasses, histogram: (Int) -> MagnitudeHistogram
    ) throws -> [MagnitudeHistogram.Place] {
        let counted = try tensor.fold(models.indices.map(histogram)) { histograms, grain in
            for (index, model) in models.enumerated() {
                histograms[index].add(try grain.taskVector(model), count: grain.count, kernels: grain.kernels)
            }
        } combine: { total, part in
            for index in total.indices { total[index].add(part[index]) }
        }
        return try zip(counted, ranks).map { histogram, rank in
            guard let place = histogram.place(ofLargest: rank) else {
                throw TesseraError(
                    .badData, "changed while it was read", advice: "make sure that nobody writes the inputs during a merge")
            }
            return place
        }
    }

    /// Zeroes what the rule of `models[index]` drops from the grain of its task vector.
    func apply(_ index: Int, to entries: UnsafeMutablePointer<Float>, of grain: Grain) {
        switch rules[index] {
        case .keepAll: break
        case .keepNone: entries.update(repeating: 0, count: grain.count)
        case .threshold(let pattern, let equalLimit):
            let inclusive = min(grain.count, max(0, equalLimit - grain.range.lowerBound))
            grain.kernels.zeroBelow(pattern, entries, count: inclusive)
            grain.kernels.zeroBelow(pattern + 1, entries + inclusive, count: grain.count - inclusive)
        }
    }

    /// `Σ|d| / Σ|kept d|` for each model; 1 where either sum is too small to divide by (mergekit's `rescale`).
    func rescalingFactors(in tensor: TensorPasses) throws -> [Float] {
        let models = models
        let sums = try tensor.sums(2 * models.count) { grain, sums in
            for (index, model) in models.enumerated() {
                let entries = try grain.taskVector(model)
                sums[2 * index] += grain.kernels.sumOfMagnitudes(entries, count: grain.count)
                apply(index, to: entries, of: grain)
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

/// The entries of a task vector that are equal to its threshold, of which only some can stay.
private struct EqualEntries: Sendable {
    /// Which of the trim's rules.
    let index: Int
    let model: Int
    let pattern: UInt32
    /// How many stay.
    let kept: Int

    /// For each, the flat index below which exactly `kept` of the equal entries lie.
    static func limits(of cut: [EqualEntries], in tensor: TensorPasses) throws -> [Int] {
        guard !cut.isEmpty else { return [] }
        let counts = try tensor.counts(cut.count) { grain, counts in
            for (index, equal) in cut.enumerated() {
                counts[index] = grain.kernels.countEqual(
                    try grain.taskVector(equal.model), pattern: equal.pattern, count: grain.count)
            }
        }
        return try zip(cut, counts).map { equal, counts in
            var left = equal.kept
            for (index, count) in counts.enumerated() {
                if left < count { return try equal.limit(inGrain: index, keeping: left, in: tensor) }
                left -= count
            }
            return tensor.count
        }
    }

    private func limit(inGrain index: Int, keeping kept: Int, in tensor: TensorPasses) throws -> Int {
        try tensor.visit(grain: index) { grain in
            let entries = try grain.taskVector(model)
            var left = kept
            for position in 0..<grain.count where entries[position].magnitude.bitPattern == pattern {
                if left == 0 { return grain.range.lowerBound + position }
                left -= 1
            }
            return grain.range.upperBound
        }
    }
}
