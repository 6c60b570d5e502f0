import Core
import TensorKernels
import TestSupport
import Testing

@Suite struct SHA256PairTests {
    private static let bytes: [UInt8] = {
        var random = SplitMix(seed: 31)
        return (0..<5_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    }()

    /// Hashes ranges of the bytes, each in pieces of the given length.
    private func digests(
        _ first: Range<Int>, _ second: Range<Int>, pieces: (Int, Int), usesInstructions: Bool
    ) throws -> [Digest] {
        try Self.bytes.withUnsafeBytes { bytes in
            let pair = try SHA256Pair(usesInstructions: usesInstructions)
            var (first, second) = (first, second)
            while !first.isEmpty || !second.isEmpty {
                pair.update(
                    UnsafeRawBufferPointer(rebasing: bytes[first.prefix(pieces.0)]),
                    UnsafeRawBufferPointer(rebasing: bytes[second.prefix(pieces.1)]))
                first = first.dropFirst(pieces.0)
                second = second.dropFirst(pieces.1)
            }
            let digests = try pair.finalize()
            return [digests.0, digests.1]
        }
    }

    private func expected(_ ranges: Range<Int>...) throws -> [Digest] {
        try ranges.map { try Digest.sha256(of: Array(Self.bytes[$0])) }
    }

    @Test(arguments: [true, false]) func anyLengthAndAlignmentIsAsLibcryptoHasIt(usesInstructions: Bool) throws {
        for length in Array(0...130) + [191, 192, 193, 1_000, 4_096] {
            for (start, other) in [(0, 0), (1, 63), (7, 130), (64, 0), (3, 4_096)] {
                let first = start..<start + length, second = 900..<900 + other
                #expect(
                    try digests(first, second, pieces: (5_000, 5_000), usesInstructions: usesInstructions)
                        == expected(first, second), "\(first) \(second)")
            }
        }
    }

    @Test(arguments: [true, false]) func piecesContinueEachOther(usesInstructions: Bool) throws {
        let first = 5..<4_005, second = 11..<3_000
        for pieces in [(64, 64), (128, 64), (64, 1), (1, 1), (63, 65), (1_000, 999), (4_000, 1)] {
            #expect(try digests(first, second, pieces: pieces, usesInstructions: usesInstructions) == expected(first, second))
        }
    }

    /// A hash that goes on, and messages beside it, of any lengths: none, shorter ones and longer ones than its own bytes.
    @Test(arguments: [true, false]) func lanesHashEveryMessage(usesInstructions: Bool) throws {
        try Self.bytes.withUnsafeBytes { bytes in
            for carried in [[], [0], [1], [64, 64], [640, 128, 1_000], [63, 65, 7], [4_000]] {
                let lanes = try SHA256Lanes(usesInstructions: usesInstructions)
                var place = 0
                for (turn, count) in carried.enumerated() {
                    let messages = [[], [0..<0], [5..<69], [3..<1_003, 7..<8, 100..<4_900], [1..<65, 0..<640, 2..<3, 0..<0]]
                    let ranges = messages[turn % messages.count] + messages[(turn + count) % messages.count]
                    let found = try lanes.update(
                        UnsafeRawBufferPointer(rebasing: bytes[place..<place + count]),
                        beside: ranges.map { UnsafeRawBufferPointer(rebasing: bytes[$0]) })
                    #expect(try found == ranges.map { try Digest.sha256(of: Array(Self.bytes[$0])) }, "\(ranges)")
                    place += count
                }
                #expect(try lanes.finalize() == Digest.sha256(of: Array(Self.bytes[..<place])), "\(carried)")
            }
        }
    }

    /// The examples of FIPS 180-2, appendix B, and of no bytes.
    @Test func matchesTheStandard() throws {
        let pair = try SHA256Pair()
        Array("abc".utf8).withUnsafeBytes { pair.update($0, UnsafeRawBufferPointer(start: nil, count: 0)) }
        let (abc, nothing) = try pair.finalize()
        #expect(abc.hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(nothing.hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }
}
