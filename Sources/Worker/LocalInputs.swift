package import Core
package import Logging
import Synchronization
package import Work

/// Opens inputs from this host's roots, and from elsewhere what the host does not have as the plan means it.
///
/// A copy that is missing, differs from the plan's file or cannot be read is this host's own trouble: other hosts may have the
/// right one, so the trouble must not fail the job.
package final class LocalInputs: InputProvider {
    private let roots: Roots
    /// Stands in for files that this host does not have.
    private let fallback: (any InputProvider)?
    /// Whether this is the host that planned, where a file's version means something and an error is final.
    private let isPlanningHost: Bool
    /// What errors call this host.
    private let host: String
    private let log: Logger
    private let opened = Mutex<[InputFile: Opened]>([:])

    private struct Opened {
        let source: any ByteSource
        /// Where this host has the file, and its identity then; `nil` for a file from elsewhere.
        let copy: (path: String, identity: String)?
    }

    /// For the host that planned: its files are the plan's files, or the job is at fault.
    package convenience init(planningHostWith roots: Roots) {
        self.init(roots: roots, fallback: nil, isPlanningHost: true, host: "", log: Self.silent)
    }

    /// - Parameter host: what errors call this host.
    package convenience init(
        roots: Roots, fallback: (any InputProvider)? = nil, host: String, log: Logger
    ) {
        self.init(roots: roots, fallback: fallback, isPlanningHost: false, host: host, log: log)
    }

    private init(roots: Roots, fallback: (any InputProvider)?, isPlanningHost: Bool, host: String, log: Logger) {
        self.roots = roots
        self.fallback = fallback
        self.isPlanningHost = isPlanningHost
        self.host = host
        self.log = log
    }

    private static let silent = Logger(label: "tessera.inputs") { _ in SwiftLogNoOpLogHandler() }

    /// - Throws: on the host that planned, what is wrong with the file. Elsewhere `inputMissing` or `io`, with the host's name,
    ///   and what the fallback throws.
    package func open(_ file: InputFile) throws -> any ByteSource {
        if let kept = opened.withLock({ $0[file] }), isCurrent(kept) { return kept.source }
        return try keep(openAnew(file), for: file)
    }

    /// Lets go of every file, once no shard needs them.
    package func closeAll() { opened.withLock { $0.removeAll() } }

    /// What a shard's failure means. If a copy of one of its inputs has changed or ended early since it was opened, the copy is
    /// to blame and not used again.
    ///
    /// - Returns: `io`, with the host's name, if a copy is to blame; otherwise `error`.
    func explain(_ error: TesseraError, of files: [InputFile]) -> TesseraError {
        guard !isPlanningHost, !error.code.isTransient else { return error }
        for file in files {
            guard let kept = opened.withLock({ $0[file] }), let copy = kept.copy, !isIntact(kept, file) else { continue }
            let trouble = TesseraError(
                .io, "the copy on \(host) changed or ended early while it was read: \(error.problem)", file: copy.path)
            if let source = try? replacement(for: file, because: trouble) {
                _ = keep(Opened(source: source, copy: nil), for: file)
            }
            return trouble
        }
        return error
    }

    private func keep(_ fresh: Opened, for file: InputFile) -> any ByteSource {
        opened.withLock { $0[file] = fresh }
        return fresh.source
    }

    // MARK: Copies

    private func isCurrent(_ opened: Opened) -> Bool {
        guard let copy = opened.copy else { return true }
        return ((try? roots.files.status(of: copy.path)) ?? nil)?.identity == copy.identity
    }

    /// Whether the copy has not changed, and has its last byte.
    private func isIntact(_ opened: Opened, _ file: InputFile) -> Bool {
        isCurrent(opened) && (try? opened.source.bytes(max(0, file.size - 1)..<file.size)) != nil
    }

    private func openAnew(_ file: InputFile) throws -> Opened {
        do throws(TesseraError) {
            if let copy = try openCopy(file) { return copy }
        } catch {
            guard !isPlanningHost else { throw error }
            let trouble = TesseraError(
                error.code == .io ? .io : .inputMissing, "the copy on \(host) is not the plan's file: \(error.problem)",
                file: error.file ?? file.path, advice: error.advice)
            return Opened(source: try replacement(for: file, because: trouble), copy: nil)
        }
        guard let fallback else {
            throw TesseraError(
                .inputMissing, "the file is under none of this worker's roots \(roots.directories.joined(separator: ", "))",
                file: file.path)
        }
        return Opened(source: try fallback.open(file), copy: nil)
    }

    /// - Returns: `nil` when this host has no file of that name.
    private func openCopy(_ file: InputFile) throws(TesseraError) -> Opened? {
        guard let path = try roots.find(file) else { return nil }
        let source = try roots.files.open(path)
        guard !isPlanningHost || source.identity == file.version else {
            throw TesseraError(
                .badData, "the file was changed or replaced after the job was planned", file: path,
                advice: "make sure that nobody writes the inputs during a merge, and run it again")
        }
        // Between the two the file may have been replaced by a shorter one, which must not be mapped.
        guard source.size == file.size else { throw TesseraError(.io, "was replaced while it was opened", file: path) }
        return Opened(source: source, copy: (path, source.identity))
    }

    private func replacement(for file: InputFile, because trouble: TesseraError) throws -> any ByteSource {
        guard let fallback else { throw trouble }
        log.warning("fetching an input from the coordinator instead: \(trouble)")
        return try fallback.open(file)
    }
}
