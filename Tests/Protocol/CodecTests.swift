import Core
import NIOCore
import Protocol
import TestSupport
import Testing

@Suite struct CodecTests {
    private static func bytes(_ kind: String, count: Int) -> [UInt8] {
        var random = SplitMix(seed: 23)
        return (0..<count).map { index in
            switch kind {
            case "zeros": 0
            case "sparse":
                index % 4 == 3 && Int.random(in: 0..<10, using: &random) == 0 ? UInt8.random(in: 0...255, using: &random) : 0
            default: UInt8.random(in: 0...255, using: &random)
            }
        }
    }

    private func frame(_ bytes: [UInt8], elementWidth: Int = 4) -> Frame {
        bytes.withUnsafeBytes {
            BlockFrame.packing(
                $0, elementWidth: elementWidth, of: Attempt(job: .none, shard: 0, epoch: 0, incarnation: 0), tensor: 0, offset: 0)
        }
    }

    private func packed(_ bytes: [UInt8], elementWidth: Int = 4) throws -> PackedBlock {
        try BlockFrame(frame(bytes, elementWidth: elementWidth)).contents
    }

    @Test(arguments: ["zeros", "sparse", "noise"], [0, 1, 5, 4_096, 100_003])
    func everythingComesBack(kind: String, count: Int) throws {
        let bytes = Self.bytes(kind, count: count)
        for width in [1, 2, 4, 8] {
            let packed = try packed(bytes, elementWidth: width)
            #expect(try packed.withUnpacked { Array($0) } == bytes)
            #expect(packed.payload.readableBytes <= count, "packing never makes a block larger")
        }
    }

    @Test func packsOnlyWhatASampleSaysPays() throws {
        let noise = try packed(Self.bytes("noise", count: 200_000))
        #expect(noise.codec == .stored)
        let sparse = try packed(Self.bytes("sparse", count: 200_000))
        #expect(sparse.codec == .lz4Planes)
        #expect(sparse.payload.readableBytes < 100_000)
    }

    /// A block says how long it is unpacked: what unpacks to more or less is refused, and nothing beyond is written.
    @Test(arguments: [0, 99, 199_999, 200_001, TreeDigest.blockSize])
    func bombsAreRefused(claimed: Int) throws {
        var body = frame([UInt8](repeating: 0, count: 200_000)).body
        body.setInteger(UInt32(claimed), at: 16, endianness: .little)
        let lying = try BlockFrame(Frame(.block, body: body)).contents
        let error = #expect(throws: TesseraError.self) { try lying.withUnpacked { $0.count } }
        #expect(error?.code == .protocolMismatch)
    }

    /// A payload unpacks to what was packed, or not at all. Of some bytes another value means the same.
    @Test func damagedPayloadsAreRefused() throws {
        let bytes = Self.bytes("sparse", count: 5_000), good = frame(bytes).body
        var refused = 0
        for position in 24..<good.readableBytes {
            var body = good
            body.setInteger((body.getInteger(at: position, as: UInt8.self) ?? 0) ^ 0xa5, at: position)
            let damaged = try BlockFrame(Frame(.block, body: body)).contents
            do {
                #expect(try damaged.withUnpacked { Array($0) } == bytes)
            } catch let error as TesseraError where error.code == .protocolMismatch {
                refused += 1
            }
        }
        #expect(refused > (good.readableBytes - 24) / 2)
    }

    @Test func aStoredBlockHasItsOwnLength() throws {
        var body = frame([UInt8](repeating: 1, count: 10)).body
        #expect(try BlockFrame(Frame(.block, body: body)).contents.codec == .stored)
        body.setInteger(UInt32(11), at: 16, endianness: .little)
        let lying = try BlockFrame(Frame(.block, body: body)).contents
        #expect(throws: TesseraError.self) { try lying.withUnpacked { $0.count } }
        body.setInteger(UInt32(10), at: 16, endianness: .little)
        body.setInteger(UInt32(1), at: 24, endianness: .little)
        #expect(throws: TesseraError.self, "a checksum that nobody checks") { try BlockFrame(Frame(.block, body: body)) }
    }
}
