import Checkpoints
package import Core
import Dispatch
import FoundationEssentials
import Glibc
import Synchronization

/// What an input file holds, by digests. Whoever has another copy compares it with these.
package struct ContentPin: Sendable, Hashable, Codable {
    /// `ContentSample` of the file.
    package let sample: Digest
    /// SHA-256 of the whole file, for jobs that ask for that.
    package let sha256: Digest?

    package init(sample: Digest, sha256: Digest? = nil) {
        self.sample = sample
        self.sha256 = sha256
    }
}

/// Digests of input files, each computed once for each version of a file.
///
/// Samples are kept in memory: they cost hardly more than looking them up. Digests of whole files are also kept in a file for
/// other processes, in the first of some directories that can be written. That file is read only if nobody else can write it.
package final class InputDigests: Sendable {
    package static let fileName = ".tessera-digests.json"
    /// Entries of the file; it begins anew beyond.
    private static let entryLimit = 50_000
    /// What is known of a file of that size and identity.
    private struct Entry: Codable {
        let size: Int
        let identity: String
        var sample: Digest?
        var sha256: Digest?
    }

    private struct State {
        var entries: [String: Entry] = [:]
        var hasRead = false
    }

    /// Taken while a file is read, so that threads that need the same digest do not all compute it.
    private final class Turn: Sendable { let lock = Mutex(()) }

    private let directories: [String]
    private let state = Mutex(State())
    private let turns = (0..<64).map { _ in Turn() }

    /// - Parameter directories: where digests of whole files may be kept, in order of preference; none to keep them in memory.
    package init(directories: [String] = []) { self.directories = directories }

    // MARK: Digests

    /// The pin of an open file.
    ///
    /// - Parameters:
    ///   - path: tells files apart, on all hosts that share the directories.
    ///   - readsWhole: whether the pin has the digest of the whole file.
    /// - Throws: what reading throws; `badData` for a file that changes meanwhile.
    package func pin(
        _ source: any ByteSource, path: String, readsWhole: Bool = false
    ) throws(TesseraError) -> ContentPin {
        try turns[Int(UInt(bitPattern: path.hashValue) % UInt(turns.count))].lock.withLock { _ throws(TesseraError) in
            var entry = known(path, source)
            let sample = if let known = entry.sample { known } else { try ContentSample.digest(of: source) }
            let isNews = readsWhole && entry.sha256 == nil
            if isNews { entry.sha256 = try SHA256Sums.digest(of: source) }
            entry.sample = sample
            note(entry, path, isNews: isNews)
            return ContentPin(sample: sample, sha256: readsWhole ? entry.sha256 : nil)
        }
    }

    /// Checks that another copy of a file holds what the pin says.
    ///
    /// - Throws: `inputMissing` saying what differs, and what reading throws.
    package func check(
        _ source: any ByteSource, path: String, against pin: ContentPin, file: String
    ) throws(TesseraError) {
        let own = try self.pin(source, path: path, readsWhole: pin.sha256 != nil)
        guard own != pin else { return }
        let (kind, found, wanted) =
            own.sample != pin.sample
            ? ("a sample of it is", own.sample, pin.sample) : ("SHA-256 of it is", own.sha256 ?? .none, pin.sha256 ?? .none)
        throw TesseraError(
            .inputMissing, "has the size and header of the plan's file, and other values: \(kind) \(found), not \(wanted)",
            file: file, advice: "make the copies on all hosts the same")
    }

    private func known(_ path: String, _ source: any ByteSource) -> Entry {
        let entry = state.withLock { state in
            if !state.hasRead {
                state.hasRead = true
                state.entries.merge(read()) { own, _ in own }
            }
            return state.entries[path]
        }
        guard let entry, entry.size == source.size, entry.identity == source.identity else {
            return Entry(size: source.size, identity: source.identity)
        }
        return entry
    }

    /// - Parameter isNews: whether other processes should know.
    private func note(_ entry: Entry, _ path: String, isNews: Bool) {
        let whole = state.withLock { state in
            if state.entries.count >= Self.entryLimit { state.entries = [:] }
            state.entries[path] = entry
            return isNews ? state.entries.filter { $0.value.sha256 != nil } : [:]
        }
        if isNews { write(whole) }
    }

    // MARK: The file

    private struct Contents: Codable {
        static let formatName = "tessera.digests"
        var format = formatName
        var version = 1
        let files: [String: Entry]
    }

    private func read() -> [String: Entry] {
        for directory in directories {
            let path = "\(directory)/\(Self.fileName)"
            var status = stat()
            guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_uid == geteuid(),
                status.st_mode & 0o022 == 0, let bytes = try? LocalFiles().read(path, maxBytes: 64 << 20),
                let contents = try? JSONDecoder().decode(Contents.self, from: Data(bytes)),
                contents.format == Contents.formatName, contents.version == 1
            else { continue }
            return contents.files
        }
        return [:]
    }

    /// Where no directory can be written, other processes read the files again.
    private func write(_ entries: [String: Entry]) {
        let known = read().merging(entries) { _, own in own }
        let contents = Contents(files: known.count > Self.entryLimit ? entries : known)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(contents) else { return }
        for directory in directories {
            let path = "\(directory)/\(Self.fileName)"
            mkdir(directory, 0o777)
            guard (try? bytes.write(to: URL(fileURLWithPath: path), options: .atomic)) != nil else { continue }
            chmod(path, 0o644)
            return
        }
    }
}
