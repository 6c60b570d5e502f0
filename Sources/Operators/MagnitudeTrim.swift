package import TensorKernels

/// The entries of each task vector that a trim by magnitude keeps.
///
/// Exact: of the entries equal to a threshold, those with the lowest flat indices are kept, so that exactly the requested number
/// remains.
package struct MagnitudeTrim: Sparsifier {
    private enum Rule: Sendable {
        case keepAll
        case keepNone
        case keep(from: MagnitudeEdge, to: MagnitudeEdge)
    }

    /// What to keep of one task vector: the `kept` largest entries after the `outliers` largest.
    package struct Share: Sendable, Hashable {
        package var kept: Int
        package var outliers: Int

        package init(kept: Int, outliers: Int = 0) {
            self.kept = kept
            self.outliers = outliers
        }
    }

    private let rules: [Rule]

    /// Memory for the thresholds of all models.
    package static func memory(models: Int, queries: Int = 1, count: Int) -> MemoryNeed {
        OrderStatistics.memory(queries: models * queries, count: count)
    }

    /// Trims task vectors.
    package init(_ shares: [Share], of models: [Int], in tensor: TensorPasses) throws {
        try self.init(shares, in: tensor) { tile, index in UnsafePointer(try tile.taskVector(models[index])) }
    }

    /// Takes the passes of `OrderStatistics.find`, and reads one span more for each threshold that cuts through equal entries.
    ///
    /// - Parameter entries: what the magnitudes of each share are taken of.
    init(_ shares: [Share], in tensor: TensorPasses, entries: @escaping OrderStatistics.Entries) throws {
        let total = tensor.count
        var rules: [Rule] = []
        var queries: [OrderStatistics.Query] = []
        for (index, share) in shares.enumerated() {
            if share.kept >= total {
                rules.append(.keepAll)
            } else {
                rules.append(.keepNone)
                guard share.kept > 0 else { continue }
                if share.outliers > 0 { queries.append(.init(stream: index, rank: share.outliers + 1)) }
                queries.append(.init(stream: index, rank: share.outliers + share.kept))
            }
        }
        var found = try OrderStatistics.find(queries, in: tensor, entries)[...]

        var cuts: [OrderStatistics.EqualEntries] = []
        var edges: [(rule: Int, isLower: Bool, cut: Int?, pattern: UInt32)] = []
        func edge(_ rule: Int, isLower: Bool, _ found: OrderStatistics.Found, keeping kept: Int) {
            let isCut = kept < found.equal
            edges.append((rule, isLower, isCut ? cuts.count : nil, found.pattern))
            if isCut { cuts.append(.init(stream: rule, to: found, kept: kept)) }
        }
        for (index, share) in shares.enumerated() where share.kept > 0 && share.kept < total {
            let upper = share.outliers > 0 ? found.popFirst() : nil
            guard let lower = found.popFirst() else { continue }
            if let upper, upper.pattern == lower.pattern {
                edge(index, isLower: false, upper, keeping: share.kept)
                edge(index, isLower: true, lower, keeping: share.kept)
            } else {
                if let upper { edge(index, isLower: false, upper, keeping: upper.above + upper.equal - share.outliers) }
                edge(index, isLower: true, lower, keeping: share.outliers + share.kept - lower.above)
            }
        }
        let limits = try cuts.map { try OrderStatistics.limit(of: $0, in: tensor, entries) }
        var upper = MagnitudeEdge(pattern: .largestMagnitude, limit: total)
        for edge in edges {
            let found = MagnitudeEdge(pattern: edge.pattern, limit: edge.cut.map { limits[$0] } ?? total)
            if edge.isLower {
                rules[edge.rule] = .keep(from: found, to: upper)
                upper = MagnitudeEdge(pattern: .largestMagnitude, limit: total)
            } else {
                upper = found
            }
        }
        self.rules = rules
    }

    /// Sets the entries of the tile that the `index`-th share does not keep to 0.
    ///
    /// - Parameter scores: what was ranked; may be the entries themselves.
    package func keep(
        _ index: Int, of entries: UnsafeMutablePointer<Float>, scores: UnsafePointer<Float>, in tile: Tile
    ) {
        var start = tile.range.lowerBound
        while start < tile.range.upperBound {
            let (band, limit) = band(index, from: start), end = min(limit, tile.range.upperBound)
            for place in start - tile.range.lowerBound..<end - tile.range.lowerBound {
                let pattern = scores[place].magnitude.bitPattern
                entries[place] = pattern >= band.from && pattern <= band.to ? entries[place] : 0
            }
            start = end
        }
    }

    package func band(_ index: Int, from start: Int) -> (MagnitudeBand, end: Int) {
        switch rules[index] {
        case .keepAll: return (.all, .max)
        case .keepNone: return (.none, .max)
        case .keep(let lower, let upper):
            // Between the edges' limits, whether entries equal to an edge stay does not change.
            let from = Int(lower.pattern) + (start < lower.limit ? 0 : 1)
            let to = Int(upper.pattern) - (start < upper.limit ? 0 : 1)
            let band = from <= to ? MagnitudeBand(from: UInt32(from), to: UInt32(to)) : .none
            return (band, [lower.limit, upper.limit].filter { $0 > start }.min() ?? .max)
        }
    }
}
