package import Core
import Synchronization
package import Work

/// Opens inputs from this host's roots, and from elsewhere when a file is not there.
package final class LocalInputs: InputProvider {
    private let roots: Roots
    /// Stands in for files that this host does not have.
    private let fallback: (any InputProvider)?
    /// Whether this is the host that planned, where a file's version means something.
    private let checksVersions: Bool
    private let opened = Mutex<[InputFile: Opened]>([:])

    private struct Opened {
        let source: any ByteSource
        /// Where this host has the file, and which file it was; `nil` for one from elsewhere.
        let place: (path: String, version: String?)?

        /// Whether what was opened is still what is there.
        var isCurrent: Bool { place.map { ReadableFile.version(at: $0.path) == $0.version } ?? true }
    }

    package init(roots: Roots, fallback: (any InputProvider)? = nil, checksVersions: Bool = false) {
        self.roots = roots
        self.checksVersions = checksVersions
        self.fallback = fallback
    }

    package func open(_ file: InputFile) throws -> any ByteSource {
        if let kept = opened.withLock({ $0[file] }), kept.isCurrent { return kept.source }
        let fresh = try openAnew(file)
        opened.withLock { $0[file] = fresh }
        return fresh.source
    }

    /// Lets go of every file, once no shard needs them.
    package func closeAll() { opened.withLock { $0.removeAll() } }

    private func openAnew(_ file: InputFile) throws -> Opened {
        if let path = try roots.find(file) {
            // The version first: a file that is replaced in between is then opened again, not kept.
            let version = ReadableFile.version(at: path)
            guard !checksVersions || version == file.version else {
                throw TesseraError(
                    .badData, "the file was changed or replaced after the job was planned", file: path,
                    advice: "make sure that nobody writes the inputs during a merge, and run it again")
            }
            return Opened(source: try openByteSource(path: path), place: (path, version))
        }
        if let fallback { return Opened(source: try fallback.open(file), place: nil) }
        throw TesseraError(
            .inputMissing, "the file is under none of this worker's roots \(roots.directories.joined(separator: ", "))",
            file: file.path)
    }
}
