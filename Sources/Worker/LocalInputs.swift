package import Core
package import Logging
import Synchronization
package import Work

/// Opens inputs from this host's roots, and fetches from the coordinator what this host lacks or holds in another version.
///
/// A local copy that is missing, differs from the planned file or cannot be read is a problem of this host. Other hosts may have
/// the right file, so the problem must not fail the job.
package final class LocalInputs: InputProvider {
    private let roots: Roots
    /// Supplies files that this host does not have.
    private let fallback: (any InputProvider)?
    /// Whether this host made the plan. If so, file versions can be compared, and an error is final.
    private let isPlanningHost: Bool
    /// The name of this host in errors.
    private let host: String
    private let log: Logger
    private let digests: InputDigests
    private let opened = Mutex<[InputFile: Opened]>([:])

    private struct Opened {
        let source: any ByteSource
        /// The path and identity of the local copy when opened; `nil` for a fetched file.
        let copy: (path: String, identity: String)?
        /// Why the local copy is not used.
        var trouble: TesseraError?
    }

    /// For the host that made the plan: its files must be the planned files, or the job fails.
    package convenience init(planningHostWith roots: Roots) {
        self.init(
            roots: roots, fallback: nil, isPlanningHost: true, host: "", digests: InputDigests(), log: Self.silent)
    }

    /// - Parameters:
    ///   - host: the name of this host in errors.
    ///   - digests: of this host's copies.
    package convenience init(
        roots: Roots, fallback: (any InputProvider)? = nil, host: String, digests: InputDigests = InputDigests(), log: Logger
    ) {
        self.init(roots: roots, fallback: fallback, isPlanningHost: false, host: host, digests: digests, log: log)
    }

    private init(
        roots: Roots, fallback: (any InputProvider)?, isPlanningHost: Bool, host: String, digests: InputDigests, log: Logger
    ) {
        self.roots = roots
        self.digests = digests
        self.fallback = fallback
        self.isPlanningHost = isPlanningHost
        self.host = host
        self.log = log
    }

    private static let silent = Logger(label: "tessera.inputs") { _ in SwiftLogNoOpLogHandler() }

    /// - Throws: on the host that made the plan, what is wrong with the file; elsewhere `inputMissing` or `io` with the host's
    ///   name, and what the fallback throws.
    package func open(_ file: InputFile) throws -> any ByteSource {
        if let kept = opened.withLock({ $0[file] }), isCurrent(kept) { return kept.source }
        return try keep(openAnew(file), for: file)
    }

    /// Closes all files. Call when no shard needs them any longer.
    package func closeAll() { opened.withLock { $0.removeAll() } }

    /// Closes files of which a read failed: after an error such as ESTALE only a fresh descriptor can do better.
    func letGo(of files: [InputFile]) { opened.withLock { opened in for file in files { opened[file] = nil } } }

    /// What is wrong with this host's copy of one of the files, which was fetched instead; `nil` where nothing is.
    func trouble(of files: [InputFile]) -> TesseraError? {
        opened.withLock { opened in files.compactMap { opened[$0]?.trouble }.first }
    }

    /// Finds the cause of a shard's failure. If a local copy of an input was cut short or written to while it was open, that is
    /// the cause, whatever it led to, and the copy is not used again.
    ///
    /// - Returns: what happened to the input, on another host than the planning one as `io` with the host's name; otherwise
    ///   `error`.
    func explain(_ error: TesseraError, of files: [InputFile]) -> TesseraError {
        for file in files {
            guard let kept = opened.withLock({ $0[file] }), let copy = kept.copy, let change = change(of: kept, file) else {
                continue
            }
            opened.withLock { $0[file] = nil }
            if isPlanningHost { return change }
            let trouble = TesseraError(
                .io, "the copy on \(host) changed or ended early while it was read: \(change.problem)", file: copy.path)
            // One of which nobody knows whether it was written to is looked at again.
            if change.code != .temporary, let source = try? replacement(for: file, because: trouble) {
                _ = keep(Opened(source: source, copy: nil, trouble: trouble), for: file)
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

    /// Whether the name still stands for the file that is open, and the file is what it was.
    private func isCurrent(_ opened: Opened) -> Bool {
        guard let copy = opened.copy else { return true }
        return ((try? roots.files.status(of: copy.path)) ?? nil)?.identity == copy.identity
            && (try? opened.source.checkUnchanged()) != nil
    }

    /// What has happened to the copy since it was opened; `nil` if it is unchanged and its last byte can be read.
    private func change(of opened: Opened, _ file: InputFile) -> TesseraError? {
        do throws(TesseraError) {
            try opened.source.checkUnchanged()
            _ = try opened.source.bytes(max(0, file.size - 1)..<file.size)
            return nil
        } catch {
            return error
        }
    }

    private func openAnew(_ file: InputFile) throws -> Opened {
        do throws(TesseraError) {
            if let copy = try openCopy(file) { return copy }
        } catch {
            guard !isPlanningHost else { throw error }
            let trouble = TesseraError(
                error.code == .io ? .io : .inputMissing, "the copy on \(host) is not the plan's file: \(error.problem)",
                file: error.file ?? file.path, advice: error.advice)
            return Opened(source: try replacement(for: file, because: trouble), copy: nil, trouble: trouble)
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
        guard !isPlanningHost || (source.identity == file.version && source.size == file.size) else {
            throw TesseraError(
                .badData, "the file was changed or replaced after the job was planned", file: path,
                advice: "make sure that nobody writes the inputs during a merge, and run it again")
        }
        // The file may have been replaced by a shorter one in between, which must not be mapped.
        guard source.size == file.size else { throw TesseraError(.io, "was replaced while it was opened", file: path) }
        // A copy with the right header may be another fine-tune.
        if !isPlanningHost, let contents = file.contents {
            try digests.check(source, path: file.path, against: contents, file: path)
        }
        return Opened(source: source, copy: (path, source.identity))
    }

    private func replacement(for file: InputFile, because trouble: TesseraError) throws -> any ByteSource {
        guard let fallback else { throw trouble }
        log.warning("fetching an input from the coordinator instead", metadata: ["reason": "\(trouble)"])
        return try fallback.open(file)
    }
}
