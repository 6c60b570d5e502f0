package import Core
import Dispatch
package import Operators
import Synchronization

/// Bytes in memory, handed out through the caller's scratch as `pread` would.
package struct Memory: ByteSource {
    package let bytes: [UInt8]

    package init(bytes: [UInt8]) { self.bytes = bytes }

    package var size: Int { bytes.count }
    package let identity = "memory"

    package func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: scratch, file: "memory")
        scratch.copyBytes(from: bytes[range])
        return try body(UnsafeRawBufferPointer(rebasing: scratch[..<range.count]))
    }

    package func checkUnchanged() throws(TesseraError) {}
    package func prefetch(_ range: Range<Int>) {}
    package func release(_ range: Range<Int>) {}
}

package final class Collector: BlockSink {
    private let blocks = Mutex<[Int: [UInt8]]>([:])

    package init() {}

    package func writeBlocks(
        _ blocks: BlockPair, step: Int, fill: (Range<Int>, UnsafeMutableRawPointer) throws -> Void
    ) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blocks.byteRange.count, alignment: 64)
        defer { buffer.deallocate() }
        guard let start = buffer.baseAddress else { return }
        // In turns, as the real ones do.
        for offset in stride(from: 0, to: blocks.first.count, by: step) {
            for block in [blocks.first, blocks.second] where block.lowerBound + offset < block.upperBound {
                let lower = block.lowerBound + offset
                try fill(
                    lower..<min(block.upperBound, lower + step), start + (lower - blocks.byteRange.lowerBound))
            }
        }
        try storeBlocks(blocks, UnsafeRawBufferPointer(buffer))
    }

    package func storeBlocks(_ blocks: BlockPair, _ bytes: UnsafeRawBufferPointer) throws {
        let parts = [(blocks.index, bytes.prefix(blocks.first.count)), (blocks.index + 1, bytes.dropFirst(blocks.first.count))]
        for (index, part) in parts where !part.isEmpty { try keep(index, Array(part)) }
    }

    package func storeBlock(_ index: Int, offset: Int, _ bytes: UnsafeRawBufferPointer, digest: Digest) throws {
        guard try Digest.sha256(of: Array(bytes)) == digest else {
            throw TesseraError(.internal, "block \(index) has another digest")
        }
        try keep(index, Array(bytes))
    }

    private func keep(_ index: Int, _ bytes: [UInt8]) throws {
        let isNew = blocks.withLock { $0.updateValue(bytes, forKey: index) == nil }
        if !isNew { throw TesseraError(.internal, "block \(index) was written twice") }
    }

    package func bytes(count: Int) throws -> [UInt8] {
        let all = blocks.withLock { blocks in blocks.keys.sorted().flatMap { blocks[$0] ?? [] } }
        guard all.count == count else { throw TesseraError(.internal, "\(all.count) of \(count) bytes were written") }
        return all
    }
}

// MARK: Runners

package struct InOrder: ParallelRunner {
    package let threads = 1

    package init() {}

    package func checkCancellation() {}

    package func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        for index in 0..<count { try body(index) }
    }
}

package struct Backwards: ParallelRunner {
    package let threads = 1

    package init() {}

    package func checkCancellation() {}

    package func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        for index in (0..<count).reversed() { try body(index) }
    }
}

/// Really at once, in whatever order it happens.
package struct AtOnce: ParallelRunner {
    package let threads = 4

    package init() {}

    package func checkCancellation() {}

    package func forEach(_ count: Int, atOnce limit: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        let failure = Mutex<(any Error)?>(nil), next = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: min(count, limit)) { _ in
            while case let index = next.wrappingAdd(1, ordering: .relaxed).oldValue, index < count {
                do { try body(index) } catch { failure.withLock { $0 = error } }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
    }
}
