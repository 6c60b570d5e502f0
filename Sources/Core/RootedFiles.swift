import CLinux
import Glibc

/// The files below some directories of this host.
///
/// Links are followed when a path is looked up, as long as they lead to one of the directories; what is then opened is reached
/// without any link (`Directory`). A link that is put on the way in between is refused.
struct RootedFiles: InputFiles {
    /// Canonical paths.
    let directories: [String]

    private static let paths = LocalFiles()

    func list(_ directory: String) throws(TesseraError) -> [String] {
        guard let (root, relative) = try find(directory) else { throw .system(ENOENT, "list", directory) }
        return try root.directory(relative).names()
    }

    func status(of path: String) throws(TesseraError) -> FileStatus? {
        guard let (root, relative) = try find(path) else { return nil }
        let descriptor: Int32
        do throws(TesseraError) {
            descriptor = try root.open(relative, open_as_path)
        } catch  where error.code == .inputMissing {
            return nil
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system(errno, "examine", path) }
        return FileStatus(status)
    }

    func canonicalPath(of path: String) throws(TesseraError) -> String? { try Self.paths.canonicalPath(of: path) }

    func open(_ path: String) throws(TesseraError) -> any ByteSource { try openByteSource(file(path)) }

    func localFile(_ path: String) throws(TesseraError) -> ReadableFile? { try file(path) }

    private func file(_ path: String) throws(TesseraError) -> ReadableFile {
        guard let (root, relative) = try find(path) else { throw .system(ENOENT, "open", path) }
        return try ReadableFile(relative, in: root, path: path)
    }

    /// The directory that a path leads to, and the rest of the path without links.
    ///
    /// - Returns: `nil` when nothing is there.
    /// - Throws: `notAllowed` for a path that leads to none of the directories.
    private func find(_ path: String) throws(TesseraError) -> (root: Directory, relative: String)? {
        guard let canonical = try canonicalPath(of: path) else { return nil }
        for directory in directories {
            // The directory is the operator's choice, and may be mounted anew: its own path is trusted.
            if let relative = FilePath.relative(canonical, to: directory) { return (try Directory(directory), relative) }
        }
        throw TesseraError(
            .notAllowed, "is a link that leads out of the roots \(directories.joined(separator: ", "))", file: path,
            advice: "put the file itself there, or start the process with a --root above it")
    }
}
