import TensorKernels

/// A sample of a stream's magnitudes, or all of them if they are few, from which an order statistic is estimated.
struct MagnitudeSample {
    /// Bit patterns, segment by segment.
    private let patterns: [UInt32]
    /// The length of the stream.
    private let count: Int

    /// Consecutive elements that are read together. Neighbours are often alike, so many short segments tell more than a few long
    /// ones.
    private static let segment = 64
    /// One of how many elements is taken, and the least and largest sample.
    private static let rarity = 256, leastSize = 1 << 14, largestSize = 1 << 22
    /// The distance of a window's ends from the estimate, in standard errors and in elements of the sample.
    private static let deviations = 4.0, elements = 4.0

    /// The number of elements taken of a stream of `count`.
    static func size(of count: Int) -> Int { min(count, max(leastSize, min(largestSize, count / rarity))) }

    init(of stream: Int, in tensor: TensorPasses, _ entries: OrderStatistics.Entries) throws {
        let count = tensor.count
        self.count = count
        patterns = try tensor.tiles.with { tile in
            var patterns: [UInt32] = []
            patterns.reserveCapacity(Self.size(of: count))
            for range in Self.ranges(of: count) {
                tile.take(range)
                let values = UnsafeBufferPointer(start: try entries(tile, stream), count: range.count)
                patterns.append(contentsOf: values.lazy.map(\.magnitude.bitPattern))
            }
            return patterns
        }
    }

    /// The elements that are read. No range crosses the end of a tile.
    private static func ranges(of count: Int) -> [Range<Int>] {
        guard size(of: count) < count else {
            return stride(from: 0, to: count, by: FixedTree.tileElements).map { $0..<min(count, $0 + FixedTree.tileElements) }
        }
        let taken = size(of: count) / segment, all = count / segment
        return (0..<taken).map { index in
            // At a random place within its share of the stream, lest the sample be a column of the matrix.
            let offset = Int((UInt64(index) &* 0x9e37_79b9_7f4a_7c15) >> 33) % (all / taken)
            let start = (index * all / taken + offset) * segment
            return start..<start + segment
        }
    }

    /// The range of magnitudes, as bit patterns, in which the element of a rank will probably lie.
    ///
    /// - Parameter limit: the largest number of elements that may lie in between; the window is narrowed if there would probably
    ///   be more.
    func window(around rank: OrderStatistics.Rank, noting limit: Int) -> ClosedRange<UInt32> {
        let size = Double(patterns.count), scale = size / Double(max(1, count))
        let position =
            switch rank {
            case .number(let number): Double(number) * scale
            case .share: Double(rank.number(of: patterns.count, zeros: patterns.count { $0 == 0 }))
            }
        let guess = element(position)
        guard patterns.count < count else { return guess...guess }
        let variance = max(position * (1 - position / size), spread(around: guess, rank))
        let margin = min(Self.deviations * variance.squareRoot() + Self.elements, 0.4 * Double(limit) * scale)
        // If many elements are equal, both ends are often the estimate itself.
        let above = Double(patterns.count { $0 > guess }), equal = Double(patterns.count { $0 == guess })
        func end(_ position: Double, beyond limit: UInt32) -> UInt32 {
            if position > above, position <= above + equal { return guess }
            return position < 1 || position > size ? limit : element(position)
        }
        return end(position + margin, beyond: 0)...end(position - margin, beyond: .largestMagnitude)
    }

    /// The element of the sample at a position, the largest at 1; the nearest where there is none.
    private func element(_ position: Double) -> UInt32 {
        let rank = max(1, min(patterns.count, Int(position.rounded())))
        return [patterns].largest(rank, in: 0 ... .largestMagnitude) ?? 0
    }

    /// The variance of how many elements of the sample lie above a magnitude, by how much segments differ. For a share, of how
    /// many more than that share of those that are not zero.
    private func spread(around pattern: UInt32, _ rank: OrderStatistics.Rank) -> Double {
        let share = if case .share(let share) = rank { Double(share) } else { 0.0 }
        var sum = 0.0, squares = 0.0
        for start in stride(from: 0, to: patterns.count, by: Self.segment) {
            let own = patterns[start..<start + Self.segment]
            let above = own.count { $0 > pattern }, nonzero = share == 0 ? 0 : own.count { $0 != 0 }
            let excess = Double(above) - share * Double(nonzero)
            sum += excess
            squares += excess * excess
        }
        return squares - sum * sum / Double(patterns.count / Self.segment)
    }
}

extension UInt32 {
    /// No magnitude has a larger pattern.
    static let largestMagnitude: UInt32 = 0x7fff_ffff
}
