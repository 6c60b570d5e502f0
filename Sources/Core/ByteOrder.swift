import Glibc

/// Names of tensors and files are compared as bytes. Swift's own comparison takes two spellings of one character (`é` as one
/// scalar or as two) for the same, and is slower.
extension String {
    /// Whether the bytes of this name come before those of the other.
    package func precedesInBytes(_ other: String) -> Bool {
        withUTF8Bytes { left in
            other.withUTF8Bytes { right in
                let order = left.compare(right, count: min(left.count, right.count))
                return order == 0 ? left.count < right.count : order < 0
            }
        }
    }

    /// The order of people: runs of digits count as numbers, so that `layers.2` comes before `layers.10`. Names that are equal so
    /// far are ordered by their bytes.
    package func precedesNaturally(_ other: String) -> Bool {
        withUTF8Bytes { left in
            other.withUTF8Bytes { right in
                var i = 0, j = 0
                while i < left.count, j < right.count {
                    let first = left.numberEnd(from: &i), second = right.numberEnd(from: &j)
                    if let first, let second {
                        let lengths = (first - i, second - j)
                        guard lengths.0 == lengths.1 else { return lengths.0 < lengths.1 }
                        let order = UnsafeBufferPointer(rebasing: left[i..<first]).compare(
                            UnsafeBufferPointer(rebasing: right[j..<second]), count: lengths.0)
                        guard order == 0 else { return order < 0 }
                        (i, j) = (first, second)
                    } else {
                        guard left[i] == right[j] else { return left[i] < right[j] }
                        (i, j) = (i + 1, j + 1)
                    }
                }
                guard i == left.count, j == right.count else { return j < right.count }
                return precedesInBytes(other)
            }
        }
    }

    /// Whether the bytes of `part` occur in this name.
    package func holds(_ part: String) -> Bool {
        withUTF8Bytes { whole in
            part.withUTF8Bytes { part in
                guard let start = whole.baseAddress, let wanted = part.baseAddress, part.count > 0 else { return part.isEmpty }
                guard part.count <= whole.count else { return false }
                return (0...whole.count - part.count).contains {
                    start[$0] == wanted[0] && memcmp(start + $0, wanted, part.count) == 0
                }
            }
        }
    }

    func withUTF8Bytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        if let result = utf8.withContiguousStorageIfAvailable(body) { return result }
        return Array(utf8).withUnsafeBufferPointer(body)
    }
}

extension [String] {
    /// In the order of `precedesInBytes`.
    package func sortedByBytes() -> [String] { sorted { $0.precedesInBytes($1) } }

    /// Every name of this list and another, once, where both are sorted by bytes.
    package func mergedByBytes(_ other: [String]) -> [String] {
        var merged: [String] = []
        merged.reserveCapacity(Swift.max(count, other.count))
        var next = other.startIndex
        for name in self {
            while next < other.endIndex, other[next].precedesInBytes(name) {
                merged.append(other[next])
                next += 1
            }
            if next < other.endIndex, ExactText(other[next]) == ExactText(name) { next += 1 }
            merged.append(name)
        }
        return merged + other[next...]
    }
}

extension UnsafeBufferPointer<UInt8> {
    fileprivate func compare(_ other: Self, count: Int) -> Int32 {
        guard count > 0, let left = baseAddress, let right = other.baseAddress else { return 0 }
        return memcmp(left, right, count)
    }

    /// Where the run of digits at `index` ends, `index` having moved to its first digit that is not a leading zero, or to its
    /// last; `nil` where there is no digit.
    fileprivate func numberEnd(from index: inout Int) -> Int? {
        let isDigit = { (byte: UInt8) in byte &- 48 < 10 }
        guard isDigit(self[index]) else { return nil }
        var end = index
        while end < count, isDigit(self[end]) { end += 1 }
        while self[index] == 48, index < end - 1 { index += 1 }
        return end
    }
}
