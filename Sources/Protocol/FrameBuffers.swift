package import NIOCore
import Synchronization

/// Memory of the bodies of frames, reused for the next ones: new pages cost nearly as much as filling them.
package final class FrameBuffers: Sendable {
    private let idle = Mutex<[ByteBuffer]>([])
    private let limit: Int

    /// - Parameter limit: how many buffers are kept.
    package init(limit: Int = .max) { self.limit = limit }

    /// A buffer for the caller to clear, which gives the buffer other memory if somebody still reads its own.
    package func take() -> ByteBuffer { idle.withLock { $0.popLast() } ?? ByteBuffer() }

    package func giveBack(_ buffer: ByteBuffer) {
        idle.withLock { if $0.count < limit { $0.append(buffer) } }
    }
}
