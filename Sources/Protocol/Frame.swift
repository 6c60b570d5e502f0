package import Core
package import NIOCore
import TensorKernels

/// What a frame carries.
package enum FrameType: UInt16, Sendable, CaseIterable {
    /// A JSON message (`Message`).
    case control = 1
    /// A block of an output tensor (`BlockFrame`).
    case block = 2
    /// a range of an input file (`FetchedFrame`).
    case fetched = 3
    /// A JSON message that must not overtake the blocks before it.
    case ordered = 4

    /// Bytes of body at most.
    package var bodyLimit: Int {
        switch self {
        case .control, .ordered: Limits.controlBodyBytes
        case .block, .fetched: Limits.dataBodyBytes
        }
    }
}

/// The header that every frame begins with: 64 bytes, little-endian, without gaps (docs/protocol.md).
///
/// ```
///  0 magic "TSRA"     4 protocol  6 type       8 flags     12 header CRC-32C (this field as zero)
/// 16 body length     20 body CRC-32C          24 stream    28 incarnation
/// 32 sequence        40 job, 16 bytes                      56 epoch
/// ```
package struct FrameHeader: Sendable, Hashable {
    package static let magic: UInt32 = 0x4152_5354  // "TSRA", read as little-endian
    package static let protocolVersion: UInt16 = 2

    package var type: FrameType
    package var bodyLength: Int
    package var bodyChecksum: UInt32
    /// The shard of a block; zero for anything else.
    package var stream: UInt32
    /// Of a block's attempt; zero for anything else.
    package var incarnation: UInt32
    /// Counts the frames of one direction of a connection, from 0.
    package var sequence: UInt64
    package var job: JobID
    package var epoch: UInt64

    /// Writes the header at the buffer's end.
    package func write(into buffer: inout ByteBuffer) {
        var header = ByteBuffer()
        header.reserveCapacity(Limits.headerBytes)
        header.writeInteger(Self.magic, endianness: .little)
        header.writeInteger(Self.protocolVersion, endianness: .little)
        header.writeInteger(type.rawValue, endianness: .little)
        header.writeInteger(UInt32(0), endianness: .little)
        header.writeInteger(UInt32(0), endianness: .little)
        header.writeInteger(UInt32(bodyLength), endianness: .little)
        header.writeInteger(bodyChecksum, endianness: .little)
        header.writeInteger(stream, endianness: .little)
        header.writeInteger(incarnation, endianness: .little)
        header.writeInteger(sequence, endianness: .little)
        header.writeInteger(job.high, endianness: .big)
        header.writeInteger(job.low, endianness: .big)
        header.writeInteger(epoch, endianness: .little)
        let checksum = CRC32C.checksum(header)
        header.setInteger(checksum, at: Self.checksumOffset, endianness: .little)
        buffer.writeBuffer(&header)
    }

    private static let checksumOffset = 12

    /// Reads the header at the reader index, which moves behind it.
    ///
    /// - Returns: `nil` while fewer than 64 bytes are there.
    /// - Throws: `FrameError`, before anything is allocated for the body.
    package init?(readFrom buffer: inout ByteBuffer) throws(FrameError) {
        let start = buffer.readerIndex
        guard let magic: UInt32 = buffer.getInteger(at: start, endianness: .little) else { return nil }
        guard magic == Self.magic else { throw FrameError.notTessera(FrameError.guess(buffer)) }
        guard var header = buffer.readSlice(length: Limits.headerBytes) else { return nil }
        let stored: UInt32 = header.getInteger(at: header.readerIndex + Self.checksumOffset, endianness: .little) ?? 0
        header.setInteger(UInt32(0), at: header.readerIndex + Self.checksumOffset, endianness: .little)
        guard CRC32C.checksum(header) == stored else { throw FrameError.damagedHeader }
        guard
            let fields = header.readMultipleIntegers(
                endianness: .little, as: (UInt32, UInt16, UInt16, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt64).self),
            let jobHigh: UInt64 = header.readInteger(endianness: .big), let jobLow: UInt64 = header.readInteger(endianness: .big),
            let epoch: UInt64 = header.readInteger(endianness: .little)
        else { throw FrameError.damagedHeader }
        guard fields.1 == Self.protocolVersion else { throw FrameError.version(fields.1) }
        guard let type = FrameType(rawValue: fields.2) else { throw FrameError.unknownType(fields.2) }
        guard fields.3 == 0 else { throw FrameError.reservedBits }
        guard fields.5 <= UInt32(type.bodyLimit) else { throw FrameError.tooLarge(Int(fields.5), limit: type.bodyLimit) }
        self.init(
            type: type, bodyLength: Int(fields.5), bodyChecksum: fields.6, stream: fields.7, incarnation: fields.8,
            sequence: fields.9, job: JobID(high: jobHigh, low: jobLow), epoch: epoch)
    }

    package init(
        type: FrameType, bodyLength: Int, bodyChecksum: UInt32, stream: UInt32, incarnation: UInt32, sequence: UInt64 = 0,
        job: JobID, epoch: UInt64
    ) {
        self.type = type
        self.bodyLength = bodyLength
        self.bodyChecksum = bodyChecksum
        self.stream = stream
        self.incarnation = incarnation
        self.sequence = sequence
        self.job = job
        self.epoch = epoch
    }
}

/// One unit of the protocol: a header and its body, both proved by checksums.
package struct Frame: Sendable, Hashable {
    package var header: FrameHeader
    package let body: ByteBuffer

    /// - Parameters:
    ///   - checksum: of the body; computed unless the caller knows it already.
    ///   - attempt: the attempt that made a block; `nil` for other frames.
    package init(_ type: FrameType, body: ByteBuffer, checksum: UInt32? = nil, of attempt: Attempt? = nil) {
        header = FrameHeader(
            type: type, bodyLength: body.readableBytes, bodyChecksum: checksum ?? CRC32C.checksum(body),
            stream: UInt32(clamping: attempt?.shard ?? 0), incarnation: attempt?.incarnation ?? 0, job: attempt?.job ?? .none,
            epoch: attempt?.epoch ?? 0)
        self.body = body
    }

    fileprivate init(header: FrameHeader, body: ByteBuffer) {
        self.header = header
        self.body = body
    }

    package var byteCount: Int { Limits.headerBytes + body.readableBytes }
}

/// Why bytes from a peer are no frame. The connection is closed: there is no telling where the next frame would begin.
package enum FrameError: Error, Sendable, Hashable {
    case notTessera(String)
    case damagedHeader
    case damagedBody
    case version(UInt16)
    case unknownType(UInt16)
    case reservedBits
    case tooLarge(Int, limit: Int)
    case outOfOrder(expected: UInt64, found: UInt64)
    case truncated

    /// What the bytes look like instead.
    fileprivate static func guess(_ buffer: ByteBuffer) -> String {
        let start = buffer.getString(at: buffer.readerIndex, length: 4) ?? ""
        if ["GET ", "POST", "HEAD", "PUT ", "OPTI", "DELE", "PRI "].contains(start) {
            return "this is the job port, which does not speak HTTP; the status port does"
        }
        if buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) == 0x16 {
            return "the peer speaks TLS, this port does not"
        }
        return "the peer does not speak Tessera's protocol"
    }
}

extension FrameError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .notTessera(let guess): guess
        case .damagedHeader: "a frame header does not match its checksum"
        case .damagedBody: "a frame body does not match its checksum"
        case .version(let version): "the peer speaks protocol \(version), this build speaks \(FrameHeader.protocolVersion)"
        case .unknownType(let type): "a frame of the unknown type \(type)"
        case .reservedBits: "a frame with reserved bits set"
        case .tooLarge(let length, let limit): "a frame of \(length) bytes, more than the \(limit) that its type allows"
        case .outOfOrder(let expected, let found): "frame \(found) came where \(expected) was expected"
        case .truncated: "the connection ended in the middle of a frame"
        }
    }

    /// A stream that just ends is a lost connection, and worth another try; anything else is a peer that means something else.
    package var asTesseraError: TesseraError {
        TesseraError(self == .truncated ? .unreachable : .protocolMismatch, description)
    }
}

extension CRC32C {
    static func checksum(_ buffer: ByteBuffer, seed: UInt32 = 0) -> UInt32 {
        buffer.withUnsafeReadableBytes { checksum($0, seed: seed) }
    }
}

/// Cuts a byte stream into frames, from pieces as they come in. It keeps at most one frame, and trusts nothing of it before the header's checksum
/// holds. A body is copied once, or not at all where it came in one piece.
package struct FrameDecoder: Sendable {
    private var header: FrameHeader?
    /// The beginning of the header, or of its body.
    private var kept = ByteBuffer()
    /// Of what was taken last, or of as much of it as there is: made while it is in cache.
    private var checksum: UInt32 = 0
    private var nextSequence: UInt64 = 0

    package init() {}

    /// The next frame that ends in `piece`, from which it is taken; `nil` once the rest of the piece is kept.
    package mutating func next(in piece: inout ByteBuffer) throws(FrameError) -> Frame? {
        if header == nil {
            guard var bytes = take(Limits.headerBytes, from: &piece) else {
                // What does not speak the protocol may wait for an answer after less than a header.
                var beginning = kept
                _ = try FrameHeader(readFrom: &beginning)
                return nil
            }
            header = try FrameHeader(readFrom: &bytes)
        }
        guard let header, let body = take(header.bodyLength, from: &piece) else { return nil }
        self.header = nil
        guard checksum == header.bodyChecksum else { throw FrameError.damagedBody }
        guard header.sequence == nextSequence else {
            throw FrameError.outOfOrder(expected: nextSequence, found: header.sequence)
        }
        nextSequence += 1
        return Frame(header: header, body: body)
    }

    /// The stream has ended.
    package func finish() throws(FrameError) {
        if header != nil || kept.readableBytes > 0 { throw FrameError.truncated }
    }

    private mutating func take(_ length: Int, from piece: inout ByteBuffer) -> ByteBuffer? {
        if kept.readableBytes == 0 {
            checksum = 0
            if let whole = piece.readSlice(length: length) {
                checksum = CRC32C.checksum(whole)
                return whole
            }
            kept.clear(minimumCapacity: length)
        }
        guard var rest = piece.readSlice(length: min(length - kept.readableBytes, piece.readableBytes)) else { return nil }
        checksum = CRC32C.checksum(rest, seed: checksum)
        kept.writeBuffer(&rest)
        guard kept.readableBytes == length else { return nil }
        defer { kept = ByteBuffer() }
        return kept
    }
}

/// Numbers frames and writes them out.
package struct FrameEncoder: Sendable {
    private var nextSequence: UInt64 = 0

    package init() {}

    /// The frame's header; its body follows as it is.
    package mutating func encodeHeader(of frame: Frame) -> ByteBuffer {
        var header = frame.header
        header.sequence = nextSequence
        nextSequence += 1
        var buffer = ByteBuffer()
        buffer.reserveCapacity(Limits.headerBytes)
        header.write(into: &buffer)
        return buffer
    }
}
