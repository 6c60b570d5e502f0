internal import CTensorKernels

/// An exact order statistic of float32 magnitudes in two rounds of counting, without sorting.
///
/// The magnitudes of IEEE floats order like their bit patterns. The first round counts the high 15 of their 31 bits, which tells
/// the bin of the element in question; the second counts the low 16 bits inside that bin. Counts add up in any order.
package struct MagnitudeHistogram: Sendable, Hashable {
    private var bins: [UInt32]
    /// The high bits whose elements are counted by their low bits; `nil` in the first round.
    private let high: UInt32?

    private static let coarseBins = Int(TK_HIGH_BINS), coarseTables = Int(TK_HIGH_TABLES)

    private init(bins: Int, high: UInt32?) {
        self.bins = Array(repeating: 0, count: bins)
        self.high = high
    }

    /// The first round.
    package static func coarse() -> MagnitudeHistogram { MagnitudeHistogram(bins: coarseTables * coarseBins, high: nil) }

    /// The second round, for the bin that the first one found.
    package static func fine(inBin high: UInt32) -> MagnitudeHistogram { MagnitudeHistogram(bins: Int(TK_LOW_BINS), high: high) }

    /// Bytes of both rounds' bins.
    package static let byteCount = (coarseTables * coarseBins + Int(TK_LOW_BINS)) * MemoryLayout<UInt32>.stride

    /// Elements that one histogram can count without overflow; whoever ranks a larger tensor refuses it.
    package static let countLimit = Int(UInt32.max)

    package mutating func add(_ x: UnsafePointer<Float>, count: Int, kernels: Kernels) {
        if let high {
            kernels.histogramLow(x, high: high, &bins, count: count)
        } else {
            kernels.histogramHigh(x, &bins, count: count)
        }
    }

    package mutating func add(_ other: MagnitudeHistogram) {
        for index in bins.indices { bins[index] += other.bins[index] }
    }

    /// The bins that counted something, from the lowest.
    package var occupied: [(bin: UInt32, count: Int)] {
        totals.enumerated().compactMap { $1 > 0 ? (UInt32($0), Int($1)) : nil }
    }

    /// The bins, with the first round's tables added up.
    private var totals: [UInt32] {
        guard high == nil else { return bins }
        var totals = Array(bins[..<Self.coarseBins])
        for table in 1..<Self.coarseTables {
            let first = table * Self.coarseBins
            for bin in 0..<Self.coarseBins { totals[bin] &+= bins[first + bin] }
        }
        return totals
    }

    /// Where the `rank`-th largest counted element lies (from 1).
    package struct Place: Sendable, Hashable {
        package let bin: UInt32
        /// Counted elements in larger bins.
        package let above: Int
        /// Counted elements in the bin itself.
        package let inside: Int
    }

    /// The bin of the `rank`-th largest counted element, or `nil` when fewer were counted.
    package func place(ofLargest rank: Int) -> Place? {
        var above = 0
        let totals = totals
        for bin in totals.indices.reversed() {
            let inside = Int(totals[bin])
            if above + inside >= rank, inside > 0 { return Place(bin: UInt32(bin), above: above, inside: inside) }
            above += inside
        }
        return nil
    }
}
