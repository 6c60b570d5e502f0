import Core
package import Operators
import Protocol

/// How a process that computes shares out its memory (`--memory`).
///
/// Inputs that are mapped are not counted: the kernel takes their pages back when it needs them.
package struct WorkerMemory: Sendable {
    /// Bytes.
    package let total: Int
    package let threads: Int
    /// Whether a coordinator on another process or host is worked for.
    private let isConnected: Bool

    package init(total: Int, threads: Int, isConnected: Bool) {
        self.total = total
        self.threads = threads
        self.isConnected = isConnected
    }

    /// For the program itself, its messages and the plan of a job.
    private static let program = 16 << 20

    /// For the block that each thread fills, and buffer to pack it.
    private var blocks: Int { (isConnected ? 2 : 1) * threads * TreeDigest.blockSize }

    /// For blocks that are on their way to the coordinator: of a small memory an eighth, but at least one.
    var underWay: Int { isConnected ? min(Limits.creditBytes, max(Limits.headerBytes + Limits.dataBodyBytes, total / 8)) : 0 }

    /// For fetched input, with what is just coming in.
    private var fetched: Int { isConnected ? total / 4 : 0 }

    /// Bytes of a piece of fetched input, a power of two: so few that each thread can have pieces of all models of a merge at
    /// once, lest each be fetched again for every tile.
    var fetchPiece: Int {
        let most = min(FetchCache.largestPiece, max(Self.smallestPiece, fetched / (threads * Self.piecesPerThread)))
        return 1 << (Int.bitWidth - 1 - most.leadingZeroBitCount)
    }

    private static let piecesPerThread = 32, smallestPiece = 64 << 10

    /// What may be kept of fetched input. A piece that a thread asked for is there as a frame and as itself.
    var fetchCache: Int { max(0, fetched - 2 * threads * fetchPiece) }

    /// What is left for the tensors at work.
    package var tensors: Int { max(0, total - fixed) }

    private var fixed: Int { Self.program + blocks + underWay + fetched }

    /// The least memory with which so many threads can do a job on one machine that needs so much for a tensor.
    package static func least(for need: MemoryNeed, threads: Int) -> Int {
        WorkerMemory(total: 0, threads: threads, isConnected: false).fixed + need.byteCount(threads: threads)
    }
}
