import CLinux
import Glibc

/// One part that is being written, at any offset and from any thread.
package final class OutputFile: Sendable {
    package let path: String
    /// Bytes.
    package let size: Int
    private let descriptor: Int32

    /// Creates the file.
    ///
    /// - Parameter reserve: whether its blocks are taken from the disk now, so that a lack of space shows at once.
    /// - Throws: `io` when there is too little space, or `notAllowed`.
    package init(creating path: String, size: Int, reserve: Bool) throws(TesseraError) {
        self.path = path
        self.size = size
        descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw .system(errno, "create", path) }
        var result = EOPNOTSUPP
        if reserve { result = reserve_space(descriptor, size) == 0 ? 0 : errno }
        if result == EOPNOTSUPP || result == EINVAL { result = ftruncate(descriptor, off_t(size)) == 0 ? 0 : errno }
        guard result == 0 else {
            close(descriptor)
            throw .system(result, "reserve \(size) bytes for", path)
        }
    }

    /// Opens a file that another process created, possibly on another host.
    ///
    /// - Throws: `inputMissing` when it is not there, `badData` when it is not of that size.
    package init(existing path: String, size: Int) throws(TesseraError) {
        self.path = path
        self.size = size
        // For writing alone: a network file system need not read the rest of a page that several hosts write to.
        descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { throw .system(errno, "open", path) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, Int(status.st_size) == size else {
            close(descriptor)
            throw TesseraError(.badData, "is not the output part of \(size) bytes that the coordinator created", file: path)
        }
    }

    deinit { close(descriptor) }

    /// Writes `bytes` at `offset`, and has the disk begin with them.
    ///
    /// - Throws: `io` when that fails; `internal` when they do not lie inside the file.
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(TesseraError) {
        guard offset >= 0, bytes.count <= size - offset else {
            throw TesseraError(.internal, "\(bytes.count) bytes at \(offset) lie outside the \(size) of the part", file: path)
        }
        guard var next = bytes.baseAddress else { return }
        var position = offset
        let end = offset + bytes.count
        while position < end {
            let written = pwrite(descriptor, next, end - position, off_t(position))
            if written > 0 {
                next += written
                position += written
            } else if errno != EINTR {
                throw .system(errno, "write", path)
            }
        }
        // Or the cache would fill with what the last fsync then has to wait for. Small pieces are better written together.
        if bytes.count >= 1 << 20 { begin_write_back(descriptor, offset, bytes.count) }
    }

    package func write(_ array: [UInt8], at offset: Int = 0) throws(TesseraError) {
        var failure: TesseraError?
        array.withUnsafeBytes { bytes in
            do throws(TesseraError) { try write(bytes, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Makes everything durable that this host wrote.
    package func sync() throws(TesseraError) {
        guard fsync(descriptor) == 0 else { throw .system(errno, "make durable", path) }
    }

    /// Whether several hosts can write to one page of the file without undoing each other's bytes.
    package var isShareable: Bool { fileSystem(of: descriptor) == .network }
}

/// Tells the kernel that runs here from that of any other machine, and of any other time; `nil` where it does not say. Processes
/// with the same one share their page cache.
package func kernelIdentity() -> String? {
    guard let bytes = try? readFile("/proc/sys/kernel/random/boot_id", maxBytes: 4096) else { return nil }
    return String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
}
