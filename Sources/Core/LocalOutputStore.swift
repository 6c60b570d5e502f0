import CLinux
import Glibc

/// Outputs as directories on this host: `OUT.partial-<job>` beside OUT until it is committed.
///
/// Below the root, directories are reached without following a link (`Directory`): an output that is led astray after it was
/// checked is refused.
package struct LocalOutputStore: OutputStore {
    private let root: String?
    private let ownFiles: OwnFiles
    private let calls: DirectoryCalls

    /// The files that Tessera wrote into a directory, by their paths relative to it; `nil` for a directory that is no output.
    package typealias OwnFiles = @Sendable (_ directory: String) -> Set<String>?

    /// - Parameters:
    ///   - root: absolute path that every output must lie under; `nil` allows any.
    ///   - ownFiles: tells outputs that may be replaced from directories of users.
    package init(root: String? = nil, ownFiles: @escaping OwnFiles, calls: DirectoryCalls = .system) {
        self.root = root
        self.ownFiles = ownFiles
        self.calls = calls
    }

    package func resolve(_ path: String, workingDirectory: String) throws(TesseraError) -> String {
        guard !path.isEmpty else { throw TesseraError(.usage, "the output has no name", advice: "name a directory to create") }
        guard path != "-" else {
            throw TesseraError(
                .usage, "an output is a directory, which stdout cannot take", file: path, advice: "name a directory to create")
        }
        let components = FilePath.components(of: FilePath.absolute(path, in: workingDirectory))
        guard let name = components.last, FilePath.isName(name), !OutputSite.isUnfinished(name),
            components.allSatisfy({ !$0.utf8.contains(0) })
        else { throw TesseraError(.cannotCreate, "is no name for an output directory", file: path) }
        let parent = "/" + components.dropLast().joined(separator: "/"), canonical = realpath(parent, nil)
        defer { free(canonical) }
        let directory = canonical.map { String(cString: $0) }
        if let root, FilePath.join(directory ?? FilePath.normalized(parent), name) == root {
            throw TesseraError(
                .notAllowed, "the output is the output root itself", file: root,
                advice: "name a directory below it, such as \(FilePath.join(root, "merged"))")
        }
        // Nobody learns what lies outside the root.
        if let root, FilePath.relative(directory ?? FilePath.normalized(parent), to: root) == nil {
            throw TesseraError(
                .notAllowed, "the output lies outside the output root \(root)",
                file: FilePath.absolute(path, in: workingDirectory), advice: "name a directory below it, such as \(root)/\(name)")
        }
        guard let directory else {
            throw TesseraError(
                .cannotCreate, "the directory above the output does not exist", file: parent, advice: "create it first")
        }
        try checkAbove(directory, of: path)
        return FilePath.join(directory, name)
    }

    /// An output may lie in no other, finished or not: it would be published, signed or removed with the other.
    private func checkAbove(_ directory: String, of path: String) throws(TesseraError) {
        var above = directory
        while above != "/", above != root {
            let isUnfinished = OutputSite.isUnfinished(FilePath.components(of: above).last ?? "")
            guard !isUnfinished, ownFiles(above) == nil else {
                throw TesseraError(
                    .notAllowed, "the output would lie in another \(isUnfinished ? "unfinished " : "")output, \(above)",
                    file: path,
                    advice: "choose a directory beside it")
            }
            above = FilePath.parent(of: above)
        }
    }

    package func begin(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> any OutputTransaction {
        let site = OutputSite(output: output, job: job, root: root), parent = try site.parent()
        let replaced = try replaced(site, in: parent, overwrite: overwrite)
        let number = parent.makeDirectory(site.partialName)
        guard number == 0 else {
            throw .cannotWrite(into: FilePath.parent(of: site.partialPath), number)
        }
        return try transaction(site, try parent.directory(site.partialName), replaced: replaced)
    }

    private func transaction(
        _ site: OutputSite, _ directory: Directory, replaced: ReplacedDirectory?
    ) throws(TesseraError) -> any OutputTransaction {
        guard let identity = directory.identity else { throw .system(errno, "examine", directory.path) }
        return LocalOutput(site, identity: identity, replaced: replaced, calls: calls)
    }

    package func resume(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> (any OutputTransaction)? {
        let site = OutputSite(output: output, job: job, root: root), parent = try site.parent()
        guard let directory = try? parent.directory(site.partialName) else { return nil }
        return try transaction(site, directory, replaced: try replaced(site, in: parent, overwrite: overwrite))
    }

    package func discard(_ output: String, job: String) {
        let site = OutputSite(output: output, job: job, root: root)
        guard let parent = try? site.parent(), (try? parent.directory(site.partialName)) != nil else { return }
        calls.remove(parent, site.partialName)
    }

    package func file(_ name: String, of output: String) throws(TesseraError) -> [UInt8]? {
        let site = OutputSite(output: output, job: "", root: root)
        guard let directory = try? site.parent().directory(site.name), directory.status(of: name) != nil else { return nil }
        let file = try ReadableFile(name, in: directory)
        guard file.size <= 64 << 20 else { throw TesseraError(.badData, "has \(file.size) bytes", file: file.path) }
        return try file.bytes(0..<file.size)
    }

    /// The unfinished output of a job.
    package static func partialPath(of output: String, job: String) -> String {
        OutputSite(output: output, job: job, root: nil).partialPath
    }

    private func isOwnOrEmpty(_ directory: Directory) -> Bool {
        ownFiles(directory.path) != nil || (try? directory.names().isEmpty) == true
    }

    /// The existing output that `commit` will replace.
    private func replaced(
        _ site: OutputSite, in parent: Directory, overwrite: Bool
    ) throws(TesseraError) -> ReplacedDirectory? {
        guard let status = parent.status(of: site.name) else { return nil }
        guard overwrite else {
            let mayBeReplaced = (try? parent.directory(site.name)).map { isOwnOrEmpty($0) } ?? false
            throw TesseraError(
                .cannotCreate, mayBeReplaced ? "the output exists" : "the output exists, and Tessera did not write it",
                file: site.output,
                advice: mayBeReplaced
                    ? "choose another path, or add --overwrite to replace it"
                    : "choose another path, or move it away: not even --overwrite replaces what others wrote")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw ReplacedDirectory.stranger(site.output) }
        guard let identity = parent.identity(of: site.name) else { return nil }
        let replaced = ReplacedDirectory(output: site.output, identity: identity, ownFiles: ownFiles)
        try replaced.check(site.name, in: parent)
        return replaced
    }
}

/// Where an output lies, and its directory until it is committed. Directories are opened for each use: a job that waits keeps no
/// descriptor.
struct OutputSite: Sendable {
    /// Absolute.
    let output: String
    let name: String
    let partialName: String
    let root: String?

    init(output: String, job: String, root: String?) {
        self.output = output
        self.root = root
        name = FilePath.components(of: output).last ?? ""
        partialName = "\(name).partial-\(job)"
    }

    /// Whether a name is one that unfinished outputs have, or the state of a run.
    static func isUnfinished(_ name: String) -> Bool {
        let pieces = name.split(separator: ".partial-", omittingEmptySubsequences: false)
        guard pieces.count > 1, let mark = pieces.last else { return false }
        return mark == "state" || (mark.utf8.count == 32 && mark.allSatisfy { $0.isASCII && $0.isHexDigit })
    }

    var partialPath: String { FilePath.join(FilePath.parent(of: output), partialName) }

    func location(on device: UInt64) -> OutputLocation {
        OutputLocation(
            directory: partialPath, relative: root.flatMap { FilePath.relative(partialPath, to: $0) }, device: device)
    }

    /// The directory that holds the output.
    ///
    /// - Throws: `notAllowed` if a link leads to it by now.
    func parent() throws(TesseraError) -> Directory {
        let path = FilePath.parent(of: output)
        guard let root else { return try Directory(path) }
        guard let relative = FilePath.relative(path, to: root) else {
            throw TesseraError(.notAllowed, "the output lies outside the output root \(root)", file: output)
        }
        return try Directory(root).directory(relative)
    }
}

/// An output that another one will replace.
struct ReplacedDirectory: Sendable {
    /// The output's name for users.
    let output: String
    let identity: FileIdentity
    let ownFiles: LocalOutputStore.OwnFiles

    static func stranger(_ output: String) -> TesseraError {
        TesseraError(
            .cannotCreate, "the output exists and was not written by Tessera, so it is not replaced", file: output,
            advice: "remove it yourself, or choose another path")
    }

    /// - Parameter name: may be another than the output's by now.
    /// - Throws: `cannotCreate` if another directory has the name, or the directory holds files that Tessera did not write.
    func check(_ name: String, in parent: Directory) throws(TesseraError) {
        guard let directory = try? parent.directory(name), directory.identity == identity else {
            throw TesseraError(.cannotCreate, "the output was replaced by others while the job ran", file: output)
        }
        // Nothing is lost with an empty directory.
        let isEmpty = try directory.names().isEmpty
        guard let own = ownFiles(directory.path) ?? (isEmpty ? [] : nil) else { throw Self.stranger(output) }
        if let name = try directory.filesBelow().first(where: { !own.contains($0) }) {
            throw TesseraError(
                .cannotCreate, "the output holds '\(name)', which Tessera did not write, so it is not replaced", file: output,
                advice: "move the file away, or choose another path")
        }
    }
}

/// The steps of creating, naming and removing directories, as a value so that tests can watch their order and stop between two of
/// them. Each is given the directory that it works in.
package struct DirectoryCalls: Sendable {
    /// Creates a part: its name, bytes, whether its space is reserved.
    package var create: @Sendable (Directory, String, Int, Bool) throws(TesseraError) -> OutputFile
    /// Makes a directory's entries durable.
    package var sync: @Sendable (Directory) throws(TesseraError) -> Void
    /// Gives a directory a new name that must not exist; returns 0 or an error number.
    package var rename: @Sendable (Directory, String, String) -> Int32
    /// Exchanges the names of two directories in one step; returns 0 or an error number.
    package var exchange: @Sendable (Directory, String, String) -> Int32
    /// Removes a directory of plain files and folders of such; what cannot be removed stays.
    package var remove: @Sendable (Directory, String) -> Void

    package static let system = DirectoryCalls(
        create: { (directory, name, size, reserve) throws(TesseraError) in
            try OutputFile(creating: name, in: directory, size: size, reserve: reserve)
        },
        sync: { (directory) throws(TesseraError) in try directory.sync() },
        rename: { $0.rename($1, to: $2) },
        exchange: { $0.exchange($1, with: $2) },
        remove: { $0.removeDirectory($1) })
}
