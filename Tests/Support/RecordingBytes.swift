package import Core
import Synchronization

/// Bytes in memory that note what is read of them, what is asked for ahead, and what is released.
package final class RecordingBytes: ByteSource, @unchecked Sendable {
    // Unchecked because of the pointer: to memory that nobody writes and that lives as long as the object.
    package struct Notes: Sendable {
        /// Every read, in order.
        package var reads: [Range<Int>] = []
        /// What was read and not released since: what a mapping would keep in memory.
        package var mapped = RangeSet<Int>()
        package var prefetched = RangeSet<Int>()
        package var released = RangeSet<Int>()
    }

    package let size: Int
    package let identity = "recorded"
    private let bytes: UnsafeMutableRawBufferPointer
    /// Whether readers may keep pointers to the bytes, as they may of a mapping.
    private let isDirect: Bool
    private let recorded = Mutex(Notes())

    package init(_ contents: [UInt8], isDirect: Bool = true) {
        size = contents.count
        self.isDirect = isDirect
        bytes = .allocate(byteCount: contents.count, alignment: 64)
        bytes.copyBytes(from: contents)
    }

    deinit { bytes.deallocate() }

    package var notes: Notes { recorded.withLock { $0 } }

    private func note(read range: Range<Int>) {
        recorded.withLock { notes in
            notes.reads.append(range)
            notes.mapped.insert(contentsOf: range)
        }
    }

    package func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: scratch, file: identity)
        note(read: range)
        return try body(UnsafeRawBufferPointer(rebasing: bytes[range]))
    }

    package func direct(_ range: Range<Int>) -> UnsafeRawPointer? {
        guard isDirect, range.lowerBound >= 0, range.upperBound <= size else { return nil }
        note(read: range)
        return bytes.baseAddress.map { UnsafeRawPointer($0) + range.lowerBound }
    }

    package func checkUnchanged() throws(TesseraError) {}

    package func prefetch(_ range: Range<Int>) { recorded.withLock { $0.prefetched.insert(contentsOf: range) } }

    package func release(_ range: Range<Int>) {
        recorded.withLock { notes in
            notes.released.insert(contentsOf: range)
            notes.mapped.remove(contentsOf: range)
        }
    }
}
