import Core
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
