import Glibc

/// Read access to the bytes of a file, from several threads at once.
package protocol ByteSource: Sendable {
    /// Bytes.
    var size: Int { get }

    /// `FileStatus.identity` of the file when it was opened.
    var identity: String { get }

    /// Calls `body` with the bytes of `range`.
    ///
    /// - Parameter scratch: buffer for at least `range.count` bytes, used when the bytes are not in memory already.
    /// - Throws: `badData` for a range outside the file, `io` when reading fails, and what `body` throws.
    func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result

    /// A copy of the bytes of `range`: for headers and small files, whose reader must outlive a file that is cut short under it.
    ///
    /// - Throws: `badData` for a range outside the file and for a file that ends before, `io` when reading fails.
    func bytes(_ range: Range<Int>) throws(TesseraError) -> [UInt8]

    /// Where the bytes of `range` lie for as long as the source does; `nil` when they are not in memory, or not in the file.
    func direct(_ range: Range<Int>) -> UnsafeRawPointer?

    /// Says that the bytes of `range` will be read soon.
    func prefetch(_ range: Range<Int>)

    /// Says that the bytes of `range` will hardly be read again. Nothing is lost where they are.
    func release(_ range: Range<Int>)
}

extension ByteSource {
    package func direct(_ range: Range<Int>) -> UnsafeRawPointer? { nil }
    package func release(_ range: Range<Int>) {}
    package func prefetch(_ range: Range<Int>) {}

    /// - Throws: `badData` unless `range` lies inside the source and, when it has to be copied, inside `scratch`.
    package func check(_ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer?, file: String) throws(TesseraError) {
        guard range.lowerBound >= 0, range.upperBound <= size, range.count <= scratch?.count ?? .max else {
            throw TesseraError(
                .badData, "bytes \(range.lowerBound)..<\(range.upperBound) lie outside the \(size) bytes that can be read",
                file: file)
        }
    }
}

/// Opens a file for reading: mapped where that is fast and safe, read piece by piece on network file systems.
///
/// Faulting pages in over a network is slow, and a file truncated there kills the process that maps it.
package func openByteSource(path: String) throws(TesseraError) -> any ByteSource {
    let file = try ReadableFile(path)
    return fileSystem(of: file.descriptor) == .local ? try MappedSource(file) : PreadSource(file)
}

/// Whole-file mapping.
package final class MappedSource: ByteSource, @unchecked Sendable {
    // Unchecked because of the pointer: to memory that nobody writes and that lives as long as the object.
    private let file: ReadableFile
    private let bytes: UnsafeRawBufferPointer

    package init(_ file: ReadableFile) throws(TesseraError) {
        self.file = file
        guard file.size > 0 else {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let start = mmap(nil, file.size, PROT_READ, MAP_SHARED, file.descriptor, 0), start != MAP_FAILED else {
            throw .system(errno, "map", file.path)
        }
        madvise(start, file.size, MADV_SEQUENTIAL)
        bytes = UnsafeRawBufferPointer(start: start, count: file.size)
    }

    deinit {
        if let start = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: start), bytes.count) }
    }

    package var size: Int { file.size }

    package var identity: String { file.version }

    package func withBytes<Result>(
        _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try check(range, scratch: nil, file: file.path)
        return try body(UnsafeRawBufferPointer(rebasing: bytes[range]))
    }

    /// By a system call: touching pages that a truncated file no longer has kills the process.
    package func bytes(_ range: Range<Int>) throws(TesseraError) -> [UInt8] {
        try check(range, scratch: nil, file: file.path)
        return try file.bytes(range)
    }

    package func direct(_ range: Range<Int>) -> UnsafeRawPointer? {
        guard range.lowerBound >= 0, range.upperBound <= size else { return nil }
        return bytes.baseAddress.map { $0 + range.lowerBound }
    }

    package func prefetch(_ range: Range<Int>) { file.prefetch(range) }

    /// Unmaps whole pages now, on whichever thread read them, which would else be done at the end by one thread alone.
    package func release(_ range: Range<Int>) {
        let page = Int(getpagesize())
        let first = (range.lowerBound + page - 1) / page * page, end = range.upperBound / page * page
        guard first >= 0, end <= size, first < end, let start = bytes.baseAddress else { return }
        madvise(UnsafeMutableRawPointer(mutating: start + first), end - first, MADV_DONTNEED)
    }
}

/// Reads with `pread` into the caller's scratch.
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

    package func prefetch(_ range: Range<Int>) { file.prefetch(range) }
}
