import CLinux
import Glibc
import Synchronization

/// Outputs as directories on this host: `OUT.partial-<job>` beside OUT until it is committed.
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
        let components = FilePath.components(of: FilePath.absolute(path, in: workingDirectory))
        guard let name = components.last, name != ".", name != ".." else {
            throw TesseraError(.cannotCreate, "is no name for an output directory", file: path)
        }
        let parent = "/" + components.dropLast().joined(separator: "/")
        guard let canonical = realpath(parent, nil) else {
            throw TesseraError(
                .cannotCreate, "the directory above the output does not exist", file: parent, advice: "create it first")
        }
        defer { free(canonical) }
        let directory = String(cString: canonical)
        if let root, FilePath.relative(directory, to: root) == nil {
            throw TesseraError(.notAllowed, "the output lies outside the output root \(root)", file: path)
        }
        return FilePath.join(directory, name)
    }

    package func begin(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> any OutputTransaction {
        let replaced = try replaced(output, overwrite: overwrite)
        let directory = Self.partialDirectory(output, job: job)
        guard mkdir(directory, 0o777) == 0 else {
            throw TesseraError(
                .cannotCreate, "cannot create the output directory: \(String(cString: strerror(errno)))", file: directory,
                advice: "check that the directory above it exists and can be written")
        }
        return transaction(output, directory: directory, replaced: replaced)
    }

    private func transaction(
        _ output: String, directory: String, replaced: ReplacedDirectory?
    ) -> any OutputTransaction {
        let relative = root.flatMap { FilePath.relative(directory, to: $0) }
        return LocalOutput(
            output: output, location: OutputLocation(directory: directory, relative: relative), replaced: replaced,
            calls: calls)
    }

    package func resume(_ output: String, job: String, overwrite: Bool) throws(TesseraError) -> (any OutputTransaction)? {
        let directory = Self.partialDirectory(output, job: job)
        var status = stat()
        guard lstat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return nil }
        return transaction(output, directory: directory, replaced: try replaced(output, overwrite: overwrite))
    }

    package func discard(_ output: String, job: String) {
        let directory = Self.partialDirectory(output, job: job)
        var status = stat()
        guard lstat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return }
        calls.remove(directory)
    }

    package func file(_ name: String, of output: String) throws(TesseraError) -> [UInt8]? {
        let path = "\(output)/\(name)"
        guard access(path, F_OK) == 0 else { return nil }
        return try LocalFiles().read(path, maxBytes: 64 << 20)
    }

    private static func partialDirectory(_ output: String, job: String) -> String { "\(output).partial-\(job)" }

    /// The existing output that `commit` will replace.
    private func replaced(_ output: String, overwrite: Bool) throws(TesseraError) -> ReplacedDirectory? {
        var status = stat()
        guard lstat(output, &status) == 0 else { return nil }
        guard overwrite else {
            throw TesseraError(
                .cannotCreate, "the output exists", file: output, advice: "choose another path, or add --overwrite to replace it")
        }
        let replaced = ReplacedDirectory(device: status.st_dev, inode: status.st_ino, ownFiles: ownFiles)
        guard status.st_mode & S_IFMT == S_IFDIR else { throw ReplacedDirectory.stranger(output) }
        try replaced.check(output, as: output)
        return replaced
    }
}

/// An output that another one will replace.
private struct ReplacedDirectory: Sendable {
    let device: dev_t
    let inode: ino_t
    let ownFiles: LocalOutputStore.OwnFiles

    static func stranger(_ output: String) -> TesseraError {
        TesseraError(
            .cannotCreate, "the output exists and was not written by Tessera, so it is not replaced", file: output,
            advice: "remove it yourself, or choose another path")
    }

    /// - Parameter output: the output's name for users; `path` may be another name by now.
    /// - Throws: `cannotCreate` if another directory is at `path`, or holds files that Tessera did not write.
    func check(_ path: String, as output: String) throws(TesseraError) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_dev == device, status.st_ino == inode else {
            throw TesseraError(.cannotCreate, "the output was replaced by others while the job ran", file: output)
        }
        guard let own = ownFiles(path) else { throw Self.stranger(output) }
        if let name = try filesBelow(path).first(where: { !own.contains($0) }) {
            throw TesseraError(
                .cannotCreate, "the output holds '\(name)', which Tessera did not write, so it is not replaced", file: output,
                advice: "move the file away, or choose another path")
        }
    }
}

/// The steps of creating, naming and removing directories, as a value so that tests can watch their order and stop between two of
/// them.
package struct DirectoryCalls: Sendable {
    /// Creates a part: path, bytes, whether its space is reserved.
    package var create: @Sendable (String, Int, Bool) throws(TesseraError) -> OutputFile
    /// Makes a directory's entries durable.
    package var sync: @Sendable (String) throws(TesseraError) -> Void
    /// Gives a directory a new name that must not exist; returns 0 or an error number.
    package var rename: @Sendable (String, String) -> Int32
    /// Exchanges the names of two directories in one step; returns 0 or an error number.
    package var exchange: @Sendable (String, String) -> Int32
    /// Removes a directory of plain files and folders of such; what cannot be removed stays.
    package var remove: @Sendable (String) -> Void

    package static let system = DirectoryCalls(
        create: { (path, size, reserve) throws(TesseraError) in
            try OutputFile(creating: path, size: size, reserve: reserve)
        },
        sync: { (path) throws(TesseraError) in try syncDirectory(path) },
        rename: { rename_noreplace($0, $1) == 0 ? 0 : errno },
        exchange: { rename_exchange($0, $1) == 0 ? 0 : errno },
        remove: { directory in
            for name in (try? filesBelow(directory)) ?? [] { unlink("\(directory)/\(name)") }
            for name in (try? foldersBelow(directory)) ?? [] { rmdir("\(directory)/\(name)") }
            rmdir(directory)
        })
}

/// One output on this host's file system.
private final class LocalOutput: OutputTransaction {
    private enum Phase {
        case open, committing, committed, aborted
    }

    private struct State {
        var phase = Phase.open
        var parts: [OutputFile] = []
        /// Whether a crash would leave the directory and its files where they are.
        var hasDurableNames = false
    }

    private let output: String
    private let directory: String
    let location: OutputLocation?
    private let replaced: ReplacedDirectory?
    private let calls: DirectoryCalls
    /// Held while parts are created: whoever gives the output up waits for that, and nothing is created later.
    private let state = Mutex(State())
    /// Whether everything is removed. Held while it is, apart from `state`, so that only those wait who want it gone.
    private let isRemoved = Mutex(false)

    init(output: String, location: OutputLocation, replaced: ReplacedDirectory?, calls: DirectoryCalls) {
        self.output = output
        self.location = location
        directory = location.directory
        self.replaced = replaced
        self.calls = calls
    }

    private static let givenUp = TesseraError(.cancelled, "the output was given up")

    func layOut(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
        try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            do throws(TesseraError) {
                let reserves = try Self.reserves(parts.reduce(0) { $0 + $1.size }, in: directory)
                for part in parts {
                    try createFolders(of: part.name)
                    let file = try calls.create("\(directory)/\(part.name)", part.size, reserves)
                    try file.write(part.header)
                    state.parts.append(file)
                }
                for file in files { try linkOrCopy(file, to: "\(directory)/\(file.name)") }
                state.hasDurableNames = false
            } catch {
                state = State(phase: .aborted)
                remove()
                throw error
            }
        }
    }

    func reopen(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
        try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            let names = Set(parts.map(\.name))
            for name in try filesBelow(directory) where !names.contains(name) { unlink("\(directory)/\(name)") }
            for name in try foldersBelow(directory) { rmdir("\(directory)/\(name)") }
            for part in parts {
                let file = try OutputFile(existing: "\(directory)/\(part.name)", size: part.size)
                // Nobody made the header durable.
                try file.write(part.header)
                state.parts.append(file)
            }
            for file in files { try linkOrCopy(file, to: "\(directory)/\(file.name)") }
        }
    }

    func sync(_ parts: Set<Int>) throws(TesseraError) {
        let (files, hasDurableNames) = try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            return (parts.sorted().compactMap { state.parts.indices.contains($0) ? state.parts[$0] : nil }, state.hasDurableNames)
        }
        for file in files { try file.sync() }
        guard !hasDurableNames else { return }
        for folder in try foldersBelow(directory) { try calls.sync("\(directory)/\(folder)") }
        try calls.sync(directory)
        try calls.sync(parent)
        state.withLock { $0.hasDurableNames = true }
    }

    func put(_ bytes: UnsafeRawBufferPointer, part: Int, at offset: Int) throws(TesseraError) {
        let file = try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            return state.parts.indices.contains(part) ? state.parts[part] : nil
        }
        guard let file else { throw TesseraError(.internal, "there is no part \(part)") }
        try file.write(bytes, at: offset)
    }

    func putFile(_ name: String, _ bytes: [UInt8]) throws(TesseraError) {
        try createFolders(of: name)
        try writeFile("\(directory)/\(name)", bytes, sync: true)
    }

    /// Creates the folders that a file's name leads through.
    private func createFolders(of name: String) throws(TesseraError) {
        var folder = directory
        for step in FilePath.components(of: name).dropLast() {
            folder += "/\(step)"
            guard mkdir(folder, 0o777) == 0 || errno == EEXIST else { throw .system(errno, "create", folder) }
        }
    }

    func fileNames() throws(TesseraError) -> [String] { try filesBelow(directory) }

    func open(_ name: String) throws(TesseraError) -> any ByteSource {
        PreadSource(try ReadableFile("\(directory)/\(name)"))
    }

    func commit() throws(TesseraError) {
        let parts = try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            state.phase = .committing
            return state.parts
        }
        do throws(TesseraError) {
            for part in parts { try part.sync() }
            for folder in try foldersBelow(directory) { try calls.sync("\(directory)/\(folder)") }
            try calls.sync(directory)
            try giveName()
        } catch {
            state.withLock { $0.phase = .open }
            throw error
        }
        // The output has its name: from here on nothing may be removed under the old one that is still needed.
        state.withLock { $0.phase = .committed }
        try calls.sync(parent)
        // Only now: a crash before the exchange is durable may bring the old names back, and the replaced directory with them.
        if replaced != nil { calls.remove(directory) }
    }

    private func giveName() throws(TesseraError) {
        if let replaced {
            // In one step, so that the output is the old directory or the new one at every moment.
            let number = calls.exchange(directory, output)
            guard number == 0 else { throw .system(number, "replace", output) }
            do throws(TesseraError) {
                // Only now nobody finds the old output by its name any more and adds to it.
                try replaced.check(directory, as: output)
            } catch {
                _ = calls.exchange(directory, output)
                throw error
            }
        } else {
            let number = calls.rename(directory, output)
            guard number == 0 else {
                throw number == EEXIST
                    ? TesseraError(.cannotCreate, "the output appeared while the job ran", file: output)
                    : .system(number, "rename to", output)
            }
        }
    }

    func abort() {
        let isAborted = state.withLock { state in
            if state.phase == .open { state = State(phase: .aborted) }
            return state.phase == .aborted
        }
        if isAborted { remove() }
    }

    /// Returns when everything is gone, whoever removes it.
    private func remove() {
        isRemoved.withLock { isRemoved in
            if !isRemoved { calls.remove(directory) }
            isRemoved = true
        }
    }

    private var parent: String { FilePath.parent(of: output) }

    /// Whether space is to be reserved file by file. In memory (tmpfs) that would write every page once for nothing, so there the
    /// free space is compared instead.
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
}

/// Gives a finished file a second name, or copies it where that is not possible.
private func linkOrCopy(_ file: AdoptedFile, to target: String) throws(TesseraError) {
    if let path = file.files.localPath(of: file.path) {
        try file.check(size: try file.files.status(of: file.path)?.size)
        if link(path, target) == 0 { return }
    }
    let copy = try OutputFile(creating: target, size: file.size, reserve: true)
    try file.forEachPiece { (bytes, offset) throws(TesseraError) in try copy.write(bytes, at: offset) }
    try copy.sync()
}

private func syncDirectory(_ path: String) throws(TesseraError) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system(errno, "open", path) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw .system(errno, "make durable", path) }
}
