import Foundation

/// Methods on vectors, from their definitions: vectors are built and turned, where the operators work with dot products.
extension Reference {
    static func dot(_ x: [Double], _ y: [Double]) -> Double { zip(x, y).reduce(0) { $0 + $1.0 * $1.1 } }
    static func norm(_ x: [Double]) -> Double { dot(x, x).squareRoot() }
    static func difference(_ x: [Double], _ y: [Double]) -> [Double] { zip(x, y).map { Double(Float($0) - Float($1)) } }
    private static func sum(_ vectors: [[Double]], _ factors: [Double]) -> [Double] {
        vectors[0].indices.map { index in zip(vectors, factors).reduce(0) { $0 + $1.0[index] * $1.1 } }
    }
    private static func over(_ x: [Double], _ divisor: Double) -> [Double] { x.map { $0 / divisor } }
    private static func cosine(_ value: Double) -> Double { min(1, max(-1, value)) }

    static func slerp(_ a: [Double], _ b: [Double], t: Double) -> [Double] {
        let na = norm(a) <= 1e-8 ? 1 : norm(a), nb = norm(b) <= 1e-8 ? 1 : norm(b)
        let c = cosine(dot(over(a, na), over(b, nb)))
        if abs(c) > 0.9995 { return sum([a, b], [1 - t, t]) }
        let angle = acos(c)
        return sum([a, b], [sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)])
    }

    /// The vectors of a tensor by the flat indices of their elements.
    enum Cut: Sendable { case flat, last, first }

    static func vectors(_ shape: [Int], _ cut: Cut) -> [[Int]] {
        let count = shape.reduce(1, *)
        guard shape.count > 1, cut != .flat else { return [Array(0..<count)] }
        if cut == .last {
            let length = shape[shape.count - 1]
            return (0..<count / length).map { Array($0 * length..<($0 + 1) * length) }
        }
        let width = count / shape[0]
        return (0..<width).map { column in (0..<shape[0]).map { $0 * width + column } }
    }

    static func nuslerp(_ x: [[Double]], base: [Double]?, weights: [Double], shape: [Int], cut: Cut) -> [Double] {
        let t = abs(weights[0] + weights[1]) < 1e-6 ? 0.5 : weights[1] / (weights[0] + weights[1])
        let y = x.map { x in base.map { difference(x, $0) } ?? x }
        var result = y[0]
        for indices in vectors(shape, cut) {
            let a = indices.map { y[0][$0] }, b = indices.map { y[1][$0] }
            let c = cosine(dot(over(a, max(norm(a), 1e-7)), over(b, max(norm(b), 1e-7)))), angle = acos(c)
            let out =
                1 - c * c <= 1e-16
                ? sum([a, b], [1 - t, t])
                : sum([a, b], [sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)])
            for (index, value) in zip(indices, out) { result[index] = value + (base?[index] ?? 0) }
        }
        return result
    }

    static func multislerp(_ x: [[Double]], base: [Double]?, weights: [Double], normalize: Bool, eps: Double) -> [Double] {
        if x.count == 1 { return x[0] }
        let y = x.map { x in base.map { difference(x, $0) } ?? x }
        let w = normalize ? weights.map { $0 / weights.reduce(0, +) } : weights
        let units = y.map { over($0, norm($0) + eps) }
        let mean = sum(units, w), m = over(mean, norm(mean))
        let tangents = units.map { sum([$0, m], [1, -dot($0, m)]) }
        let tangent = sum(tangents, w), angle = norm(tangent) + eps
        let scale = zip(y, w).reduce(0) { $0 + norm($1.0) * $1.1 }
        return m.indices.map { (m[$0] * cos(angle) + tangent[$0] * sin(angle) / angle) * scale + (base?[$0] ?? 0) }
    }

    static func karcher(_ x: [[Double]], steps: Int, tolerance: Double) -> [Double] {
        let lengths = x.map(norm), used = x.indices.filter { lengths[$0] > tolerance }
        guard !used.isEmpty else { return x[0].map { _ in 0 } }
        let units = used.map { over(x[$0], lengths[$0]) }
        let shares = used.map { _ in 1 / Double(used.count) }
        var m = sum(units, shares)
        m = norm(m) < tolerance ? units[0] : over(m, norm(m))
        for _ in 0..<steps {
            var tangent = m.map { _ in 0.0 }
            for unit in units {
                let c = cosine(dot(m, unit)), angle = acos(c)
                if angle < tolerance { continue }
                for index in m.indices { tangent[index] += shares[0] * angle / sin(angle) * (unit[index] - c * m[index]) }
            }
            let length = norm(tangent)
            if length < tolerance { break }
            m = sum([m, tangent], [cos(length), sin(length) / length])
            m = over(m, norm(m))
        }
        return m.map { $0 * lengths.reduce(0, +) / Double(x.count) }
    }

    static func modelStock(base: [Double], _ x: [[Double]], shape: [Int], cut: Cut) -> [Double] {
        let n = Double(x.count)
        var result = base
        for indices in vectors(shape, cut) {
            let offsets = x.map { x in indices.map { Double(Float(x[$0]) - Float(base[$0])) } }
            var cosines: [Double] = []
            for i in x.indices {
                for j in x.indices where j > i {
                    cosines.append(
                        cosine(dot(offsets[i], offsets[j]) / max(norm(offsets[i]) * norm(offsets[j]), 1e-6)))
                }
            }
            let c = cosines.reduce(0, +) / Double(cosines.count), divisor = 1 + (n - 1) * c
            let t = abs(divisor) < 1e-6 ? 0 : n * c / divisor
            for index in indices { result[index] = t * x.reduce(0) { $0 + $1[index] } / n + (1 - t) * base[index] }
        }
        return result
    }
}
