import Foundation

extension Reference {
    /// Differences as float32 holds them, which is what is ranked.
    private static func vectors(_ base: [Double], _ models: [[Double]]) -> [[Double]] {
        models.map { zip($0, base).map { Double(Float($0) - Float($1)) } }
    }

    /// TIES (arXiv 2306.01708) as released, on one flat vector: what is equal to the threshold stays, and zero sums take the
    /// sign of the sum of all signs.
    static func modelTies(
        base: [Double], _ models: [[Double]], weights: [Double], densities: [Double], lambda: Double, normalize: Bool,
        rescale: Bool
    ) -> [Double] {
        let count = base.count
        let trimmed = zip(vectors(base, models), densities).map { vector, density -> [Double] in
            if density >= 1 { return vector }
            if density <= 0 { return vector.map { _ in 0 } }
            let threshold = vector.map(\.magnitude).sorted()[count - Int(density * Double(count)) - 1]
            let kept = vector.map { $0.magnitude >= threshold ? $0 : 0 }
            guard rescale else { return kept }
            let factor = vector.reduce(0) { $0 + $1.magnitude } / kept.reduce(0) { $0 + $1.magnitude }
            return kept.map { $0 * factor }
        }
        let entries = zip(trimmed, weights).map { vector, weight in vector.map { $0 * weight } }
        let signs = base.indices.map { index in
            let sum = entries.reduce(0) { $0 + $1[index] }
            return sum > 0 ? 1 : sum < 0 ? -1 : 0
        }
        let most = signs.reduce(0, +) < 0 ? -1 : 1
        return base.indices.map { index in
            let sign = Double(signs[index] == 0 ? most : signs[index])
            let agreeing = entries.indices.filter { entries[$0][index] * sign > 0 }
            let sum = agreeing.reduce(0) { $0 + entries[$1][index] }, weight = agreeing.reduce(0) { $0 + weights[$1] }
            return base[index] + lambda * (normalize && weight != 0 ? sum / weight : sum)
        }
    }

    /// PCB-Merging (arXiv 2410.02396) as released, on one flat vector.
    static func competitionBalancing(base: [Double], _ models: [[Double]], density: Double, lambda: Double) -> [Double] {
        let vectors = vectors(base, models), count = base.count, tasks = Double(models.count)
        func scaled(_ values: [Double]) -> [Double] {
            let low = values.min() ?? 0, high = values.max() ?? 0
            return values.map { high > low ? ($0 - low) / (high - low) : 0 }
        }
        var clamped: [[Double]] = [], weights: [[Double]] = []
        for vector in vectors {
            let order = vector.map(\.magnitude).sorted()
            let low = order[Int(Double(count) * 0.0001)], high = order[max(0, Int(Double(count) * (1 - 0.0001) - 1))]
            let magnitudes = vector.map { max(low, min(high, $0.magnitude)) }
            let parts = scaled(magnitudes)
            let scores = vector.indices.map { index in
                Foundation.exp(tasks * parts[index] * parts[index])
                    * Foundation.tanh(vector[index] * vectors.reduce(0) { $0 + $1[index] })
            }
            let least = scores.sorted()[min(count - 1, Int(Double(count) * (1 - density)))]
            weights.append(scaled(scores.map { max(least, $0) }))
            clamped.append(zip(vector, magnitudes).map { $0 < 0 ? -$1 : $1 })
        }
        return base.indices.map { index in
            let total = weights.reduce(0) { $0 + $1[index] }
            let sum = zip(weights, clamped).reduce(0) { $0 + $1.0[index] * $1.1[index] }
            return base[index] + lambda * sum / max(total, 1e-12)
        }
    }
}
