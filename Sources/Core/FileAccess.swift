import CLinux
import Glibc

extension TesseraError {
    /// A failed system call: `verb` completes "cannot ... FILE". A file below a directory that may not be entered is that
    /// directory's error.
    package static func system(_ number: Int32, _ verb: String, _ path: String) -> TesseraError {
        let reason = String(cString: strerror(number))
        if number == EACCES, let closed = closedDirectory(above: path) {
            return TesseraError(
                .notAllowed, "cannot enter the directory: \(reason)", file: closed, advice: "check the permissions")
        }
        let (code, advice): (Code, String?) =
            switch number {
            case ENOENT, ENOTDIR: (.inputMissing, nil)
            case EACCES, EPERM: (.notAllowed, "check the permissions")
            case EROFS: (.io, "make the file system writable again")
            case ENOSPC, EDQUOT: (.io, "free some space")
            case EFBIG: (.io, "the file system or a process limit (ulimit -f) does not allow files of this size")
            default: (.io, nil)
            }
        return TesseraError(code, "cannot \(verb) the file: \(reason)", file: path, advice: advice)
    }

    /// A directory could not be made in another one.
    package static func cannotWrite(into directory: String, _ number: Int32) -> TesseraError {
        // Some file systems of the kernel, such as /proc, say so.
        let takesNone = number == ENOENT && access(directory, F_OK) == 0
        return TesseraError(
            .cannotCreate,
            "cannot write into the directory: "
                + (takesNone ? "its file system takes no new directories" : String(cString: strerror(number))),
            file: directory, advice: "choose another place, or check that it exists and its permissions")
    }

    /// Space for a file could not be reserved.
    ///
    /// - Parameter descriptor: of a file or directory there.
    static func cannotReserve(_ bytes: Int, for path: String, on descriptor: Int32, _ number: Int32) -> TesseraError {
        var error = TesseraError.system(number, "reserve \(Quantity.bytes(bytes)) for", path), status = statfs()
        guard number == ENOSPC, fstatfs(descriptor, &status) == 0 else { return error }
        let (free, isMore) = Int(clamping: status.f_bavail).multipliedReportingOverflow(by: Int(status.f_bsize))
        if !isMore { error.problem += " (\(Quantity.bytes(free)) free)" }
        return error
    }

    /// The outermost directory above the path that this process may not enter.
    private static func closedDirectory(above path: String) -> String? {
        var closed: String?, directory = FilePath.parent(of: path)
        while directory != "/", directory != "." {
            if access(directory, X_OK) != 0, errno == EACCES { closed = directory }
            directory = FilePath.parent(of: directory)
        }
        return closed
    }

    /// Converts any error into one that can be shown to a user.
    package init(wrapping error: any Error) {
        switch error {
        case let error as TesseraError: self = error
        case is CancellationError: self.init(.cancelled, "cancelled")
        default: self.init(.internal, "\(error)")
        }
    }
}

/// A regular file, open for reading at any offset.
package final class ReadableFile: Sendable {
    package let path: String
    /// The size in bytes when the file was opened.
    package let size: Int
    /// Changes when the file is replaced or written to. Meaningful on this host only.
    package let version: String
    let descriptor: Int32
    private let stamp: Stamp

    /// What changes with a file's contents.
    private struct Stamp {
        let size: Int
        let modified: timespec
        /// Also when the contents change and the time of that is then set back; and with the number of names.
        let changed: timespec
        let names: nlink_t

        init(_ status: stat) {
            size = Int(status.st_size)
            modified = status.st_mtim
            changed = status.st_ctim
            names = status.st_nlink
        }
    }

    /// Without `O_NONBLOCK`, opening a FIFO would block until a writer appears.
    private static let flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK

    /// - Throws: `inputMissing`, `notAllowed` or `io`; `badData` if it is not a regular file.
    package convenience init(_ path: String) throws(TesseraError) {
        let descriptor = open(path, Self.flags)
        guard descriptor >= 0 else { throw .system(errno, "open", path) }
        try self.init(descriptor: descriptor, path: path)
    }

    /// Opens a file below a directory, reached without a link.
    ///
    /// - Parameter path: for errors; `nil` for the directory's path and `relative`.
    package convenience init(_ relative: String, in directory: Directory, path: String? = nil) throws(TesseraError) {
        try self.init(
            descriptor: try directory.open(relative, Self.flags), path: path ?? FilePath.join(directory.path, relative))
    }

    private init(descriptor: Int32, path: String) throws(TesseraError) {
        self.descriptor = descriptor
        self.path = path
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let number = errno
            close(descriptor)
            throw .system(number, "examine", path)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            let isDirectory = status.st_mode & S_IFMT == S_IFDIR
            throw TesseraError(.badData, "is \(isDirectory ? "a directory, not a file" : "not a regular file")", file: path)
        }
        size = Int(status.st_size)
        version = Self.version(status)
        stamp = Stamp(status)
    }

    /// Without the number of the device, which is another each time that a file system is mounted.
    fileprivate static func version(_ status: stat) -> String {
        "\(status.st_ino)-\(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
    }

    deinit { close(descriptor) }

    /// Starts reading `range` into the page cache without waiting. Costs next to nothing if the bytes are already cached.
    func prefetch(_ range: Range<Int>) {
        guard range.lowerBound >= 0, range.upperBound <= size, let last = range.last else { return }
        let isCached = [range.lowerBound, range.lowerBound + range.count / 2, last].allSatisfy { is_cached(descriptor, $0) != 0 }
        if !isCached { posix_fadvise(descriptor, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_WILLNEED) }
    }

    /// - Throws: `badData` for a file that was cut short or written to since it was opened, `temporary` for one that may have
    ///   been: its time of change is another, although neither the time of its contents nor the number of its names is. Names
    ///   come and go without the contents: a file that is replaced by another keeps its own.
    func checkUnchanged() throws(TesseraError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system(errno, "examine", path) }
        let now = Stamp(status)
        guard now.size >= stamp.size else {
            throw TesseraError(
                .badData, "was cut short from \(stamp.size) to \(now.size) bytes while it was read", file: path,
                advice: "copy the file again, and make sure that nobody writes the inputs during a merge")
        }
        guard now.size == stamp.size, now.modified == stamp.modified else {
            throw TesseraError(
                .badData, "was written to while it was read", file: path,
                advice: "make sure that nobody writes the inputs during a merge, and run it again")
        }
        guard now.changed == stamp.changed || now.names != stamp.names else {
            throw TesseraError(
                .temporary, "may have been written to while it was read: its status was changed", file: path,
                advice: "make sure that nobody writes the inputs during a merge, and run it again")
        }
    }

    /// Reads the bytes of `range`.
    package func bytes(_ range: Range<Int>) throws(TesseraError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: range.count)
        var failure: TesseraError?
        bytes.withUnsafeMutableBytes { target in
            do throws(TesseraError) { try read(into: target, at: range.lowerBound) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Fills `target` with the bytes starting at `offset`.
    ///
    /// - Throws: `badData` if the file is too short, `io` if reading fails.
    package func read(into target: UnsafeMutableRawBufferPointer, at offset: Int) throws(TesseraError) {
        var done = 0
        while done < target.count {
            guard let next = target.baseAddress else { return }
            let count = pread(descriptor, next + done, target.count - done, off_t(offset + done))
            if count > 0 {
                done += count
            } else if count == 0 {
                throw TesseraError(
                    .badData, "ends at byte \(offset + done); \(target.count - done) more bytes were expected",
                    file: path)
            } else if errno != EINTR {
                throw .system(errno, "read \(target.count) bytes at offset \(offset) of", path)
            }
        }
    }
}

extension timespec {
    fileprivate static func == (left: timespec, right: timespec) -> Bool {
        left.tv_sec == right.tv_sec && left.tv_nsec == right.tv_nsec
    }
}

/// Reads a file that holds a secret, such as a token or a private key.
///
/// - Throws: `notAllowed` if users other than the owner and the owner's group can read the file, or others than the owner can
///   change it; `badData` if it is larger than 64 KiB; `inputMissing` or `io`.
package func readSecret(_ path: String) throws(TesseraError) -> [UInt8] {
    let file = try ReadableFile(path)
    var status = stat()
    guard fstat(file.descriptor, &status) == 0 else { throw .system(errno, "examine", path) }
    // Readable by the group, since that is how Kubernetes mounts secrets for other users than root.
    guard status.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO) == 0 else {
        throw TesseraError(
            .notAllowed, "other users can read or change this secret (mode \(String(status.st_mode & 0o777, radix: 8)))",
            file: path, advice: "run: chmod 600 \(path)")
    }
    guard file.size <= 64 << 10 else { throw TesseraError(.badData, "is too large for a secret: \(file.size) bytes", file: path) }
    return try file.bytes(0..<file.size)
}

/// Creates or replaces a small file.
package func writeFile(_ path: String, _ bytes: [UInt8]) throws(TesseraError) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw .system(errno, "create", path) }
    defer { close(descriptor) }
    try writeAll(bytes, to: descriptor, path: path)
}

/// - Parameter path: for errors.
func writeAll(_ bytes: [UInt8], to descriptor: Int32, path: String) throws(TesseraError) {
    var done = 0
    while done < bytes.count {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress.map { $0 + done }, bytes.count - done) }
        if count >= 0 {
            done += count
        } else if errno != EINTR {
            throw .system(errno, "write", path)
        }
    }
}

/// Whether a path is that of a symbolic link.
package func isLink(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK
}

/// The names in a directory, sorted by their bytes, without `.` and `..`.
package func listDirectory(_ path: String) throws(TesseraError) -> [String] { try Directory(path).names() }

/// Lets this process have as many descriptors as the system allows it.
///
/// - Returns: how many those are.
package func raiseDescriptorLimit() -> Int { Int(raise_descriptor_limit()) }

/// The kind of file system that a file is on.
enum FileSystem {
    case local
    /// Shared by several hosts, with coherent caches.
    case network
    /// Served by a program (FUSE, 9P), with no guarantees.
    case served
}

/// Decided by the magic numbers of statfs(2).
func fileSystem(of descriptor: Int32) -> FileSystem {
    var status = statfs()
    guard fstatfs(descriptor, &status) == 0 else { return .local }
    return switch Int(status.f_type) {
    case 0x6969,  // NFS
        0xff53_4d42, 0x517b, 0xfe53_4d42,  // CIFS and SMB
        0x0bd0_0bd0,  // Lustre
        0x00c3_6400,  // Ceph
        0x4750_4653,  // GPFS
        0x1983_0326:  // BeeGFS
        .network
    case 0x6573_5546,  // FUSE
        0x0102_1997:  // 9P
        .served
    default: .local
    }
}

/// The file system of this host.
package struct LocalFiles: InputFiles {
    package init() {}

    package func list(_ directory: String) throws(TesseraError) -> [String] { try listDirectory(directory) }

    package func status(of path: String) throws(TesseraError) -> FileStatus? {
        var status = stat()
        guard stat(path, &status) == 0 else {
            if Self.isMissing(errno) { return nil }
            throw .system(errno, "examine", path)
        }
        return FileStatus(status)
    }

    package func canonicalPath(of path: String) throws(TesseraError) -> String? {
        guard let resolved = realpath(path, nil) else {
            if Self.isMissing(errno) { return nil }
            throw .system(errno, "resolve", path)
        }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    package func localFile(_ path: String) throws(TesseraError) -> ReadableFile? { try ReadableFile(path) }

    package func confined(to directories: [String]) -> any InputFiles { RootedFiles(directories: directories) }

    package func open(_ path: String) throws(TesseraError) -> any ByteSource { try openByteSource(ReadableFile(path)) }

    /// Whether a failed look at a path means that nothing can be there: also for names that no file can have, and links in a
    /// circle.
    private static func isMissing(_ number: Int32) -> Bool { [ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP].contains(number) }
}

extension FileStatus {
    init(_ status: stat) {
        let kind: Kind =
            switch status.st_mode & S_IFMT {
            case S_IFREG: .file
            case S_IFDIR: .directory
            default: .other
            }
        self.init(kind: kind, size: Int(status.st_size), identity: ReadableFile.version(status))
    }
}
