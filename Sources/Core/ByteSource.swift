import CLinux
import Glibc

/// The bytes of a file, readable from several threads at once.
package protocol ByteSource: Sendable {
    /// Bytes.
    var size: Int { get }

    /// `FileStatus.identity` of the file when it was opened.
    var identity: String { get }

    /// Calls `body` with the bytes of `range`.
    ///
    /// - Parameter scratch: at least `range.count` bytes, used when the file is not mapped.
    /// - Throws: `badData` for a range outside the file, `io` if reading fails, and what `body` throws.
    func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result

    /// A copy of the bytes of `range`: for headers and small files, whose reader must outlive a file that is cut short under it.
    ///
    /// - Throws: `badData` for a range outside the file and for a file that ends before, `io` when reading fails.
    func bytes(_ range: Range<Int>) throws(TesseraError) -> [UInt8]

    /// The address of the bytes of `range`, valid for the lifetime of the source; `nil` if the file is not mapped or the range is
    /// outside it.
    func direct(_ range: Range<Int>) -> UnsafeRawPointer?

    // These have no default. A source that wraps another one and forgot them would keep its input mapped, the disk idle, and
    // changes of its input unseen.

    /// Checks that the file is what it was when it was opened, so that all bytes read since are of one version. To be called
    /// before a result counts: bytes read by `direct` may be zeros where a file was cut short.
    ///
    /// - Throws: `badData` for a file that was cut short or written to, `temporary` for one that may have been, `io` when a part
    ///   of it could not be read.
    func checkUnchanged() throws(TesseraError)

    /// Hints that the bytes of `range` will be read soon.
    func prefetch(_ range: Range<Int>)

    /// Hints that the bytes of `range` will probably not be read again. They stay readable, but reading them is slower.
    func release(_ range: Range<Int>)
}

extension ByteSource {
    /// Calls `body` with all bytes, piece by piece.
    ///
    /// - Throws: what reading and `body` throw; `badData` for a file that changes meanwhile.
    package func forEachPiece(_ body: ([UInt8]) throws(TesseraError) -> Void) throws(TesseraError) {
        let pieceBytes = 1 << 20
        for start in stride(from: 0, to: size, by: pieceBytes) { try body(bytes(start..<min(size, start + pieceBytes))) }
        try checkUnchanged()
    }

    package func direct(_ range: Range<Int>) -> UnsafeRawPointer? { nil }

    /// - Throws: `badData` unless `range` lies inside the source and, if the bytes are to be copied, fits `scratch`.
    package func check(_ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer?, file: String) throws(TesseraError) {
        guard range.lowerBound >= 0, range.upperBound <= size, range.count <= scratch?.count ?? .max else {
            throw TesseraError(
                .badData, "bytes \(range.lowerBound)..<\(range.upperBound) are out of range; the file has \(size) bytes",
                file: file)
        }
    }
}

/// A file's bytes: mapped on local file systems, read with `pread` on network file systems.
///
/// Page faults over a network are slow.
func openByteSource(_ file: ReadableFile) throws(TesseraError) -> any ByteSource {
    fileSystem(of: file.descriptor) == .local ? try MappedSource(file) : PreadSource(file)
}

/// A file mapped as a whole. Where the file loses pages under its readers they see zeros, and learn it afterwards.
package final class MappedSource: ByteSource, @unchecked Sendable {
    // Unchecked because of the pointers. Nobody writes to the memory, and it lives as long as the object.
    private let file: ReadableFile
    private let bytes: UnsafeRawBufferPointer
    /// `nil` for an empty file.
    private let mapping: OpaquePointer?

    package init(_ file: ReadableFile) throws(TesseraError) {
        self.file = file
        guard file.size > 0 else {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            mapping = nil
            return
        }
        guard let mapping = map_file(file.descriptor, file.size) else { throw .system(errno, "map", file.path) }
        self.mapping = mapping
        bytes = UnsafeRawBufferPointer(start: bytes_of(mapping), count: file.size)
        madvise(UnsafeMutableRawPointer(mutating: bytes.baseAddress), file.size, MADV_SEQUENTIAL)
    }

    deinit { if let mapping { unmap_file(mapping) } }

    package var size: Int { file.size }

    package var identity: String { file.version }

    package func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: nil, file: file.path)
        let result = try body(UnsafeRawBufferPointer(rebasing: bytes[range]))
        try checkPages()
        return result
    }

    package func checkUnchanged() throws(TesseraError) {
        try file.checkUnchanged()
        try checkPages()
    }

    /// - Throws: as `checkUnchanged`, if zeros were read in place of pages that were lost.
    private func checkPages() throws(TesseraError) {
        guard let mapping, is_damaged(mapping) != 0 else { return }
        try file.checkUnchanged()
        throw TesseraError(
            .io, "a part of the file could not be read while it was mapped", file: file.path,
            advice: "the disk may be failing: read the file, and look at the kernel's log")
    }

    /// By a system call, whose errors say what is wrong.
    package func bytes(_ range: Range<Int>) throws(TesseraError) -> [UInt8] {
        try check(range, scratch: nil, file: file.path)
        return try file.bytes(range)
    }

    package func direct(_ range: Range<Int>) -> UnsafeRawPointer? {
        guard range.lowerBound >= 0, range.upperBound <= size else { return nil }
        return bytes.baseAddress.map { $0 + range.lowerBound }
    }

    package func prefetch(_ range: Range<Int>) { file.prefetch(range) }

    /// Unmaps the pages that lie wholly in `range`, on the thread that read them. Otherwise a single thread would unmap the whole
    /// file at the end. A page at an end of `range` may hold bytes of a neighbour that is still in use.
    package func release(_ range: Range<Int>) {
        let page = Int(getpagesize())
        let first = (range.lowerBound + page - 1) / page * page, end = range.upperBound / page * page
        guard first >= 0, end <= size, first < end, let start = bytes.baseAddress else { return }
        madvise(UnsafeMutableRawPointer(mutating: start + first), end - first, MADV_DONTNEED)
    }
}

/// A file read with `pread` into the caller's scratch memory.
package final class PreadSource: ByteSource {
    private let file: ReadableFile

    package init(_ file: ReadableFile) { self.file = file }

    package var size: Int { file.size }

    package var identity: String { file.version }

    package func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: scratch, file: file.path)
        let target = UnsafeMutableRawBufferPointer(rebasing: scratch[..<range.count])
        try file.read(into: target, at: range.lowerBound)
        return try body(UnsafeRawBufferPointer(target))
    }

    package func checkUnchanged() throws(TesseraError) { try file.checkUnchanged() }

    package func prefetch(_ range: Range<Int>) { file.prefetch(range) }

    /// Does nothing: no bytes are kept.
    package func release(_ range: Range<Int>) {}
}
