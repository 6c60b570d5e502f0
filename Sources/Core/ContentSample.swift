/// A digest of a few pieces of a file, which tells files of the same size apart that differ in many places, for the price of a
/// few reads.
///
/// The file is cut into 64 strata of equal size. One page of each is read: the first of the first, the last of the last, and of
/// the others the one that a fixed generator draws, so that the pages do not fall on the same place of every tensor. A file that
/// has no more than 64 pages is read whole.
///
/// A change of a share p of the pages, in random places, is missed with a probability of `(1 - p)^64`: 1 % of the file, half the
/// time; 10 %, once in 850. A single number that changes in a large file is missed nearly always.
package enum ContentSample {
    package static let pageBytes = 4096
    package static let pageCount = 64

    /// The ranges that are read of a file of so many bytes, in order.
    package static func ranges(size: Int) -> [Range<Int>] {
        let pages = (size + pageBytes - 1) / pageBytes
        guard pages > pageCount else { return size > 0 ? [0..<size] : [] }
        var state = UInt64(size)
        return (0..<pageCount).map { stratum in
            let first = pages * stratum / pageCount, end = pages * (stratum + 1) / pageCount
            let page =
                switch stratum {
                case 0: first
                case pageCount - 1: end - 1
                default: first + Int(next(&state) % UInt64(end - first))
                }
            return page * pageBytes..<min(size, (page + 1) * pageBytes)
        }
    }

    /// SplitMix64.
    private static func next(_ state: inout UInt64) -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
        return word ^ word >> 31
    }

    /// SHA-256 over the size, 8 bytes with the low one first, and the bytes of all ranges.
    ///
    /// - Throws: what reading throws; `badData` for a file that changes meanwhile.
    package static func digest(of source: any ByteSource) throws(TesseraError) -> Digest {
        let hash = try SHA256(), ranges = ranges(size: source.size)
        hash.update((0..<8).map { UInt8(truncatingIfNeeded: source.size >> (8 * $0)) })
        // So that a disk has all of them to do at once.
        for range in ranges { source.prefetch(range) }
        for range in ranges { hash.update(try source.bytes(range)) }
        try source.checkUnchanged()
        return try hash.finalize()
    }
}
