import Core
import FoundationEssentials
import Glibc

/// The right of one process to a state directory. It ends with the value, or with the process.
final class StateLock: Sendable {
    private let descriptor: Int32
    /// Whether there was no directory before.
    let isNew: Bool

    static let fileName = "lock"

    /// Creates the directory if there is none.
    ///
    /// - Throws: `temporary` with the process that has the lock; `cannotCreate` for a directory that cannot be created.
    init(directory: String) throws(TesseraError) {
        isNew = mkdir(directory, 0o777) == 0
        guard isNew || errno == EEXIST else {
            throw .cannotWrite(into: FilePath.parent(of: directory), errno)
        }
        let path = "\(directory)/\(Self.fileName)"
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o666)
        guard descriptor >= 0 else { throw .system(errno, "open", path) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let number = errno, holder = Self.holder(descriptor)
            close(descriptor)
            guard number == EWOULDBLOCK else { throw .system(number, "lock", path) }
            throw TesseraError(
                .temporary, "the state directory is in use by \(holder)", file: directory,
                advice: "stop that process, or use another directory")
        }
        let text = Array("process \(getpid()) on \(ProcessInfo.processInfo.hostName)\n".utf8)
        // For people only: without it the lock holds as well.
        if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, text, text.count, 0) }
    }

    deinit { close(descriptor) }

    private static func holder(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 300)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let line = String(decoding: bytes.prefix(max(0, count)).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        return line.hasPrefix("process ") ? line : "another process"
    }
}
