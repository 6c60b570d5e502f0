package import Checkpoints
package import NIOCore

/// A block of an output tensor on its way to the coordinator.
///
/// ```
///  0 shard, 4 bytes   4 tensor, 4 bytes   8 offset in the tensor, 8 bytes
/// 16 length when unpacked, 4 bytes       20 codec   21 element width   22 reserved, 2 bytes of zero
/// 24 payload
/// ```
package struct BlockFrame: Sendable, Hashable {
    package let attempt: Attempt
    /// Position in the shard's list of tensors.
    package let tensor: Int
    /// Bytes from the tensor's beginning.
    package let offset: Int
    package let contents: PackedBlock

    private static let prefixBytes = 24

    /// Bytes of the frame with a block of that many bytes at most.
    package static func byteCount(ofBlock length: Int) -> Int { Limits.headerBytes + prefixBytes + length }

    package init(attempt: Attempt, tensor: Int, offset: Int, contents: PackedBlock) {
        self.attempt = attempt
        self.tensor = tensor
        self.offset = offset
        self.contents = contents
    }

    package var frame: Frame {
        var body = ByteBuffer()
        body.reserveCapacity(Self.prefixBytes + contents.payload.readableBytes)
        body.writeInteger(UInt32(attempt.shard), endianness: .little)
        body.writeInteger(UInt32(tensor), endianness: .little)
        body.writeInteger(UInt64(offset), endianness: .little)
        body.writeInteger(UInt32(contents.length), endianness: .little)
        body.writeInteger(contents.codec.rawValue)
        body.writeInteger(contents.elementWidth)
        body.writeInteger(UInt16(0))
        body.writeImmutableBuffer(contents.payload)
        return Frame(.block, body: body, stream: UInt32(attempt.shard), job: attempt.job, epoch: attempt.epoch)
    }

    /// - Throws: `protocolMismatch` for a body that is no block.
    package init(_ frame: Frame) throws(TesseraError) {
        var body = frame.body
        guard
            let fields = body.readMultipleIntegers(
                endianness: .little, as: (UInt32, UInt32, UInt64, UInt32, UInt8, UInt8, UInt16).self),
            let codec = BlockCodec(rawValue: fields.4), fields.3 <= UInt32(TreeDigest.blockSize), fields.2 <= UInt64(Int.max),
            (1...8).contains(fields.5), fields.6 == 0
        else { throw TesseraError(.protocolMismatch, "a block frame of \(frame.body.readableBytes) bytes that is no block") }
        attempt = Attempt(job: frame.header.job, shard: Int(fields.0), epoch: frame.header.epoch)
        tensor = Int(fields.1)
        offset = Int(fields.2)
        contents = PackedBlock(codec: codec, elementWidth: fields.5, length: Int(fields.3), payload: body)
    }
}

/// A stretch of an input file, in answer to a `FetchRequest`.
///
/// ```
/// 0 request, 8 bytes   8 payload
/// ```
package struct FetchedFrame: Sendable, Hashable {
    package let request: UInt64
    package let bytes: ByteBuffer

    package init(request: UInt64, bytes: ByteBuffer) {
        self.request = request
        self.bytes = bytes
    }

    package var frame: Frame {
        var body = ByteBuffer()
        body.reserveCapacity(MemoryLayout<UInt64>.size + bytes.readableBytes)
        body.writeInteger(request, endianness: .little)
        body.writeImmutableBuffer(bytes)
        return Frame(.fetched, body: body)
    }

    /// - Throws: `protocolMismatch` for a body that is too short.
    package init(_ frame: Frame) throws(TesseraError) {
        var body = frame.body
        guard let request: UInt64 = body.readInteger(endianness: .little) else {
            throw TesseraError(.protocolMismatch, "a fetched frame of \(frame.body.readableBytes) bytes")
        }
        self.request = request
        bytes = body
    }
}
