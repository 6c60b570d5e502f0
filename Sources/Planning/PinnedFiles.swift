import Core
import Synchronization
import Work

/// Input files that note which files planning has opened, and which contents each of them had.
final class PinnedFiles: InputFiles {
    private let files: any InputFiles
    private let request: PlanRequest
    private let noted = Mutex<[String: String]>([:])

    init(_ request: PlanRequest) {
        files = request.files
        self.request = request
    }

    /// Every file that was opened, by its path.
    func pinned() -> [String: PinnedFile] {
        let pinned = noted.withLock { Array($0) }.concurrentMap { path, identity in
            (path, PinnedFile(identity: identity, sample: try? request.pinning.pin(path, in: files).sample))
        }
        return Dictionary(uniqueKeysWithValues: pinned)
    }

    func list(_ directory: String) throws(TesseraError) -> [String] { try files.list(directory) }

    func status(of path: String) throws(TesseraError) -> FileStatus? {
        try request.checkTime()
        return try files.status(of: path)
    }

    func canonicalPath(of path: String) throws(TesseraError) -> String? { try files.canonicalPath(of: path) }

    func localFile(_ path: String) throws(TesseraError) -> ReadableFile? { try files.localFile(path) }

    /// - Throws: `badData` for a file that was another when planning opened it before, and when planning takes too long.
    func open(_ path: String) throws(TesseraError) -> any ByteSource {
        try request.checkTime()
        let source = try files.open(path)
        let earlier = noted.withLock { noted in
            defer { noted[path] = noted[path] ?? source.identity }
            return noted[path]
        }
        guard earlier ?? source.identity == source.identity else { throw PlanRequest.changed(path) }
        return source
    }
}
