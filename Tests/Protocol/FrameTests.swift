import Core
import NIOCore
import Protocol
import TensorKernels
import TestSupport
import Testing
import Work

@Suite struct FrameTests {
    private static func encoded(_ frames: [Frame]) -> ByteBuffer {
        var encoder = FrameEncoder()
        var buffer = ByteBuffer()
        for frame in frames {
            buffer.writeImmutableBuffer(encoder.encodeHeader(of: frame))
            buffer.writeImmutableBuffer(frame.body)
        }
        return buffer
    }

    private static let block = Frame(
        .block, body: ByteBuffer(string: "tessera"),
        of: Attempt(
            job: JobID(high: 0x0102_0304_0506_0708, low: 0x090a_0b0c_0d0e_0f10), shard: 3, epoch: 5, incarnation: 0x1122_3344))

    private func decode(_ bytes: ByteBuffer, pieces: Int = .max) throws -> [Frame] {
        var decoder = FrameDecoder()
        var frames: [Frame] = []
        var rest = bytes
        while var piece = rest.readSlice(length: min(pieces, rest.readableBytes)), piece.readableBytes > 0 {
            while let frame = try decoder.next(in: &piece) { frames.append(frame) }
            #expect(piece.readableBytes == 0)
        }
        try decoder.finish()
        return frames
    }

    /// The example of docs/protocol.md, byte for byte: it changes only with the protocol's version.
    @Test func theBytesOfAFrame() {
        let hex = Self.encoded([Self.block]).readableBytesView.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0\(digits)" : digits
        }.joined()
        #expect(
            hex == """
                5453524104000200000000002205a90e07000000c2047e190300000044332211\
                00000000000000000102030405060708090a0b0c0d0e0f100500000000000000\
                74657373657261
                """)
    }

    @Test(arguments: [1, 2, 3, 7, 63, 64, 65, 1000])
    func framesSurviveAnyCutting(pieces: Int) throws {
        let frames = [
            Self.block, Frame(.control, body: ByteBuffer()), Frame(.fetched, body: ByteBuffer(repeating: 7, count: 300)),
            Self.block,
        ]
        let decoded = try decode(Self.encoded(frames), pieces: pieces)
        #expect(decoded.map(\.body) == frames.map(\.body))
        #expect(decoded.map(\.header.sequence) == [0, 1, 2, 3])
        #expect(decoded.map(\.header.type) == frames.map(\.header.type))
        #expect(decoded[0].header.job == Self.block.header.job && decoded[0].header.epoch == 5 && decoded[0].header.stream == 3)
        #expect(decoded[0].header.incarnation == 0x1122_3344 && decoded[1].header.incarnation == 0)
    }

    /// No single flipped bit goes unnoticed.
    @Test func everyFlippedBitIsNoticed() {
        let good = Self.encoded([Self.block])
        for bit in 0..<good.readableBytes * 8 {
            var bad = good
            let byte: UInt8 = bad.getInteger(at: bit / 8) ?? 0
            bad.setInteger(byte ^ UInt8(1 << (bit % 8)), at: bit / 8)
            #expect(throws: FrameError.self, "bit \(bit)") { try decode(bad) }
        }
    }

    @Test func everyCutIsNoticed() {
        let good = Self.encoded([Self.block])
        for length in 1..<good.readableBytes {
            #expect(throws: FrameError.truncated, "\(length) bytes") {
                try decode(good.getSlice(at: 0, length: length) ?? ByteBuffer())
            }
        }
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n", "the status port does"), ("POST /x", "HTTP"), ("PRI * HTTP/2.0", "HTTP"),
        ("SSH-2.0-OpenSSH", "does not speak"),
        ("\u{16}\u{03}\u{01}\u{02}", "TLS"), ("\0\0\0\0", "does not speak"),
    ])
    func otherProtocolsAreToldFromTheFirstBytes(text: String, words: String) {
        let error = #expect(throws: FrameError.self) { try decode(ByteBuffer(string: text)) }
        #expect(error?.description.contains(words) == true)
        #expect(error?.asTesseraError(isGreeting: true).code == .protocolMismatch)
        #expect(error?.asTesseraError(isGreeting: false).code == .unreachable)
    }

    @Test func randomBytesAreRefused() {
        var random = SplitMix(seed: 17)
        for _ in 0..<500 {
            let bytes = (0..<Int.random(in: 64...400, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            #expect(throws: FrameError.self) { try decode(ByteBuffer(bytes: bytes)) }
        }
    }

    private func header(_ change: (inout ByteBuffer) -> Void) -> ByteBuffer {
        var header = Self.encoded([Frame(.control, body: ByteBuffer())])
        change(&header)
        header.setInteger(UInt32(0), at: 12, endianness: .little)
        let checksum = header.withUnsafeReadableBytes { CRC32C.checksum($0) }
        header.setInteger(checksum, at: 12, endianness: .little)
        return header
    }

    /// Headers whose checksum holds and which are refused all the same, before their body is waited for.
    @Test func refusesWhatItDoesNotKnow() {
        #expect(throws: FrameError.version(2)) { try decode(header { $0.setInteger(UInt16(2), at: 4, endianness: .little) }) }
        #expect(throws: FrameError.unknownType(9)) { try decode(header { $0.setInteger(UInt16(9), at: 6, endianness: .little) }) }
        #expect(throws: FrameError.reservedBits) { try decode(header { $0.setInteger(UInt32(1), at: 8, endianness: .little) }) }
        #expect(throws: FrameError.outOfOrder(expected: 0, found: 1)) {
            try decode(header { $0.setInteger(UInt64(1), at: 32, endianness: .little) })
        }
        for (type, limit) in [
            (FrameType.control, 4_194_304), (.ordered, 4_194_304), (.block, 8_388_672), (.fetched, 8_388_672),
        ] {
            let length = limit + 1
            #expect(throws: FrameError.tooLarge(length, limit: limit)) {
                try decode(
                    header {
                        $0.setInteger(type.rawValue, at: 6, endianness: .little)
                        $0.setInteger(UInt32(length), at: 16, endianness: .little)
                    })
            }
        }
    }

    /// Before a peer is admitted, nothing but small messages is taken from it, and afterwards nothing that its role does not
    /// send.
    @Test(arguments: [
        (FrameLimits.stranger, FrameType.control, 65_537, FrameError.tooLarge(65_537, limit: 65_536)),
        (.stranger, .ordered, 65_537, .tooLarge(65_537, limit: 65_536)), (.stranger, .block, 24, .unexpectedType(.block)),
        (.stranger, .fetched, 8, .unexpectedType(.fetched)), (.messages, .block, 24, .unexpectedType(.block)),
        (.messages, .fetched, 8, .unexpectedType(.fetched)), (.worker, .fetched, 8, .unexpectedType(.fetched)),
        (.coordinator, .block, 24, .unexpectedType(.block)),
    ])
    func onlyWhatThePeerMaySendIsTaken(limits: FrameLimits, type: FrameType, length: Int, expected: FrameError) {
        var decoder = FrameDecoder(limits: limits)
        // The header alone is enough: nothing waits for the body.
        var bytes = Self.encoded([Frame(type, body: ByteBuffer(repeating: 0, count: length))])
        var header = bytes.readSlice(length: Limits.headerBytes) ?? ByteBuffer()
        #expect(throws: expected) { try decoder.next(in: &header) }
    }

    @Test func anAdmittedWorkerMaySendBlocks() throws {
        var decoder = FrameDecoder(limits: .stranger)
        var bytes = Self.encoded([Frame(.control, body: ByteBuffer(repeating: 0, count: 65_536)), Self.block])
        #expect(try decoder.next(in: &bytes)?.header.type == .control)
        decoder.limits = .worker
        #expect(try decoder.next(in: &bytes)?.header.type == .block)
    }

    @Test func aReplayedFrameIsOutOfOrder() {
        var twice = Self.encoded([Self.block])
        twice.writeImmutableBuffer(Self.encoded([Self.block]))
        #expect(throws: FrameError.outOfOrder(expected: 1, found: 0)) { try decode(twice) }
    }

    @Test func controlGoesBeforeDataAndResultsStayBehindTheirBlocks() throws {
        var queue = OutboundQueue<Frame>()
        let done = try Message.shardDone(
            ShardDone(attempt: Attempt(job: .none, shard: 0, epoch: 1, incarnation: 1), result: ShardResult(digests: []))
        ).frame()
        let beat = try Message.heartbeat(Heartbeat(number: 1, leases: [])).frame()
        for frame in [Self.block, Self.block, done, beat] { queue.add(frame, as: frame.header.type) }
        #expect((0..<5).map { _ in queue.next()?.header.type } == [.control, .block, .block, .ordered, nil])
        #expect(queue.isEmpty)
    }

    // MARK: Blocks

    @Test func blockFramesSurviveTheWire() throws {
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 * 13) }
        let attempt = Attempt(job: JobID(high: 1, low: 2), shard: 7, epoch: 9, incarnation: 8)
        // Told of or not, all of it is checked; memory that is used again holds nothing of what was there.
        for (told, buffer) in [
            ([], ByteBuffer()), ([10_000], ByteBuffer(repeating: 1, count: 20_000)), ([1, 7_000], ByteBuffer()),
        ] {
            let sent = try BlockFrame.storing(bytes.count, of: attempt, tensor: 3, offset: 1 << 40, in: buffer) {
                target, filled in
                UnsafeMutableRawBufferPointer(start: target, count: bytes.count).copyBytes(from: bytes)
                for count in told { try filled(count) }
            }
            let block = try BlockFrame(try #require(try decode(Self.encoded([sent]), pieces: 999).first))
            #expect(block.attempt == attempt && block.tensor == 3 && block.offset == 1 << 40)
            let unpacked = try block.contents.withUnpacked { Array($0) }
            #expect(unpacked == bytes)
        }
        let fetched = FetchedFrame(request: 5, bytes: ByteBuffer(bytes: bytes))
        #expect(try FetchedFrame(try #require(try decode(Self.encoded([fetched.frame])).first)) == fetched)
    }

    /// Memory that was given back holds the next body, unless somebody still reads the last one.
    @Test func memoryIsReusedOnceNobodyReadsIt() throws {
        let buffers = FrameBuffers(limit: 1), size = 2 * Limits.uncountedFrameBytes
        var decoder = FrameDecoder(buffers: buffers), encoder = FrameEncoder()
        func next(_ byte: UInt8) throws -> ByteBuffer {
            let frame = Frame(.fetched, body: ByteBuffer(repeating: byte, count: size))
            // In two pieces: a body that comes in one is not copied.
            var beginning = encoder.encodeHeader(of: frame), rest = frame.body
            beginning.writeImmutableBuffer(try #require(rest.getSlice(at: 0, length: size / 2)))
            rest.moveReaderIndex(to: size / 2)
            #expect(try decoder.next(in: &beginning) == nil)
            let whole = try decoder.next(in: &rest)
            return try #require(whole).body
        }
        func address(_ body: ByteBuffer) -> UnsafeRawPointer? { body.withUnsafeReadableBytes { $0.baseAddress } }
        let first = try next(1)
        buffers.giveBack(first)
        var second = try next(2)
        #expect(first == ByteBuffer(repeating: 1, count: size) && second == ByteBuffer(repeating: 2, count: size))
        let place = address(second)
        buffers.giveBack(second)
        second = ByteBuffer()
        let third = try next(3)
        #expect(address(third) == place && third == ByteBuffer(repeating: 3, count: size))
    }

    @Test func blocksThatAreNoneAreRefused() {
        func body(_ change: (inout ByteBuffer) -> Void) -> Frame {
            var body = ByteBuffer(repeating: 0, count: 28)
            body.setInteger(UInt8(1), at: 21)
            change(&body)
            return Frame(.block, body: body)
        }
        #expect(throws: Never.self) { try BlockFrame(body { _ in }) }
        for (what, change) in [
            ("too short", { $0.moveWriterIndex(to: 27) }), ("unknown codec", { $0.setInteger(UInt8(2), at: 20) }),
            ("width 0", { $0.setInteger(UInt8(0), at: 21) }), ("width 9", { $0.setInteger(UInt8(9), at: 21) }),
            ("reserved", { $0.setInteger(UInt8(1), at: 22) }),
            ("longer than a block", { $0.setInteger(UInt32(TreeDigest.blockSize + 1), at: 16, endianness: .little) }),
            ("offset above 63 bits", { $0.setInteger(UInt64.max, at: 8, endianness: .little) }),
        ] as [(String, (inout ByteBuffer) -> Void)] {
            #expect(throws: TesseraError.self, "\(what)") { try BlockFrame(body(change)) }
        }
        #expect(throws: TesseraError.self) { try FetchedFrame(Frame(.fetched, body: ByteBuffer(string: "short"))) }
    }
}
