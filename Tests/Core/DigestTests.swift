import Core
import Testing

@Suite struct DigestTests {
    /// The examples of FIPS 180-4.
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ])
    func matchesTheStandard(text: String, hex: String) throws {
        let digest = try Digest.sha256(of: Array(text.utf8))
        #expect(digest.hex == hex)
        #expect(Digest(hex: hex.uppercased()) == digest)
        #expect(Digest(bytes: digest.bytes) == digest)
    }

    @Test(arguments: [
        "", "ba78", String(repeating: "g", count: 64), String(repeating: "a", count: 63) + "é", String(repeating: "0", count: 65),
    ])
    func refusesOtherText(text: String) { #expect(Digest(hex: text) == nil) }

    @Test func theTreeDependsOnEveryBlockAndTheirOrder() throws {
        let one = try Digest.sha256(of: [1]), two = try Digest.sha256(of: [2])
        let trees = try [[], [one], [two], [one, two], [two, one], [one, one]].map { try TreeDigest.tensor(blocks: $0) }
        #expect(Set(trees).count == trees.count)
        #expect(try TreeDigest.tensor(blocks: []).hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    @Test(arguments: [(0, 0), (1, 1), (TreeDigest.blockSize, 1), (TreeDigest.blockSize + 1, 2)])
    func countsBlocks(bytes: Int, blocks: Int) { #expect(TreeDigest.blockCount(ofBytes: bytes) == blocks) }

    /// A pair is no larger than a block may be, and all blocks are about as long as each other.
    @Test(arguments: [8 << 10, 16 << 10, 64 << 10], [0, 1, -1, 100_000])
    func pairedBlocksAreEven(step: Int, more: Int) {
        for megabytes in [1, 2, 3, 8, 9, 31, 64, 271] {
            let byteCount = megabytes << 20 + more, size = TreeDigest.pairedBlockSize(ofBytes: byteCount, step: step)
            let count = TreeDigest.blockCount(ofBytes: byteCount, blockSize: size)
            #expect(size % step == 0)
            guard byteCount > 1 << 20 else {
                #expect(size == TreeDigest.blockSize)
                continue
            }
            #expect(2 * size <= TreeDigest.blockSize)
            #expect(count.isMultiple(of: 2) || count > 32, "\(byteCount) bytes in \(count) blocks")
            #expect(byteCount - (count - 1) * size > size - count * step, "the last block of \(byteCount) bytes")
        }
    }
}
