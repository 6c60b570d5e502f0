package import NIOCore
import TensorKernels

/// Splits a byte stream into frames as pieces of it arrive.
///
/// The decoder keeps at most one frame, and allocates nothing for its body before the header's checksum holds and the length is
/// within `limits`. A body is copied once, or not at all if it arrived in one piece.
package struct FrameDecoder: Sendable {
    private var header: FrameHeader?
    /// The received prefix of a header or body.
    private var kept = ByteBuffer()
    /// CRC-32C of the body so far, computed while the bytes are in cache.
    private var checksum: UInt32 = 0
    private var nextSequence: UInt64 = 0

    package var limits: FrameLimits

    /// Memory for large bodies; `nil` for new memory.
    private let buffers: FrameBuffers?

    package init(limits: FrameLimits = .all, buffers: FrameBuffers? = nil) {
        self.limits = limits
        self.buffers = buffers
    }

    /// Bytes of the body of the frame that has begun, once its header is known.
    package var unfinishedBytes: Int { header?.bodyLength ?? 0 }

    /// Whether the bytes so far end within a frame.
    package var isWithinFrame: Bool { header != nil || kept.readableBytes > 0 }

    /// Takes the next frame that ends in `piece`; returns `nil` once the rest of `piece` has been buffered.
    package mutating func next(in piece: inout ByteBuffer) throws(FrameError) -> Frame? {
        if header == nil {
            guard var bytes = take(Limits.headerBytes, from: &piece) else {
                // What does not speak the protocol may wait for an answer after less than a header.
                var beginning = kept
                _ = try FrameHeader(readFrom: &beginning)
                return nil
            }
            header = try FrameHeader(readFrom: &bytes)
            if let header { try limits.check(header.type, bodyLength: header.bodyLength) }
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
        if isWithinFrame { throw FrameError.truncated }
    }

    private mutating func take(_ length: Int, from piece: inout ByteBuffer) -> ByteBuffer? {
        if kept.readableBytes == 0 {
            checksum = 0
            if let whole = piece.readSlice(length: length) {
                checksum = CRC32C.checksum(whole)
                return whole
            }
            if length > Limits.uncountedFrameBytes { kept = buffers?.take() ?? ByteBuffer() }
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

    /// Writes the frame's header; the body follows unchanged.
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
