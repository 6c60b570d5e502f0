import CLinux
package import Checkpoints
import Glibc

/// An output directory in the making: `OUT.partial-<job>` beside OUT, its parts preallocated with their headers in place.
///
/// Blocks may arrive in any order, from several threads, and more than once. Nothing is visible under OUT's own name until `publish`.
package final class Assembler: Sendable {
    /// Where the parts are being written.
    package let directory: String
    private let output: String
    private let replacesExisting: Bool
    private let layout: CheckpointLayout
    private let parts: [OutputFile]

    /// Creates the directory and the parts at their full size, so that a lack of space shows before the work begins.
    ///
    /// - Parameters:
    ///   - output: the absolute path of OUT.
    ///   - overwrite: whether an OUT that Tessera wrote may be replaced.
    /// - Throws: `cannotCreate` when OUT exists or its parent cannot be written; `io` when there is no space.
    package init(layout: CheckpointLayout, output: String, job: String, overwrite: Bool) throws(TesseraError) {
        self.layout = layout
        self.output = output
        directory = "\(output).partial-\(job)"
        replacesExisting = try Self.checkOutput(output, overwrite: overwrite)
        guard mkdir(directory, 0o777) == 0 else {
            throw TesseraError(
                .cannotCreate, "cannot create the output directory: \(String(cString: strerror(errno)))", file: directory,
                advice: "check that the directory above it exists and can be written")
        }
        do {
            let reserves = try Self.reserves(layout.parts.reduce(0) { $0 + $1.fileSize }, in: directory)
            var parts: [OutputFile] = []
            for part in layout.parts {
                let file = try OutputFile(creating: "\(directory)/\(part.fileName)", size: part.fileSize, reserve: reserves)
                try file.write(part.header)
                parts.append(file)
            }
            self.parts = parts
        } catch {
            Self.removeTree(directory)
            throw error
        }
    }

    /// Writes `bytes` of output tensor data at their final place.
    package func write(_ bytes: UnsafeRawBufferPointer, part: Int, offset: Int) throws(TesseraError) {
        guard parts.indices.contains(part), offset >= 0, bytes.count <= layout.parts[part].fileSize - offset else {
            throw TesseraError(.internal, "a block of \(bytes.count) bytes at \(offset) lies outside part \(part)")
        }
        try parts[part].write(bytes, at: offset)
    }

    /// Makes everything durable and gives it its final name; from then on OUT exists, whole.
    package func publish() throws(TesseraError) {
        for part in parts { try part.sync() }
        try syncDirectory(directory)
        if replacesExisting {
            // One atomic exchange: at every moment OUT is either the old checkpoint or the new one.
            guard rename_exchange(directory, output) == 0 else {
                throw .system(errno, "replace", output)
            }
            Self.removeTree(directory)
        } else {
            guard rename_noreplace(directory, output) == 0 else {
                throw errno == EEXIST
                    ? TesseraError(.cannotCreate, "the output appeared while the job ran", file: output)
                    : .system(errno, "rename to", output)
            }
        }
        try syncDirectory(Self.parent(of: output))
    }

    /// Removes everything that was written. OUT is untouched.
    package func discard() { Self.removeTree(directory) }

    // MARK: Checks

    /// Whether `publish` will have to replace an OUT that is there.
    private static func checkOutput(_ output: String, overwrite: Bool) throws(TesseraError) -> Bool {
        var status = stat()
        guard lstat(output, &status) == 0 else { return false }
        guard overwrite else {
            throw TesseraError(
                .cannotCreate, "the output exists", file: output, advice: "choose another path, or add --overwrite to replace it")
        }
        guard status.st_mode & S_IFMT == S_IFDIR, access("\(output)/\(Manifest.fileName)", F_OK) == 0 else {
            throw TesseraError(
                .cannotCreate, "the output exists and was not written by Tessera, so it is not replaced", file: output,
                advice: "remove it yourself, or choose another path")
        }
        return true
    }

    /// Whether space is to be reserved file by file. In memory (tmpfs) that would write every page once for nothing, so there the room is
    /// looked at instead.
    ///
    /// - Throws: `io` when there is too little.
    private static func reserves(_ bytes: Int, in directory: String) throws(TesseraError) -> Bool {
        let tmpfs = 0x0102_1994
        var status = statfs()
        guard statfs(directory, &status) == 0, Int(status.f_type) == tmpfs else { return true }
        guard bytes <= Int(clamping: status.f_bavail) * Int(status.f_bsize) else {
            throw .system(ENOSPC, "reserve \(bytes) bytes in", directory)
        }
        return false
    }

    private static func parent(of path: String) -> String {
        path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    }

    /// Removes a directory of plain files; what cannot be removed stays.
    private static func removeTree(_ directory: String) {
        for name in (try? listDirectory(directory)) ?? [] { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }
}

/// One part that is being written, at any offset and from any thread.
private final class OutputFile: Sendable {
    private let path: String
    private let descriptor: Int32

    init(creating path: String, size: Int, reserve: Bool) throws(TesseraError) {
        self.path = path
        descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw .system(errno, "create", path) }
        var result = reserve ? posix_fallocate(descriptor, 0, size) : EOPNOTSUPP
        if result == EOPNOTSUPP || result == EINVAL { result = ftruncate(descriptor, size) == 0 ? 0 : errno }
        guard result == 0 else { throw .system(result, "reserve \(size) bytes for", path) }
    }

    deinit { close(descriptor) }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(TesseraError) {
        guard var next = bytes.baseAddress else { return }
        var position = offset
        let end = offset + bytes.count
        while position < end {
            let written = pwrite(descriptor, next, end - position, position)
            if written > 0 {
                next += written
                position += written
            } else if errno != EINTR {
                throw .system(errno, "write", path)
            }
        }
    }

    /// Writes the file's first bytes.
    func write(_ header: [UInt8]) throws(TesseraError) {
        var failure: TesseraError?
        header.withUnsafeBytes { bytes in
            do throws(TesseraError) { try write(bytes, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    func sync() throws(TesseraError) {
        guard fsync(descriptor) == 0 else { throw .system(errno, "make durable", path) }
    }
}

/// Makes a directory's entries durable.
func syncDirectory(_ path: String) throws(TesseraError) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system(errno, "open", path) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw .system(errno, "make durable", path) }
}
