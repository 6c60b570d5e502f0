/// The number of elements in one bin of a histogram of magnitudes.
package struct MagnitudeCount: Sendable, Hashable {
    package let bin: UInt32
    package let count: Int

    package init(bin: UInt32, count: Int) {
        self.bin = bin
        self.count = count
    }
}

/// The bins of a histogram that are not empty, lowest first.
///
/// As JSON: one list, in which each bin has two integers. The first is the number of empty bins before it, the second its count.
package struct MagnitudeCounts: Sendable, Hashable {
    package let entries: [MagnitudeCount]

    /// The largest number of bins of a histogram.
    package static let binLimit = 1 << 16
    /// Bytes of JSON for a bin, for counts of five digits beside each other.
    package static let bytesPerBin = 8

    package init(_ entries: [MagnitudeCount]) { self.entries = entries }

    /// Adds the counts to those of other histograms.
    package func add(to totals: inout [UInt32: Int]) {
        for entry in entries { totals[entry.bin, default: 0] += entry.count }
    }

    /// Whether all counts can be of `elements` elements in so many bins.
    package func fit(_ elements: Int, bins: Int = binLimit) -> Bool {
        var left = elements
        return entries.allSatisfy { entry in
            guard entry.bin < bins, (0...left).contains(entry.count) else { return false }
            left -= entry.count
            return true
        }
    }
}

extension MagnitudeCounts: Codable {
    package init(from decoder: any Decoder) throws {
        var list = try decoder.unkeyedContainer(), entries: [MagnitudeCount] = [], next = 0
        while !list.isAtEnd {
            let empty = try list.decode(Int.self), count = try list.decode(Int.self)
            guard (0..<Self.binLimit - next).contains(empty), count >= 0 else {
                throw DecodingError.dataCorruptedError(
                    in: list, debugDescription: "a histogram has \(count) elements behind \(empty) empty bins")
            }
            entries.append(MagnitudeCount(bin: UInt32(next + empty), count: count))
            next += empty + 1
        }
        self.init(entries)
    }

    package func encode(to encoder: any Encoder) throws {
        var list = encoder.unkeyedContainer(), next = 0
        for entry in entries {
            try list.encode(Int(entry.bin) - next)
            try list.encode(entry.count)
            next = Int(entry.bin) + 1
        }
    }
}

extension [UInt32: Int] {
    /// The place of the `rank`-th largest of the counted elements, from 1, with the numbers of elements above its bin and in it;
    /// `nil` if there are fewer.
    package func place(ofLargest rank: Int) -> (bin: UInt32, above: Int, inside: Int)? {
        var above = 0
        for (bin, count) in sorted(by: { $0.key > $1.key }) {
            if above + count >= rank, count > 0 { return (bin, above, count) }
            above += count
        }
        return nil
    }
}
