package import Core
import Synchronization

/// Input files in memory, which can be told to fail, to be slow, to be short, or to change under the reader.
package final class MemoryFiles: InputFiles {
    package enum Fault: Sendable {
        /// Every read that touches this byte throws `error`.
        case failing(at: Int, TesseraError)
        /// Called before every read, with its range.
        case slow(@Sendable (Range<Int>) -> Void)
        /// Reads beyond this many bytes find the end of the file, although its size says otherwise.
        case truncated(to: Int)
        /// Called once, after the file's status was asked for: what was told no longer holds.
        case changing(@Sendable (MemoryFiles) -> Void)
    }

    private struct File {
        var bytes: [UInt8]
        var generation: Int
        var faults: [Fault] = []
    }

    private let files = Mutex<[String: File]>([:])

    package init(_ contents: [String: [UInt8]] = [:]) {
        for (path, bytes) in contents { write(bytes, to: path) }
    }

    /// Creates the file, or replaces it: open sources keep reading, and see the new bytes.
    package func write(_ bytes: [UInt8], to path: String) {
        files.withLock { files in
            files[path] = File(bytes: bytes, generation: (files[path]?.generation ?? 0) + 1)
        }
    }

    package func remove(_ path: String) { files.withLock { $0[path] = nil } }

    package func add(_ fault: Fault, to path: String) { files.withLock { $0[path]?.faults.append(fault) } }

    package func heal(_ path: String) { files.withLock { $0[path]?.faults = [] } }

    package func list(_ directory: String) throws(TesseraError) -> [String] {
        let prefix = directory.hasSuffix("/") ? directory : "\(directory)/"
        let names = files.withLock { files in
            Set(
                files.keys.filter { $0.hasPrefix(prefix) }.compactMap {
                    $0.dropFirst(prefix.count).split(separator: "/").first.map(String.init)
                })
        }
        guard !names.isEmpty else { throw TesseraError(.inputMissing, "no such directory", file: directory) }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    package func status(of path: String) throws(TesseraError) -> FileStatus? {
        let status = current(path)
        let changes = files.withLock { files in
            var changes: [@Sendable (MemoryFiles) -> Void] = []
            files[path]?.faults.removeAll { fault in
                guard case .changing(let change) = fault else { return false }
                changes.append(change)
                return true
            }
            return changes
        }
        for change in changes { change(self) }
        return status
    }

    private func current(_ path: String) -> FileStatus? {
        files.withLock { files in
            if let file = files[path] {
                return FileStatus(kind: .file, size: file.bytes.count, identity: "\(path)@\(file.generation)")
            }
            let isDirectory = path == "/" || files.keys.contains { $0.hasPrefix("\(path)/") }
            return isDirectory ? FileStatus(kind: .directory, size: 0, identity: path) : nil
        }
    }

    package func canonicalPath(of path: String) throws(TesseraError) -> String? {
        var components: [Substring] = []
        for component in path.split(separator: "/") where component != "." {
            if component == ".." { _ = components.popLast() } else { components.append(component) }
        }
        let canonical = "/" + components.joined(separator: "/")
        return current(canonical).map { _ in canonical }
    }

    package func open(_ path: String) throws(TesseraError) -> any ByteSource {
        guard let status = current(path), status.kind == .file else {
            throw TesseraError(.inputMissing, "no such file", file: path)
        }
        return Source(files: self, path: path, size: status.size, identity: status.identity)
    }

    private struct Source: ByteSource {
        let files: MemoryFiles
        let path: String
        let size: Int
        let identity: String

        func withBytes<Result>(
            _ range: Range<Int>, scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result
        ) throws -> Result {
            try check(range, scratch: scratch, file: path)
            guard let file = files.files.withLock({ $0[path] }) else {
                throw TesseraError(.io, "cannot read the file: it was removed", file: path)
            }
            var end = file.bytes.count
            for fault in file.faults {
                switch fault {
                case .failing(let position, let error): if range.contains(position) { throw error }
                case .slow(let wait): wait(range)
                case .truncated(let limit): end = min(end, limit)
                case .changing: break
                }
            }
            guard range.upperBound <= end else {
                throw TesseraError(
                    .badData, "ends at byte \(end), \(range.upperBound - end) bytes short of what was to be read", file: path)
            }
            scratch.copyBytes(from: file.bytes[range])
            return try body(UnsafeRawBufferPointer(rebasing: scratch[..<range.count]))
        }

        func checkUnchanged() throws(TesseraError) {
            guard files.current(path)?.identity != identity else { return }
            throw TesseraError(.badData, "was written to while it was read", file: path)
        }

        func prefetch(_ range: Range<Int>) {}
        func release(_ range: Range<Int>) {}
    }
}
