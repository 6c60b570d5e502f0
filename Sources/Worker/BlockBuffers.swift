import Core
import NIOCore
import Synchronization

/// One block-sized buffer per writing thread. No more than a piece of each is touched.
final class BlockBuffers: Sendable {
    private let idle = Mutex<[Buffer]>([])

    /// Owned by the thread that took the buffer from `idle`.
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

/// Memory of sent frames, reused for the next ones.
final class FrameBuffers: Sendable {
    private let idle = Mutex<[ByteBuffer]>([])

    func take() -> ByteBuffer { idle.withLock { $0.popLast() } ?? ByteBuffer() }
    func giveBack(_ buffer: ByteBuffer) { idle.withLock { $0.append(buffer) } }
}
