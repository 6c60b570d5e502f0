import Core
package import Operators

/// How a computing process divides its memory (`--memory`). The coordinator knows it too: it says with which memory a worker
/// could do a shard.
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

    /// The smallest `--memory`, in bytes.
    package static let smallest = 64 << 20

    /// For the program itself, its messages and the plan of a job.
    private static let program = 16 << 20

    /// For the block that each thread fills, and the buffer in which it is compressed.
    private var blocks: Int { (isConnected ? 2 : 1) * threads * TreeDigest.blockSize }

    /// For blocks in flight to the coordinator: an eighth of a small memory, but at least one block.
    package var underWay: Int {
        isConnected ? min(Limits.creditBytes, max(Limits.headerBytes + Limits.dataBodyBytes, total / 8)) : 0
    }

    /// For fetched input, including pieces in flight.
    package var fetched: Int { isConnected ? total / 4 : 0 }

    /// Bytes left for the tensors being computed.
    package var tensors: Int { max(0, total - fixed) }

    private var fixed: Int { Self.program + blocks + underWay + fetched }

    /// Whether there is enough for a tensor with that need.
    package func holds(_ need: MemoryNeed) -> Bool { tensors > 0 && need.byteCount(threads: threads) <= tensors }

    /// The least memory that holds the need, in bytes: a whole number of megabytes, as users type it.
    ///
    /// - Parameters:
    ///   - need: of the largest tensor.
    ///   - threads: up to `Limits.threads`.
    ///   - isConnected: of a worker; otherwise of a run on one machine.
    /// - Returns: `nil` where no memory within `Limits.byteCount` would do.
    package static func least(for need: MemoryNeed, threads: Int, isConnected: Bool) -> Int? {
        func holds(_ megabytes: Int) -> Bool {
            WorkerMemory(total: megabytes * megabyte, threads: threads, isConnected: isConnected).holds(need)
        }
        // Of a whole number of megabytes, more leave more for tensors: the shares are a quarter and an eighth.
        var low = (smallest + megabyte - 1) / megabyte, high = Limits.byteCount / megabyte
        guard holds(high) else { return nil }
        while low < high {
            let middle = (low + high) / 2
            if holds(middle) { high = middle } else { low = middle + 1 }
        }
        return high * megabyte
    }

    private static let megabyte = 1_000_000

    /// The option as it is typed: `--memory 276MB`.
    ///
    /// - Parameter bytes: as `least` has them.
    package static func option(_ bytes: Int) -> String { "--memory \(bytes / megabyte)MB" }

    /// The options of a process that holds the need, with so many threads or with one:
    /// `--memory 276MB or more, or with --threads 1 and --memory 180MB`; `nil` where none would do.
    package static func options(for need: MemoryNeed, threads: Int, isConnected: Bool) -> String? {
        func option(_ threads: Int) -> String? {
            least(for: need, threads: threads, isConnected: isConnected).map { Self.option($0) }
        }
        let own = option(threads).map { "\($0) or more" }
        let single = threads > 1 ? option(1).map { "--threads 1 and \($0)" } : nil
        let options = [own, single].compactMap(\.self)
        return options.isEmpty ? nil : options.joined(separator: ", or with ")
    }
}
