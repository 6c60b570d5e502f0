import Core
import NIOCore
import Synchronization

/// Buffer for one block for each thread that is writing one, of which no more is touched than a piece.
final class BlockBuffers: Sendable {
    private let idle = Mutex<[Buffer]>([])

    /// Owned by one thread at a time: whoever took it from `idle`.
    private final class Buffer: @unchecked Sendable {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: TreeDigest.blockSize, alignment: 4096)
        deinit { bytes.deallocate() }
    }

    func with<Result>(_ body: (UnsafeMutableRawPointer) throws -> Result) rethrows -> Result {
        let buffer = idle.withLock { $0.popLast() } ?? Buffer()
        defer { idle.withLock { $0.append(buffer) } }
        return try body(buffer.bytes)
    }
}

/// Memory of frames that have left, for the next ones.
final class FrameBuffers: Sendable {
    private let idle = Mutex<[ByteBuffer]>([])

    func take() -> ByteBuffer { idle.withLock { $0.popLast() } ?? ByteBuffer() }
    func giveBack(_ buffer: ByteBuffer) { idle.withLock { $0.append(buffer) } }
}
