import CLinux
import Glibc

/// An output part being written, at any offset and from any thread.
package final class OutputFile: Sendable {
    package let path: String
    /// Bytes.
    package let size: Int
    /// The same as long as the name stands for the same file.
    let identity: FileIdentity
    private let descriptor: Int32

    /// Creates the file.
    ///
    /// - Parameter reserve: whether to allocate all disk blocks now, so that a full disk is noticed at once.
    /// - Throws: `io` if there is too little space, or `notAllowed`.
    package init(
        creating name: String, in directory: Directory, size: Int, reserve: Bool
    ) throws(TesseraError) {
        path = FilePath.join(directory.path, name)
        self.size = size
        descriptor = try directory.open(name, O_RDWR | O_CREAT | O_EXCL, mode: 0o666)
        guard let identity = FileIdentity(of: descriptor) else {
            let number = errno
            close(descriptor)
            throw .system(number, "examine", path)
        }
        self.identity = identity
        var result = EOPNOTSUPP
        if reserve { result = reserve_space(descriptor, size) == 0 ? 0 : errno }
        if result == EOPNOTSUPP || result == EINVAL { result = ftruncate(descriptor, off_t(size)) == 0 ? 0 : errno }
        guard result == 0 else {
            // What was reserved before the disk was full is free again.
            _ = ftruncate(descriptor, 0)
            let error = TesseraError.cannotReserve(size, for: path, on: descriptor, result)
            close(descriptor)
            throw error
        }
    }

    /// Opens a file that another process created, possibly on another host.
    ///
    /// - Throws: `inputMissing` if the file does not exist, `badData` if its size is not `size`.
    package init(existing name: String, in directory: Directory, size: Int) throws(TesseraError) {
        path = FilePath.join(directory.path, name)
        self.size = size
        // Write-only, so that a network file system need not read the rest of a page that several hosts write to.
        descriptor = try directory.open(name, O_WRONLY | O_NONBLOCK)
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, Int(status.st_size) == size,
            let identity = FileIdentity(of: descriptor)
        else {
            close(descriptor)
            throw TesseraError(.badData, "is not the output part of \(size) bytes that the coordinator created", file: path)
        }
        self.identity = identity
    }

    deinit { close(descriptor) }

    /// Writes `bytes` at `offset` and starts write-back.
    ///
    /// - Throws: `io` if writing fails; `internal` if the bytes do not fit the file.
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(TesseraError) {
        guard offset >= 0, bytes.count <= size - offset else {
            throw TesseraError(
                .internal, "writing \(bytes.count) bytes at offset \(offset) would exceed the part's \(size) bytes", file: path)
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
        // Without early write-back the final fsync would have to wait for all dirty pages. Small writes are better batched.
        if bytes.count >= 1 << 20 { begin_write_back(descriptor, offset, bytes.count) }
    }

    package func write(_ array: [UInt8], at offset: Int = 0) throws(TesseraError) {
        var failure: TesseraError?
        array.withUnsafeBytes { bytes in
            do throws(TesseraError) { try write(bytes, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Makes everything that this host wrote durable.
    package func sync() throws(TesseraError) {
        guard fsync(descriptor) == 0 else { throw .system(errno, "sync", path) }
    }

    /// Whether several hosts can write to the same page of the file without overwriting each other's bytes.
    package var isShareable: Bool { fileSystem(of: descriptor) == .network }
}

/// Identifies this boot of this machine's kernel; `nil` if unknown. Processes with the same identity share a page cache.
package func kernelIdentity() -> String? {
    let descriptor = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    // Files of /proc state a size of 0, so the file is read up to its end.
    var bytes = [UInt8](repeating: 0, count: 64)
    let count = read(descriptor, &bytes, bytes.count)
    guard count > 0 else { return nil }
    return String(decoding: bytes.prefix(count).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
}
