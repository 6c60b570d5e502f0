internal import CTensorKernels

/// Counts of numbers around a window, which is a range of magnitudes as bit patterns.
package struct WindowCount: Sendable, Hashable {
    /// The number of magnitudes above the window.
    package private(set) var above = 0
    /// The numbers of magnitudes at its upper and at its lower end, for each call of `add`; the latter are undefined if both ends
    /// are the same.
    package private(set) var atHigh: [Int] = [], atLow: [Int] = []
    /// The patterns strictly between the ends, in order; `nil` if there was not enough memory.
    package private(set) var between: [UInt32]? = []

    /// The numbers of patterns in `between`, for each call of `add`.
    private var noted: [Int] = []

    package init() {}

    /// The numbers of magnitudes with a pattern strictly between the ends, for each call of `add`; `nil` if not all were noted.
    package func equal(to pattern: UInt32) -> [Int]? {
        guard let between else { return nil }
        var start = 0
        return noted.map { count in
            defer { start += count }
            return between[start..<start + count].count { $0 == pattern }
        }
    }

    /// Counts more numbers.
    ///
    /// - Parameter take: returns whether there is memory for the given number of further patterns.
    package mutating func add(
        _ x: UnsafePointer<Float>, count: Int, around window: ClosedRange<UInt32>, kernels: Kernels, buffer take: (Int) -> Bool
    ) {
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: count + 1) { notes in
            guard let first = notes.baseAddress else { return }
            var counts = tk_window_counts()
            let noted = kernels.table.pointee.count_window(x, window.lowerBound, window.upperBound, &counts, first, count)
            above += counts.above
            atHigh.append(counts.at_high)
            atLow.append(counts.at_low)
            self.noted.append(noted)
            if between != nil, take(noted) { between?.append(contentsOf: notes[..<noted]) } else { between = nil }
        }
    }
}

extension [[UInt32]] {
    /// The `rank`-th largest (from 1) of the magnitude patterns in these lists, all of which lie in `range`; `nil` if there are
    /// fewer.
    ///
    /// Counts patterns by their high bits, then those in the class of the wanted pattern by further bits, until the class is a
    /// single pattern.
    package func largest(_ rank: Int, in range: ClosedRange<UInt32>) -> UInt32? {
        let classBits = 11
        var lists = self, left = rank
        var first = range.lowerBound, width = UInt32.bitWidth - (range.upperBound - first).leadingZeroBitCount
        while true {
            let shift = Swift.max(0, width - classBits)
            let classes = lists.classes(from: first, shift: shift, count: 1 << (width - shift))
            var found = classes.count - 1
            while found >= 0, left > classes[found] {
                left -= classes[found]
                found -= 1
            }
            guard found >= 0 else { return nil }
            first += UInt32(found) << shift
            if shift == 0 { return first }
            lists = lists.map { $0.ofClass(first, shift: shift) }
            width = shift
        }
    }

    /// The number of patterns in each class.
    private func classes(from first: UInt32, shift: Int, count: Int) -> [Int] {
        // Neighbours are often equal. Separate tables for them avoid waiting for the count that was just stored.
        var tables = [Int](repeating: 0, count: 2 * count)
        for list in self {
            var table = 0
            for pattern in list {
                tables[table + Int((pattern &- first) >> shift)] += 1
                table ^= count
            }
        }
        return (0..<count).map { tables[$0] + tables[count + $0] }
    }
}

extension [UInt32] {
    /// The patterns of one class, in order.
    fileprivate func ofClass(_ first: UInt32, shift: Int) -> [UInt32] {
        // Every pattern is stored, and overwritten by the next if it is not in the class: a branch would be unpredictable.
        Array(unsafeUninitializedCapacity: count) { target, taken in
            for pattern in self {
                target[taken] = pattern
                taken += (pattern &- first) >> shift == 0 ? 1 : 0
            }
        }
    }
}
