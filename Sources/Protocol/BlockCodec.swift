import CLZ4
import Checkpoints
package import NIOCore
import TensorKernels

/// How the bytes of a block are packed.
package enum BlockCodec: UInt8, Sendable, Hashable {
    case stored = 0
    /// Split into byte planes, then LZ4.
    case lz4Planes = 1
}

/// A block as it crosses the wire.
package struct PackedBlock: Sendable, Hashable {
    package let codec: BlockCodec
    /// Bytes of an element, by which the planes are split.
    package let elementWidth: UInt8
    /// Bytes when unpacked.
    package let length: Int
    package let payload: ByteBuffer

    /// Bytes of the block that are tried before the whole is packed.
    private static let sampleBytes = 64 << 10
    /// Packing must save at least one byte in this many to be worth its time.
    private static let leastGain = 10

    init(codec: BlockCodec, elementWidth: UInt8, length: Int, payload: ByteBuffer) {
        self.codec = codec
        self.elementWidth = elementWidth
        self.length = length
        self.payload = payload
    }

    /// Packs a block if a sample from its middle says that it pays. Dense float data never does, sparse and quantized data does.
    package init(packing bytes: UnsafeRawBufferPointer, elementWidth: Int) {
        let middle = (bytes.count - min(bytes.count, Self.sampleBytes)) / 2 / elementWidth * elementWidth
        let sample = UnsafeRawBufferPointer(rebasing: bytes[middle..<min(bytes.count, middle + Self.sampleBytes)])
        self.elementWidth = UInt8(clamping: elementWidth)
        length = bytes.count
        if Self.compressed(sample, elementWidth: elementWidth) != nil,
            let packed = Self.compressed(bytes, elementWidth: elementWidth)
        {
            codec = .lz4Planes
            payload = packed
        } else {
            codec = .stored
            payload = ByteBuffer(bytes: bytes)
        }
    }

    /// Keeps the bytes as they are.
    package init(storing bytes: UnsafeRawBufferPointer) {
        codec = .stored
        elementWidth = 1
        length = bytes.count
        payload = ByteBuffer(bytes: bytes)
    }

    /// The bytes after packing, or `nil` when that gains too little.
    private static func compressed(_ bytes: UnsafeRawBufferPointer, elementWidth: Int) -> ByteBuffer? {
        let room = bytes.count - bytes.count / leastGain
        guard room > 0 else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: bytes.count, alignment: 64) { planes in
            BytePlanes.split(bytes, elementWidth: elementWidth, into: planes)
            var packed = ByteBuffer()
            var size: Int32 = 0
            packed.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { target in
                size = LZ4_compress_default(
                    planes.bindMemory(to: CChar.self).baseAddress, target.bindMemory(to: CChar.self).baseAddress,
                    Int32(bytes.count),
                    Int32(room))
                return Int(size)
            }
            return size > 0 ? packed : nil
        }
    }

    /// Calls `body` with the block's own bytes.
    ///
    /// - Throws: `protocolMismatch` when the payload does not unpack to exactly `length` bytes, which are also the most that is written.
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
            return try body(UnsafeRawBufferPointer(elements))
        }
    }

    private static func lie(_ declared: Int, _ found: Int) -> TesseraError {
        TesseraError(.protocolMismatch, "a block that claims \(declared) bytes unpacks to \(found)")
    }
}
