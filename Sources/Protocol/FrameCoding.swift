package import NIOCore
import TensorKernels

/// Cuts a byte stream into frames, from pieces as they arrive.
///
/// The decoder keeps at most one frame, and allocates nothing for its body before the header's checksum holds and the length is
/// within `limits`. A body is copied once, or not at all if it arrived in one piece.
package struct FrameDecoder: Sendable {
    private var header: FrameHeader?
    /// The beginning of the header, or of its body.
    private var kept = ByteBuffer()
    /// Of the bytes taken so far, computed while they are in cache.
    private var checksum: UInt32 = 0
    private var nextSequence: UInt64 = 0

    package var limits: FrameLimits

    package init(limits: FrameLimits = .all) { self.limits = limits }

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
