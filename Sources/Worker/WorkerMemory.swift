import Core
package import Operators
import Protocol

/// How a computing process divides its memory (`--memory`).
///
/// Mapped inputs are not counted: the kernel reclaims their pages when it needs them.
package struct WorkerMemory: Sendable {
    /// Bytes.
    package let total: Int
    package let threads: Int
    /// Whether the coordinator is another process or host.
    private let isConnected: Bool

    package init(total: Int, threads: Int, isConnected: Bool) {
        self.total = total
        self.threads = threads
        self.isConnected = isConnected
    }

    /// For the program itself, its messages and the plan of a job.
    private static let program = 16 << 20

    /// For the block that each thread fills, and the buffer in which it is compressed.
    private var blocks: Int { (isConnected ? 2 : 1) * threads * TreeDigest.blockSize }

    /// For blocks in flight to the coordinator: an eighth of a small memory, but at least one block.
    var underWay: Int { isConnected ? min(Limits.creditBytes, max(Limits.headerBytes + Limits.dataBodyBytes, total / 8)) : 0 }

    /// For fetched input, including pieces in flight.
    private var fetched: Int { isConnected ? total / 4 : 0 }

    /// Bytes of a piece of fetched input, a power of two. Small enough that every thread can hold pieces of all models of a merge
    /// at once; otherwise each would be fetched again for every tile.
    var fetchPiece: Int {
        let most = min(FetchCache.largestPiece, max(Self.smallestPiece, fetched / (threads * Self.piecesPerThread)))
        return 1 << (Int.bitWidth - 1 - most.leadingZeroBitCount)
    }

    private static let piecesPerThread = 32, smallestPiece = 64 << 10

    /// The bytes of fetched input that may be cached. A piece that just arrived is in memory twice, as a frame and as a piece.
    var fetchCache: Int { max(0, fetched - 2 * threads * fetchPiece) }

    /// Bytes left for the tensors being computed.
    package var tensors: Int { max(0, total - fixed) }

    private var fixed: Int { Self.program + blocks + underWay + fetched }

    /// The least memory for `threads` threads on one machine, given the need of the largest tensor.
    package static func least(for need: MemoryNeed, threads: Int) -> Int {
        WorkerMemory(total: 0, threads: threads, isConnected: false).fixed + need.byteCount(threads: threads)
    }
}
