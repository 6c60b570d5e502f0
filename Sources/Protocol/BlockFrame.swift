package import Core
package import NIOCore
import TensorKernels

/// A block of an output tensor on its way to the coordinator.
///
/// ```
///  0 shard, 4 bytes   4 tensor, 4 bytes   8 offset in the tensor, 8 bytes
/// 16 length when unpacked, 4 bytes       20 codec   21 element width   22 reserved, 2 bytes of zero
/// 24 CRC-32C when unpacked; 0 for a stored block, which the frame's own covers   28 payload
/// ```
package struct BlockFrame: Sendable, Hashable {
    package let attempt: Attempt
    /// Position in the shard's list of tensors.
    package let tensor: Int
    /// Bytes from the tensor's beginning.
    package let offset: Int
    package let contents: PackedBlock

    private static let prefixBytes = 28

    /// A frame with a block, compressed if worthwhile.
    package static func packing(
        _ bytes: UnsafeRawBufferPointer, elementWidth: Int, of attempt: Attempt, tensor: Int, offset: Int
    ) -> Frame {
        var body = ByteBuffer()
        writePrefix(of: attempt, tensor, offset, length: bytes.count, elementWidth, to: &body)
        let codec = BlockCodec.pack(bytes, elementWidth: elementWidth, to: &body)
        body.setInteger(codec.rawValue, at: codecOffset)
        if codec != .stored { body.setInteger(CRC32C.checksum(bytes), at: checksumOffset, endianness: .little) }
        return Frame(.block, body: body, of: attempt)
    }

    /// A frame whose block `fill` writes straight into the send buffer.
    ///
    /// - Parameters:
    ///   - buffer: memory to reuse if nothing else refers to it.
    ///   - fill: writes the `length` bytes and reports its progress, so that the checksum is computed while the bytes are in
    ///     cache.
    package static func storing(
        _ length: Int, of attempt: Attempt, tensor: Int, offset: Int, in buffer: consuming ByteBuffer = ByteBuffer(),
        fill: (UnsafeMutableRawPointer, _ filled: (Int) throws -> Void) throws -> Void
    ) throws -> Frame {
        buffer.clear(minimumCapacity: prefixBytes + length)
        writePrefix(of: attempt, tensor, offset, length: length, 1, to: &buffer)
        var checksum = CRC32C.checksum(buffer)
        try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { bytes in
            guard let start = bytes.baseAddress else { return 0 }
            var checked = 0
            func check(upTo filled: Int) {
                checksum = CRC32C.checksum(
                    UnsafeRawBufferPointer(start: start + checked, count: filled - checked), seed: checksum)
                checked = filled
            }
            try fill(start) { check(upTo: $0) }
            check(upTo: length)
            return length
        }
        return Frame(.block, body: buffer, checksum: checksum, of: attempt)
    }

    private static let codecOffset = 20, checksumOffset = 24

    private static func writePrefix(
        of attempt: Attempt, _ tensor: Int, _ offset: Int, length: Int, _ elementWidth: Int, to body: inout ByteBuffer
    ) {
        body.writeInteger(UInt32(clamping: attempt.shard), endianness: .little)
        body.writeInteger(UInt32(tensor), endianness: .little)
        body.writeInteger(UInt64(offset), endianness: .little)
        body.writeInteger(UInt32(length), endianness: .little)
        body.writeInteger(BlockCodec.stored.rawValue)
        body.writeInteger(UInt8(clamping: elementWidth))
        body.writeInteger(UInt16(0))
        body.writeInteger(UInt32(0))
    }

    /// - Throws: `protocolMismatch` if the body is not a block.
    package init(_ frame: Frame) throws(TesseraError) {
        var body = frame.body
        guard
            let fields = body.readMultipleIntegers(
                endianness: .little, as: (UInt32, UInt32, UInt64, UInt32, UInt8, UInt8, UInt16, UInt32).self),
            let codec = BlockCodec(rawValue: fields.4), fields.3 <= UInt32(TreeDigest.blockSize), fields.2 <= UInt64(Int.max),
            (1...8).contains(fields.5), fields.6 == 0, codec != .stored || fields.7 == 0
        else { throw TesseraError(.protocolMismatch, "a block frame of \(frame.body.readableBytes) bytes that is no block") }
        attempt = Attempt(
            job: frame.header.job, shard: Int(fields.0), epoch: frame.header.epoch, incarnation: frame.header.incarnation)
        tensor = Int(fields.1)
        offset = Int(fields.2)
        contents = PackedBlock(
            codec: codec, elementWidth: fields.5, length: Int(fields.3), checksum: fields.7, payload: body)
    }
}

/// A range of an input file, in answer to a `FetchRequest`.
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
