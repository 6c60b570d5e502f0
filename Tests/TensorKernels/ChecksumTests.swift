import TensorKernels
import TestSupport
import Testing

@Suite struct ChecksumTests {
    /// The examples of RFC 3720, appendix B.4, and the check value of the CRC catalogue.
    private static let examples: [(bytes: [UInt8], checksum: UInt32)] = [
        (Array("123456789".utf8), 0xe306_9283), ([UInt8](repeating: 0, count: 32), 0x8a91_36aa),
        ([UInt8](repeating: 0xff, count: 32), 0x62a8_ab43), (Array(0..<32), 0x46dd_794e),
        (Array((0..<32).reversed()), 0x113f_db5c), ([], 0),
    ]

    @Test(arguments: examples)
    func matchesTheStandard(bytes: [UInt8], checksum: UInt32) {
        #expect(bytes.withUnsafeBytes { CRC32C.checksum($0) } == checksum)
        #expect(bytes.withUnsafeBytes { CRC32C.checksumByTable($0) } == checksum)
    }

    @Test func instructionAndTableAgreeForAnyLengthAndAlignment() {
        var random = SplitMix(seed: 12)
        let bytes = (0..<20_100).map { _ in UInt8.random(in: 0...255, using: &random) }
        bytes.withUnsafeBytes { raw in
            for length in Array(0..<80) + [255, 256, 1_023, 1_024, 1_025, 4_096, 6_143, 6_144, 6_145, 12_288, 20_000] {
                for start in 0..<9 {
                    let piece = UnsafeRawBufferPointer(rebasing: raw[start..<start + length])
                    #expect(CRC32C.checksum(piece, seed: 99) == CRC32C.checksumByTable(piece, seed: 99))
                }
            }
        }
    }

    @Test func piecesContinueEachOther() {
        let bytes = (0..<14_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        bytes.withUnsafeBytes { raw in
            let whole = CRC32C.checksum(raw)
            for cut in [0, 1, 8, 1_500, 6_144, 13_999, 14_000] {
                let first = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: raw[..<cut]))
                #expect(CRC32C.checksum(UnsafeRawBufferPointer(rebasing: raw[cut...]), seed: first) == whole)
            }
        }
    }

    @Test(arguments: [1, 2, 3, 4, 8], [0, 1, 7, 8, 64, 1_001])
    func planesAreUndone(width: Int, length: Int) {
        let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 11) }
        var planes = [UInt8](repeating: 0, count: length), back = planes
        bytes.withUnsafeBytes { source in
            planes.withUnsafeMutableBytes { BytePlanes.split(source, elementWidth: width, into: $0) }
        }
        planes.withUnsafeBytes { source in back.withUnsafeMutableBytes { BytePlanes.join(source, elementWidth: width, into: $0) }
        }
        #expect(back == bytes)
        if length >= 2 * width { #expect(Array(planes[..<2]) == [bytes[0], bytes[width]]) }
    }

    @Test func theTreeAddsNeighbours() {
        #expect(FixedTree.sum([]) == 0)
        #expect(FixedTree.sum([7]) == 7)
        // ((1 + 2⁻⁵³) + (2⁻⁵³ + 0)) + 2⁻⁵³: in any other order the small ones would add up differently.
        let small = 0x1p-53
        #expect(FixedTree.sum([1, small, small, small, small]) == (1 + small) + (small + small) + small)
        #expect(FixedTree.sum(Array(repeating: 0.1, count: 1 << 10)).isEqual(to: 0.1 * 1_024))
    }
}
