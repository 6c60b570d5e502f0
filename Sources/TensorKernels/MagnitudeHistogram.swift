internal import CTensorKernels

/// Finds an exact order statistic of float32 magnitudes in two rounds of counting, without sorting.
///
/// Magnitudes of IEEE floats are ordered like their bit patterns. The first round counts by the high 15 of their 31 bits, which
/// gives the bin of the wanted element; the second counts by the low 16 bits within that bin. Counts can be added in any order.
package struct MagnitudeHistogram: Sendable, Hashable {
    private var bins: [UInt32]
    /// In the second round, the bin whose elements are counted.
    private let high: UInt32?

    private static let coarseBins = Int(TK_HIGH_BINS), coarseTables = Int(TK_HIGH_TABLES)

    private init(bins: Int, high: UInt32?) {
        self.bins = Array(repeating: 0, count: bins)
        self.high = high
    }

    /// The first round.
    package static func coarse() -> MagnitudeHistogram { MagnitudeHistogram(bins: coarseTables * coarseBins, high: nil) }

    /// The second round, for a bin of the first.
    package static func fine(inBin high: UInt32) -> MagnitudeHistogram { MagnitudeHistogram(bins: Int(TK_LOW_BINS), high: high) }

    /// Bits of a magnitude, of which the first round counts the high ones and the second the low ones.
    package static let bitCount = 31, highBitCount = 15, lowBitCount = 16

    /// Bytes of both rounds' bins.
    package static let byteCount = (coarseTables * coarseBins + Int(TK_LOW_BINS)) * MemoryLayout<UInt32>.stride

    /// The largest number of elements that can be counted without overflow. Larger tensors are refused.
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

    /// The bins that are not empty, lowest first.
    package var occupied: [(bin: UInt32, count: Int)] {
        totals.enumerated().compactMap { $1 > 0 ? (UInt32($0), Int($1)) : nil }
    }

    /// The bins; in the first round, the sums of its tables.
    private var totals: [UInt32] {
        guard high == nil else { return bins }
        var totals = Array(bins[..<Self.coarseBins])
        for table in 1..<Self.coarseTables {
            let first = table * Self.coarseBins
            for bin in 0..<Self.coarseBins { totals[bin] &+= bins[first + bin] }
        }
        return totals
    }

    /// The place of an element.
    package struct Place: Sendable, Hashable {
        package let bin: UInt32
        /// The number of counted elements in higher bins.
        package let above: Int
        /// The number of counted elements in the bin.
        package let inside: Int
    }

    /// The place of the `rank`-th largest counted element, from 1; `nil` if fewer were counted.
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
