package import NIOCore
import TensorKernels

/// The type of a frame's body.
package enum FrameType: UInt16, Sendable, CaseIterable {
    /// A JSON message (`Message`).
    case control = 1
    /// A block of an output tensor (`BlockFrame`).
    case block = 2
    /// A range of an input file (`FetchedFrame`).
    case fetched = 3
    /// A JSON message that must not overtake the blocks before it.
    case ordered = 4
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
    package static let protocolVersion: UInt16 = 4

    package var type: FrameType
    package var bodyLength: Int
    package var bodyChecksum: UInt32
    /// The shard of a block; zero in other frames.
    package var stream: UInt32
    /// The epoch of a block's attempt; zero in other frames.
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

    /// Reads the header at the reader index and moves the index past it.
    ///
    /// - Returns: `nil` while fewer than 64 bytes have arrived.
    /// - Throws: `FrameError` unless the bytes are a header of this protocol version. The body's length is not checked here
    ///   (see `FrameLimits`).
    package init?(readFrom buffer: inout ByteBuffer) throws(FrameError) {
        let start = buffer.readerIndex
        guard let magic: UInt32 = buffer.getInteger(at: start, endianness: .little) else { return nil }
        guard magic == Self.magic else { throw FrameError.guess(buffer) }
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

/// One unit of the protocol: a header and a body, each with a checksum.
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

    init(header: FrameHeader, body: ByteBuffer) {
        self.header = header
        self.body = body
    }

    package var byteCount: Int { Limits.headerBytes + body.readableBytes }
}

extension CRC32C {
    static func checksum(_ buffer: ByteBuffer, seed: UInt32 = 0) -> UInt32 {
        buffer.withUnsafeReadableBytes { checksum($0, seed: seed) }
    }
}
