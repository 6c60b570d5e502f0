import Core
import TestSupport
import Testing

/// Which bytes of a file tell it from others.
@Suite struct ContentSampleTests {
    private static let page = ContentSample.pageBytes, limit = ContentSample.pageCount * page

    private func digest(_ bytes: [UInt8]) throws -> Digest {
        try ContentSample.digest(of: MemoryFiles(["/f": bytes]).open("/f"))
    }

    @Test(arguments: [0, 1, page, limit - 1, limit, limit + 1, limit + page, 2 * limit + 17, 1 << 33, 1 << 50])
    func theRangesLieInTheFile(size: Int) {
        let ranges = ContentSample.ranges(size: size)
        #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound }, "in order, and none twice")
        #expect(ranges.allSatisfy { !$0.isEmpty })
        #expect(size == 0 || ranges.first?.lowerBound == 0 && ranges.last?.upperBound == size, "both ends are read")
        #expect(ranges.reduce(0) { $0 + $1.count } <= Self.limit)
        if size <= Self.limit { #expect(ranges.reduce(0) { $0 + $1.count } == size, "small files are read whole") }
    }

    /// Tensors of equal size do not all have the same of their pages read.
    @Test func thePagesAreNotEquallyFarApart() {
        let starts = ContentSample.ranges(size: 1 << 30).map(\.lowerBound)
        #expect(Set(zip(starts, starts.dropFirst()).map { $1 - $0 }).count > 50)
    }

    @Test func everySampledByteCounts() throws {
        var bytes = (0..<3 * Self.limit).map { UInt8(truncatingIfNeeded: $0 / 7) }
        let whole = try digest(bytes), sampled = ContentSample.ranges(size: bytes.count)
        for position in [0, bytes.count - 1] + sampled.map(\.lowerBound) + sampled.map({ $0.upperBound - 1 }) {
            bytes[position] ^= 1
            #expect(try digest(bytes) != whole, "byte \(position)")
            bytes[position] ^= 1
        }
        // What a sample does not find.
        let hole = try #require(zip(sampled, sampled.dropFirst()).first { $0.upperBound < $1.lowerBound }).0.upperBound
        bytes[hole] ^= 1
        #expect(try digest(bytes) == whole)
    }

    @Test func theSizeCounts() throws {
        #expect(try digest([]) != digest([0]))
        #expect(try digest([UInt8](repeating: 0, count: 2 * Self.limit)) != digest([UInt8](repeating: 0, count: 3 * Self.limit)))
    }

    /// Other hosts and later versions read the same pages. The digest is that of a program in Python after docs/protocol.md.
    @Test func theSampleStaysAsItIs() throws {
        let bytes = (0..<3 * Self.limit).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8 ^ $0 >> 16) }
        #expect(try digest(bytes).hex == "473b0fbada3dbe42865d7d46ad4d4c7fdcbf6d325332a4ee38b0510cb7d5bfd7")
    }
}
