import TensorKernels

/// Magnitudes from all over a stream, or all there are, by which it is guessed where an order statistic lies.
struct MagnitudeSample {
    /// As bit patterns, segment by segment.
    private let patterns: [UInt32]
    /// How many numbers the stream has.
    private let count: Int

    /// Neighbours that are read together. They are often of one kind, so that many short segments say more than few long ones.
    private static let segment = 64
    /// Of how many numbers one is taken, and how many are at least and at most.
    private static let rarity = 256, leastSize = 1 << 14, largestSize = 1 << 22
    /// How far from the guess the ends of a window lie: so many standard errors, and so many elements of the sample.
    private static let deviations = 4.0, elements = 4.0

    /// How many numbers are taken of a stream.
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

    /// What is read of a stream. No range lies in two tiles.
    private static func ranges(of count: Int) -> [Range<Int>] {
        guard size(of: count) < count else {
            return stride(from: 0, to: count, by: FixedTree.tileElements).map { $0..<min(count, $0 + FixedTree.tileElements) }
        }
        let taken = size(of: count) / segment, all = count / segment
        return (0..<taken).map { index in
            // Anywhere in its share of the stream, so that it is no column of a matrix that is looked at.
            let offset = Int((UInt64(index) &* 0x9e37_79b9_7f4a_7c15) >> 33) % (all / taken)
            let start = (index * all / taken + offset) * segment
            return start..<start + segment
        }
    }

    /// The magnitudes, as bit patterns, between which the element of a rank will lie.
    ///
    /// - Parameter limit: how many elements may lie between them. The window is made smaller where there would probably be more.
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
        // Where many are equal, both ends are often the guess itself.
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
