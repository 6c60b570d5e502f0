package import Checkpoints
package import Planning
import Synchronization

/// Opens inputs from this host's roots, and from elsewhere when a file is not there.
package final class LocalInputs: InputProvider {
    private let roots: Roots
    /// Stands in for files that this host does not have.
    private let fallback: (any InputProvider)?
    private let opened = Mutex<[InputFile: any ByteSource]>([:])

    package init(roots: Roots, fallback: (any InputProvider)? = nil) {
        self.roots = roots
        self.fallback = fallback
    }

    package func open(_ file: InputFile) throws -> any ByteSource {
        if let source = opened.withLock({ $0[file] }) { return source }
        let source = try openAnew(file)
        opened.withLock { $0[file] = source }
        return source
    }

    /// Lets go of every file, once no shard needs them.
    package func closeAll() { opened.withLock { $0.removeAll() } }

    private func openAnew(_ file: InputFile) throws -> any ByteSource {
        if let path = try roots.find(file) { return try openByteSource(path: path) }
        if let fallback { return try fallback.open(file) }
        throw TesseraError(
            .inputMissing, "the file is under none of this worker's roots \(roots.directories.joined(separator: ", "))",
            file: file.path)
    }
}
