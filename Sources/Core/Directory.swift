import CLinux
import Glibc

/// Tells one file from every other on this host, whatever its name is.
struct FileIdentity: Sendable, Hashable {
    let device: dev_t
    private let inode: ino_t
    /// When the file was created, since a file that is removed leaves its number to another; 0 where that cannot be told.
    private let born: Int64

    /// - Parameters:
    ///   - folder: a descriptor of the folder that has the file.
    ///   - name: empty for what the descriptor stands for.
    fileprivate init(_ status: stat, name: String, in folder: Int32) {
        device = status.st_dev
        inode = status.st_ino
        // Network file systems tell it at one time and not at another.
        born = fileSystem(of: folder) == .local ? birth_time(folder, name) : 0
    }

    /// - Returns: `nil` if the file cannot be examined; `errno` says why.
    init?(of descriptor: Int32) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        self.init(status, name: "", in: descriptor)
    }

    func isOnFileSystem(of other: FileIdentity) -> Bool { device == other.device }
}

/// A directory of this host, held by a descriptor.
///
/// What lies below is reached by openat2(2) with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, or step by step where the kernel
/// lacks that call: no link is followed, and `..` is refused. Whoever can write below the directory can therefore lead nobody
/// out of it, at whatever moment a step is exchanged.
package final class Directory: Sendable {
    /// For errors.
    package let path: String
    let descriptor: Int32
    private let walks: Bool

    /// Opens a directory by a path that is trusted: links on its way are followed.
    package convenience init(_ path: String) throws(TesseraError) { try self.init(path, walks: !Self.hasOpenBeneath) }

    /// - Parameter walks: whether to go step by step, as on a kernel without openat2(2).
    init(_ path: String, walks: Bool) throws(TesseraError) {
        descriptor = open_at(AT_FDCWD, path, open_as_path | O_DIRECTORY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw .system(errno, "open", path) }
        self.path = path
        self.walks = walks
    }

    private init(descriptor: Int32, path: String, walks: Bool) {
        self.descriptor = descriptor
        self.path = path
        self.walks = walks
    }

    deinit { close(descriptor) }

    private static let hasOpenBeneath: Bool = {
        let found = open_beneath(AT_FDCWD, ".", open_as_path | O_DIRECTORY | O_CLOEXEC, 0)
        if found >= 0 { close(found) }
        return found >= 0
    }()

    // MARK: Opening

    /// Opens what lies at a path below the directory.
    ///
    /// - Parameter flags: of open(2); `O_CLOEXEC` is added.
    /// - Returns: a descriptor, which belongs to the caller.
    /// - Throws: `notAllowed` for a path with `..` or through a link; otherwise as `TesseraError.system`.
    func open(_ relative: String, _ flags: Int32, mode: UInt32 = 0) throws(TesseraError) -> Int32 {
        let flags = flags | O_CLOEXEC
        var found = walks ? walk(relative, flags, mode) : open_beneath(descriptor, relative, flags, mode)
        while found < 0, errno == EINTR {
            found = walks ? walk(relative, flags, mode) : open_beneath(descriptor, relative, flags, mode)
        }
        guard found < 0 else { return found }
        let number = errno, full = self.full(relative)
        throw number == ELOOP || number == EXDEV ? leadsOut(relative) : .system(number, "open", full)
    }

    private func leadsOut(_ relative: String) -> TesseraError {
        TesseraError(
            .notAllowed, "a step of the path is a link or leads out of \(path)", file: full(relative),
            advice: "make sure that nobody puts links there while a job runs")
    }

    private func walk(_ relative: String, _ flags: Int32, _ mode: UInt32) -> Int32 {
        var steps = FilePath.components(of: relative).filter { $0 != "." }
        guard !FilePath.isAbsolute(relative), !steps.contains("..") else {
            errno = EXDEV
            return -1
        }
        let last = steps.popLast() ?? "."
        var folder = descriptor, number: Int32 = 0
        defer {
            // Closing the folder must not change the reason.
            if folder != descriptor { close(folder) }
            errno = number
        }
        for step in steps {
            let next = openStep(step, in: folder, open_as_path | O_DIRECTORY | O_CLOEXEC, 0)
            number = errno
            guard next >= 0 else { return -1 }
            if folder != descriptor { close(folder) }
            folder = next
        }
        let found = openStep(last, in: folder, flags, mode)
        number = errno
        return found
    }

    private func openStep(_ name: String, in folder: Int32, _ flags: Int32, _ mode: UInt32) -> Int32 {
        let found = open_at(folder, name, flags | O_NOFOLLOW, mode), number = errno
        var status = stat()
        let isLink =
            found < 0
            ? number == ENOTDIR && fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_mode & S_IFMT == S_IFLNK
            // As a path, a link itself can be opened.
            : flags & open_as_path != 0 && fstat(found, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK
        guard isLink else {
            errno = number
            return found
        }
        if found >= 0 { close(found) }
        errno = ELOOP
        return -1
    }

    /// The directory at a path below this one.
    package func directory(_ relative: String) throws(TesseraError) -> Directory {
        Directory(descriptor: try open(relative, open_as_path | O_DIRECTORY), path: full(relative), walks: walks)
    }

    private func full(_ relative: String) -> String { relative == "." ? path : FilePath.join(path, relative) }

    // MARK: Entries

    /// Of an entry, without following a link; `nil` when there is none.
    func status(of name: String) -> stat? {
        var status = stat()
        return fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status : nil
    }

    /// Of an entry, without following a link; `nil` when there is none.
    func identity(of name: String) -> FileIdentity? {
        status(of: name).map { FileIdentity($0, name: name, in: descriptor) }
    }

    /// Of the directory itself.
    var identity: FileIdentity? { FileIdentity(of: descriptor) }

    /// The number that the kernel gives the mounted file system; `nil` if it cannot be told.
    package var device: UInt64? { identity.map { UInt64($0.device) } }

    /// The names in the directory, sorted by their bytes, without `.` and `..`.
    package func names() throws(TesseraError) -> [String] {
        let list = try open(".", O_RDONLY | O_DIRECTORY)
        guard let entries = fdopendir(list) else {
            let number = errno
            close(list)
            throw .system(number, "list", path)
        }
        defer { closedir(entries) }
        var names: [String] = []
        while let entry = readdir(entries) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sortedByBytes()
    }

    /// The paths of all files below the directory, relative to it, sorted by their bytes. Links are files.
    package func filesBelow() throws(TesseraError) -> [String] { try entriesBelow().files.sortedByBytes() }

    /// The paths of all folders below the directory, relative to it, the innermost first. Links are no folders.
    func foldersBelow() throws(TesseraError) -> [String] { try entriesBelow().folders.sortedByBytes().reversed() }

    private func entriesBelow() throws(TesseraError) -> (files: [String], folders: [String]) {
        var files: [String] = [], folders: [String] = [], next = [""]
        while let folder = next.popLast() {
            let directory = folder.isEmpty ? self : try directory(folder)
            for name in try directory.names() {
                let path = folder.isEmpty ? name : "\(folder)/\(name)"
                if let status = directory.status(of: name), status.st_mode & S_IFMT == S_IFDIR {
                    folders.append(path)
                    next.append(path)
                } else {
                    files.append(path)
                }
            }
        }
        return (files, folders)
    }

    // MARK: Changes

    /// Creates a directory in this one.
    ///
    /// - Returns: 0 or an error number.
    func makeDirectory(_ name: String) -> Int32 { mkdirat(descriptor, name, 0o777) == 0 ? 0 : errno }

    /// Creates or replaces a small file, and makes it durable. What had the name is not written to: others may have put another
    /// name of a file of theirs there.
    ///
    /// - Throws: `notAllowed` for a link, `cannotCreate` for what is no file, such as a FIFO, which would hold its writer.
    func write(_ name: String, _ bytes: [UInt8]) throws(TesseraError) {
        switch status(of: name).map({ $0.st_mode & S_IFMT }) {
        case nil: break
        case S_IFREG: removeFile(name)
        case S_IFLNK: throw leadsOut(name)
        default:
            throw TesseraError(
                .cannotCreate, "what has the name of this file is no file, and was put there by others", file: full(name),
                advice: "make sure that nobody else writes there, and submit the job again")
        }
        let file = try open(name, O_WRONLY | O_CREAT | O_EXCL, mode: 0o666)
        defer { close(file) }
        try writeAll(bytes, to: file, path: full(name))
        if fsync(file) != 0 { throw .system(errno, "sync", full(name)) }
    }

    /// Gives a file that is open a name in this directory.
    ///
    /// - Returns: whether that was possible.
    func link(_ file: ReadableFile, as name: String) -> Bool {
        linkat(AT_FDCWD, "/proc/self/fd/\(file.descriptor)", descriptor, name, AT_SYMLINK_FOLLOW) == 0
    }

    /// Gives an entry a new name, which must not exist.
    ///
    /// - Returns: 0 or an error number.
    func rename(_ name: String, to other: String) -> Int32 { rename_noreplace(descriptor, name, other) == 0 ? 0 : errno }

    /// Exchanges the names of two entries in one step.
    ///
    /// - Returns: 0 or an error number.
    func exchange(_ name: String, with other: String) -> Int32 { rename_exchange(descriptor, name, other) == 0 ? 0 : errno }

    /// Gives a file the name of another one, which goes, in one step, and makes that durable. Both lie in the same folder.
    package func replace(_ name: String, by other: String) throws(TesseraError) {
        guard renameat(descriptor, other, descriptor, name) == 0 else { throw .system(errno, "replace", full(name)) }
        let folder = FilePath.components(of: name).dropLast().joined(separator: "/")
        try directory(folder.isEmpty ? "." : folder).sync()
    }

    /// Removes a file or a link.
    package func removeFile(_ name: String) { unlinkat(descriptor, name, 0) }

    /// Removes a directory with nothing in it; another stays.
    func removeEmptyDirectory(_ name: String) { unlinkat(descriptor, name, AT_REMOVEDIR) }

    /// Removes a directory of plain files and folders of such; what cannot be removed stays.
    func removeDirectory(_ name: String) {
        if let folder = try? directory(name) {
            for entry in (try? folder.names()) ?? [] where unlinkat(folder.descriptor, entry, 0) != 0 && errno == EISDIR {
                folder.removeDirectory(entry)
            }
        }
        unlinkat(descriptor, name, AT_REMOVEDIR)
    }

    /// Makes the directory's entries durable.
    func sync() throws(TesseraError) {
        let entries = try open(".", O_RDONLY | O_DIRECTORY)
        defer { close(entries) }
        guard fsync(entries) == 0 else { throw .system(errno, "make durable", path) }
    }
}
