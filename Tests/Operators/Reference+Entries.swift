import Foundation

/// Methods that decide entry by entry.
extension Reference {
    static func nearswap(_ a: [Double], _ b: [Double], t: Double) -> [Double] {
        zip(a, b).map { a, b in
            let w = min(1, max(0, t / max(abs(a - b), 1e-6)))
            return w * b + (1 - w) * a
        }
    }

    /// The entries that breadcrumbs keeps; of equal ones the first stay, at both ends.
    static func breadcrumbs(_ deltas: [Double], density: Double, gamma: Double) -> [Double] {
        let n = deltas.count
        if density >= 1 { return deltas }
        let keep = Int(density * Double(n)), top = Int(gamma * Double(n)), bottom = max(0, n - keep - top)
        let ascending = deltas.indices.sorted { (deltas[$0].magnitude, $0) < (deltas[$1].magnitude, $1) }
        let small = ascending.prefix(bottom + keep).sorted { (-deltas[$0].magnitude, $0) < (-deltas[$1].magnitude, $1) }
        var result = [Double](repeating: 0, count: n)
        for index in small.prefix(keep) { result[index] = deltas[index] }
        return result
    }

    /// What the methods on task vectors do with sparse ones.
    static func combine(
        base: [Double], before: [[Double]], _ sparse: [[Double]], weights: [Double], normalize: Bool, rescale: Bool,
        consensus: Bool, lambda: Double = 1
    ) -> [Double] {
        let scaled = zip(before, sparse).map { before, after -> [Double] in
            let all = before.reduce(0) { $0 + abs($1) }, kept = after.reduce(0) { $0 + abs($1) }
            return !rescale || all < 1e-7 || kept < 1e-7 ? after : after.map { $0 * all / kept }
        }
        return base.indices.map { index in
            let entries = zip(scaled, weights).map { $0[index] * $1 }
            let isPlus = entries.reduce(0, +) >= 0
            var sum = 0.0, weight = 0.0
            for (entry, own) in zip(entries, weights) where !consensus || entry != 0 && (entry > 0) == isPlus {
                sum += entry
                weight += own
            }
            if normalize, abs(weight) >= (consensus ? .leastNonzeroMagnitude : 1e-8) { sum /= weight }
            return base[index] + lambda * sum
        }
    }

    static func sce(base: [Double], _ models: [[Double]], share: Double) -> [Double] {
        var deltas = models.map { difference($0, base) }
        let n = Float(models.count)
        if share < 1 {
            // In float32, as the operator ranks; everything after it is float64.
            let variances = base.indices.map { index -> Float in
                let column = deltas.map { Float($0[index]) }
                let mean = column.reduce(0, +) / n
                return column.reduce(Float(0)) { $0 + ($1 - mean) * ($1 - mean) } / n
            }
            let kept = Int(Float(variances.count { $0 != 0 }) * Float(share))
            let order = variances.indices.sorted { (-variances[$0], $0) < (-variances[$1], $1) }
            for index in order.dropFirst(kept) {
                for model in deltas.indices { deltas[model][index] = 0 }
            }
            if kept == 0 { return base }
        }
        let squares = deltas.map { dot($0, $0) / Double(base.count) }, total = squares.reduce(0, +)
        let weights = squares.map { abs(total) < 1e-6 ? 1 / Double(models.count) : $0 / total }
        return base.indices.map { index in
            let isPlus = deltas.reduce(0) { $0 + $1[index] } >= 0
            var sum = 0.0, weight = 0.0
            for (delta, own) in zip(deltas, weights) where delta[index] != 0 && (delta[index] > 0) == isPlus {
                sum += own * delta[index]
                weight += own
            }
            return base[index] + sum / max(weight, 1e-6)
        }
    }

    /// `ram`; with `growth` and `largest`, `ramplus_tl`.
    static func ram(base: [Double], _ models: [[Double]], epsilon: Double, growth: Double = 0, largest: Double = 0) -> [Double] {
        let deltas = models.map { difference($0, base) }
        let counts = base.indices.map { index in deltas.count { abs($0[index]) > epsilon } }
        let scales = deltas.map { delta -> Double in
            let changed = delta.indices.filter { abs(delta[$0]) > epsilon }
            let alone = Double(changed.count { counts[$0] == 1 }), shared = Double(changed.count { counts[$0] > 1 })
            return 1 + growth * min(largest, max(0, shared / max(alone, epsilon)))
        }
        return base.indices.map { index in
            var result = base[index]
            for (delta, scale) in zip(deltas, scales) where abs(delta[index]) > epsilon {
                result += counts[index] == 1 ? scale * delta[index] : delta[index] / Double(counts[index])
            }
            return result
        }
    }

    static func arceeFusion(base: [Double], _ model: [Double], shape: [Int]) -> [Double] {
        let rows = shape.count > 1 ? vectors(shape, .last) : [Array(base.indices)]
        var importance = [Float](repeating: 0, count: base.count)
        for row in rows {
            func softmax(_ x: [Double]) -> [Double] {
                let values = row.map { x[$0] }, top = values.max() ?? 0
                let powers = values.map { exp($0 - top) }, sum = powers.reduce(0, +)
                return powers.map { $0 / sum + 1e-8 }
            }
            let divergence = zip(softmax(model), softmax(base)).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) }
            for index in row { importance[index] = abs(Float(model[index]) - Float(base[index])) * Float(max(0, divergence)) }
        }
        let sorted = importance.sorted()
        let quartiles = [0.25, 0.5, 0.75].map { sorted[Int($0 * Double(sorted.count - 1))] }
        let threshold = quartiles[1] + 1.5 * (quartiles[2] - quartiles[0])
        return base.indices.map { importance[$0] >= threshold ? model[$0] : base[$0] }
    }
}
