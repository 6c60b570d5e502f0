import CLinux
import Checkpoints
package import Core
import Glibc
package import Planning
import Synchronization

/// An output directory in the making: `OUT.partial-<job>` beside OUT, its parts preallocated with their headers in place.
///
/// Blocks may arrive in any order, from several threads, and more than once. Nothing is visible under OUT's own name until `publish`.
package final class Assembler: Sendable {
    /// Where the parts are being written.
    package let directory: String
    private let output: String
    private let replacesExisting: Bool
    private let parts = Mutex<[OutputFile]>([])

    /// Creates the directory.
    ///
    /// - Parameters:
    ///   - output: the absolute path of OUT.
    ///   - overwrite: whether an OUT that Tessera wrote may be replaced.
    /// - Throws: `cannotCreate` when OUT exists or its parent cannot be written.
    package init(output: String, job: String, overwrite: Bool) throws(TesseraError) {
        self.output = output
        directory = "\(output).partial-\(job)"
        replacesExisting = try Self.checkOutput(output, overwrite: overwrite)
        guard mkdir(directory, 0o777) == 0 else {
            throw TesseraError(
                .cannotCreate, "cannot create the output directory: \(String(cString: strerror(errno)))", file: directory,
                advice: "check that the directory above it exists and can be written")
        }
    }

    /// Creates the plan's parts at their full size, so that a lack of space shows before the work begins, and takes in the files that the plan
    /// leaves as they are. To be called once with a plan that has parts; removes everything when it throws.
    ///
    /// - Throws: `io` when there is no space.
    package func lay(out plan: Plan) throws(TesseraError) {
        do {
            let reserves = try Self.reserves(plan.layout.parts.reduce(0) { $0 + $1.fileSize }, in: directory)
            var files: [OutputFile] = []
            for part in plan.layout.parts {
                let file = try OutputFile(creating: "\(directory)/\(part.fileName)", size: part.fileSize, reserve: reserves)
                try file.write(part.header)
                files.append(file)
            }
            for part in plan.reused { try linkOrCopy(part.path, to: "\(directory)/\(part.part.file)") }
            let laid = files
            parts.withLock { $0 = laid }
        } catch {
            Self.removeTree(directory)
            throw error
        }
    }

    /// Writes `bytes` of output tensor data at their final place.
    package func write(_ bytes: UnsafeRawBufferPointer, part: Int, offset: Int) throws(TesseraError) {
        let file = parts.withLock { $0.indices.contains(part) ? $0[part] : nil }
        guard let file else { throw TesseraError(.internal, "there is no part \(part)") }
        try file.write(bytes, at: offset)
    }

    /// Makes everything durable and gives it its final name; from then on OUT exists, whole.
    package func publish() throws(TesseraError) {
        for part in parts.withLock({ $0 }) { try part.sync() }
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

    /// Whether space is to be reserved file by file. In memory (tmpfs) that would write every page once for nothing, so there the buffer is
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

/// Gives a finished file a second name, or copies it where that cannot be.
private func linkOrCopy(_ path: String, to target: String) throws(TesseraError) {
    guard link(path, target) != 0 else { return }
    let source = try ReadableFile(path)
    let copy = try OutputFile(creating: target, size: source.size, reserve: true)
    let piece = 8 << 20
    for start in stride(from: 0, to: source.size, by: piece) {
        let bytes = try source.bytes(start..<min(source.size, start + piece))
        try copy.write(bytes, at: start)
    }
    try copy.sync()
}

/// Makes a directory's entries durable.
func syncDirectory(_ path: String) throws(TesseraError) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system(errno, "open", path) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw .system(errno, "make durable", path) }
}
