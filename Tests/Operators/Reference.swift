/// The methods once more, in float64 and one element after the other, as the papers state them.
enum Reference {
    static func linear(_ models: [[Double]], weights: [Double], normalize: Bool) -> [Double] {
        models[0].indices.map { index in
            let sum = zip(models, weights).reduce(0) { $0 + $1.0[index] * $1.1 }
            return normalize ? sum / weights.reduce(0, +) : sum
        }
    }

    static func taskArithmetic(base: [Double], _ models: [[Double]], weights: [Double], lambda: Double, normalize: Bool)
        -> [Double]
    {
        base.indices.map { index in
            var sum = zip(models, weights).reduce(0) { $0 + ($1.0[index] - base[index]) * $1.1 }
            if normalize { sum /= weights.reduce(0, +) }
            return base[index] + lambda * sum
        }
    }

    static func ties(
        base: [Double], _ models: [[Double]], weights: [Double], densities: [Double], lambda: Double, normalize: Bool,
        rescale: Bool
    ) -> [Double] {
        // The trim ranks float32 differences, as the operator does; everything after it is float64.
        let trimmed = zip(models, densities).map { model, density -> [Double] in
            let deltas = zip(model, base).map { Double(Float($0) - Float($1)) }
            let count = deltas.count
            let kept = density >= 1 ? count : density <= 0 ? 0 : max(1, Int(density * Double(count)))
            let order = deltas.indices.sorted { (-deltas[$0].magnitude, $0) < (-deltas[$1].magnitude, $1) }
            var result = [Double](repeating: 0, count: count)
            for index in order.prefix(kept) { result[index] = deltas[index] }
            guard rescale else { return result }
            let before = deltas.reduce(0) { $0 + $1.magnitude }, after = result.reduce(0) { $0 + $1.magnitude }
            return before < 1e-7 || after < 1e-7 ? result : result.map { $0 * before / after }
        }
        return base.indices.map { index in
            let entries = zip(trimmed, weights).map { $0[index] * $1 }
            let isPlus = entries.reduce(0, +) >= 0
            var sum = 0.0, weight = 0.0
            for (entry, own) in zip(entries, weights) where entry != 0 && (entry > 0) == isPlus {
                sum += entry
                weight += own
            }
            if normalize, weight != 0 { sum /= weight }
            return base[index] + lambda * sum
        }
    }
}
