import CLZ4
import Core
package import NIOCore
import TensorKernels

/// The compression of a block.
package enum BlockCodec: UInt8, Sendable, Hashable {
    case stored = 0
    /// Split into byte planes, then LZ4.
    case lz4Planes = 1

    /// Bytes of the sample that is compressed to decide on the whole block.
    private static let sampleBytes = 64 << 10
    /// Compression must save at least one byte in this many to be worthwhile.
    private static let leastGain = 10

    /// Appends a block's bytes to `buffer`, compressed if a sample from the middle of the block compresses well: sparse and
    /// quantized data does, dense floating-point data does not.
    static func pack(_ bytes: UnsafeRawBufferPointer, elementWidth: Int, to buffer: inout ByteBuffer) -> BlockCodec {
        let middle = (bytes.count - min(bytes.count, sampleBytes)) / 2 / elementWidth * elementWidth
        let sample = UnsafeRawBufferPointer(rebasing: bytes[middle..<min(bytes.count, middle + sampleBytes)])
        var trial = ByteBuffer()
        if compress(sample, elementWidth: elementWidth, to: &trial), compress(bytes, elementWidth: elementWidth, to: &buffer) {
            return .lz4Planes
        }
        buffer.writeBytes(bytes)
        return .stored
    }

    /// - Returns: `false`, with nothing written, if compression gains too little.
    private static func compress(_ bytes: UnsafeRawBufferPointer, elementWidth: Int, to buffer: inout ByteBuffer) -> Bool {
        let limit = bytes.count - bytes.count / leastGain
        guard limit > 0 else { return false }
        return withUnsafeTemporaryAllocation(byteCount: bytes.count, alignment: 64) { planes in
            BytePlanes.split(bytes, elementWidth: elementWidth, into: planes)
            return buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: limit) { target in
                Int(
                    LZ4_compress_default(
                        planes.bindMemory(to: CChar.self).baseAddress, target.bindMemory(to: CChar.self).baseAddress,
                        Int32(bytes.count), Int32(limit)))
            } > 0
        }
    }
}

/// A block as it crossed the wire.
package struct PackedBlock: Sendable, Hashable {
    package let codec: BlockCodec
    /// The element width in bytes: the number of byte planes.
    package let elementWidth: UInt8
    /// Bytes after decompression.
    package let length: Int
    /// CRC-32C after decompression; 0 for a stored block.
    package let checksum: UInt32
    package let payload: ByteBuffer

    init(codec: BlockCodec, elementWidth: UInt8, length: Int, checksum: UInt32, payload: ByteBuffer) {
        self.codec = codec
        self.elementWidth = elementWidth
        self.length = length
        self.checksum = checksum
        self.payload = payload
    }

    /// Calls `body` with the decompressed bytes.
    ///
    /// - Throws: `protocolMismatch` unless the payload decompresses to exactly `length` bytes with that checksum. No more than
    ///   that is ever written.
    package func withUnpacked<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) throws -> Result {
        switch codec {
        case .stored:
            guard payload.readableBytes == length else { throw Self.lie(length, payload.readableBytes) }
            return try payload.withUnsafeReadableBytes(body)
        case .lz4Planes:
            let planes = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * length, alignment: 64)
            defer { planes.deallocate() }
            let size = payload.withUnsafeReadableBytes { packed in
                LZ4_decompress_safe(
                    packed.bindMemory(to: CChar.self).baseAddress, planes.bindMemory(to: CChar.self).baseAddress,
                    Int32(packed.count),
                    Int32(length))
            }
            guard Int(size) == length else { throw Self.lie(length, Int(size)) }
            let elements = UnsafeMutableRawBufferPointer(rebasing: planes[length...])
            BytePlanes.join(UnsafeRawBufferPointer(rebasing: planes[..<length]), elementWidth: Int(elementWidth), into: elements)
            guard CRC32C.checksum(UnsafeRawBufferPointer(elements)) == checksum else {
                throw TesseraError(.protocolMismatch, "a block that unpacks to other bytes than were packed")
            }
            return try body(UnsafeRawBufferPointer(elements))
        }
    }

    private static func lie(_ declared: Int, _ found: Int) -> TesseraError {
        TesseraError(
            .protocolMismatch,
            "a block that claims \(declared) bytes \(found < 0 ? "does not unpack" : "unpacks to \(found)")")
    }
}
