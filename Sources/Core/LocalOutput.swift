import CLinux
import Glibc
import Synchronization

/// One output on this host's file system.
final class LocalOutput: OutputTransaction {
    private enum Phase {
        case open, committing, committed, aborted
    }

    /// A file that must be in the output, unchanged in name and size, when it is published.
    private struct Part {
        let name: String
        /// Bytes.
        let size: Int
        let header: [UInt8]
        let identity: FileIdentity
        /// Open from the first block on, so that no error of its disk is missed. Parts of a job that waits are closed.
        var file: OutputFile?
    }

    private struct State {
        var phase = Phase.open
        var parts: [Part] = []
        /// Files that came unchanged from other outputs.
        var adopted: [Part] = []
        /// All others that were written.
        var others: Set<ExactText> = []
        /// Whether a crash would leave the directory and its files where they are.
        var hasDurableNames = false
    }

    private let site: OutputSite
    /// Of the unfinished output's directory.
    private let identity: FileIdentity
    private let replaced: ReplacedDirectory?
    private let calls: DirectoryCalls
    /// Held while parts are created: whoever gives the output up waits for that, and nothing is created later.
    private let state = Mutex(State())
    /// Whether everything is removed. Held while it is, apart from `state`, so that only those wait who want it gone.
    private let isRemoved = Mutex(false)

    init(_ site: OutputSite, identity: FileIdentity, replaced: ReplacedDirectory?, calls: DirectoryCalls) {
        self.site = site
        self.identity = identity
        self.replaced = replaced
        self.calls = calls
    }

    var location: OutputLocation? { site.location(on: UInt64(identity.device)) }

    private static let givenUp = TesseraError(.cancelled, "the output was given up")

    // MARK: Parts

    func layOut(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
        try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            let directory = try directory()
            do throws(TesseraError) {
                try clear(directory, &state)
                let reserves = try Self.reserves(parts.reduce(0) { $0 + $1.size }, in: directory)
                for part in parts {
                    _ = try folder(of: part.name, in: directory)
                    let file = try calls.create(directory, part.name, part.size, reserves)
                    try file.write(part.header)
                    state.parts.append(
                        Part(name: part.name, size: part.size, header: part.header, identity: file.identity))
                }
                try adopt(files, in: directory, &state)
                state.hasDurableNames = false
            } catch {
                try? clear(directory, &state)
                throw error
            }
        }
    }

    /// Removes what an earlier layout has left, but for the files of these names.
    private func clear(
        _ directory: Directory, keeping names: Set<String> = [], _ state: inout State
    ) throws(TesseraError) {
        state.parts = []
        state.adopted = []
        for name in try directory.filesBelow() where !names.contains(name) { directory.removeFile(name) }
        // A folder that holds parts is not empty, and stays.
        for name in try directory.foldersBelow() { directory.removeEmptyDirectory(name) }
    }

    func reopen(_ parts: [OutputPart], adopting files: [AdoptedFile]) throws(TesseraError) {
        try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            let directory = try directory()
            try clear(directory, keeping: Set(parts.map(\.name)), &state)
            for part in parts {
                let file = try OutputFile(existing: part.name, in: directory, size: part.size)
                // Nobody may have made the header durable.
                try file.write(part.header)
                state.parts.append(Part(name: part.name, size: part.size, header: part.header, identity: file.identity))
            }
            try adopt(files, in: directory, &state)
        }
    }

    private func adopt(_ files: [AdoptedFile], in directory: Directory, _ state: inout State) throws(TesseraError) {
        for file in files {
            try linkOrCopy(file, into: directory)
            guard let identity = directory.identity(of: file.name) else { throw changed(file.name) }
            state.adopted.append(Part(name: file.name, size: file.size, header: [], identity: identity))
        }
    }

    /// A part, open for writing. Stays open with `keeps`.
    private func opened(_ part: Int, keeps: Bool, _ state: inout State) throws(TesseraError) -> OutputFile? {
        guard state.parts.indices.contains(part) else { return nil }
        if let file = state.parts[part].file { return file }
        let known = state.parts[part], file = try OutputFile(existing: known.name, in: try directory(), size: known.size)
        guard file.identity == known.identity else { throw changed(known.name) }
        if keeps { state.parts[part].file = file }
        return file
    }

    func sync(_ parts: Set<Int>) throws(TesseraError) {
        let (files, hasDurableNames) = try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            var files: [OutputFile] = []
            for part in parts.sorted() { if let file = try opened(part, keeps: true, &state) { files.append(file) } }
            return (files, state.hasDurableNames)
        }
        try check(parts)
        for file in files { try file.sync() }
        guard !hasDurableNames else { return }
        let directory = try directory()
        for folder in try directory.foldersBelow() { try calls.sync(try directory.directory(folder)) }
        try calls.sync(directory)
        try calls.sync(try site.parent())
        state.withLock { $0.hasDurableNames = true }
    }

    func put(_ bytes: UnsafeRawBufferPointer, part: Int, at offset: Int) throws(TesseraError) {
        let file = try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            return try opened(part, keeps: true, &state)
        }
        guard let file else { throw TesseraError(.internal, "there is no part \(part)") }
        try file.write(bytes, at: offset)
    }

    func check(_ parts: Set<Int>) throws(TesseraError) {
        let known = state.withLock { state in
            parts.sorted().compactMap { state.parts.indices.contains($0) ? state.parts[$0] : nil }
        }
        try check(try directory(), known)
    }

    func probe() throws(TesseraError) {
        let directory = try directory()
        defer { directory.removeFile(Self.probeName) }
        do throws(TesseraError) {
            try directory.write(Self.probeName, [UInt8](repeating: 0, count: 64 << 10))
        } catch {
            // The probe's file means nothing to anybody, and is gone.
            var error = error
            error.file = site.partialPath
            throw error
        }
    }

    private static let probeName = ".tessera-probe"

    // MARK: Other files

    func putFile(_ name: String, _ bytes: [UInt8]) throws(TesseraError) {
        try folder(of: name, in: try directory()).write(FilePath.components(of: name).last ?? name, bytes)
        state.withLock { _ = $0.others.insert(ExactText(name)) }
    }

    /// The folder that a file's name leads to, which is created where it is missing.
    private func folder(of name: String, in directory: Directory) throws(TesseraError) -> Directory {
        var folder = directory
        for step in FilePath.components(of: name).dropLast() {
            let number = folder.makeDirectory(step)
            guard number == 0 || number == EEXIST else { throw .system(number, "create", "\(folder.path)/\(step)") }
            folder = try folder.directory(step)
        }
        return folder
    }

    func fileNames() throws(TesseraError) -> [String] { try directory().filesBelow() }

    func open(_ name: String) throws(TesseraError) -> any ByteSource {
        PreadSource(try ReadableFile(name, in: try directory()))
    }

    // MARK: The end

    func commit() throws(TesseraError) {
        let count = try state.withLock { state throws(TesseraError) in
            guard state.phase == .open else { throw Self.givenUp }
            state.phase = .committing
            return state.parts.count
        }
        let parent: Directory
        do throws(TesseraError) {
            parent = try site.parent()
            let directory = try directory()
            for part in 0..<count {
                let (file, header) = try state.withLock { state throws(TesseraError) in
                    (try opened(part, keeps: false, &state), state.parts[part].header)
                }
                // Once more: an earlier call may have failed to make it durable.
                try file?.write(header)
                try file?.sync()
            }
            for folder in try directory.foldersBelow() { try calls.sync(try directory.directory(folder)) }
            try calls.sync(directory)
            try check(directory, state.withLock { $0.parts + $0.adopted })
            try checkNames(in: directory)
            try giveName(in: parent)
        } catch {
            state.withLock { $0.phase = .open }
            throw error
        }
        // The output has its name: from here on nothing may be removed under the old one that is still needed.
        state.withLock { $0 = State(phase: .committed) }
        try calls.sync(parent)
        // Only now: a crash before the exchange is durable may bring the old names back, and the replaced directory with them.
        if replaced != nil { calls.remove(parent, site.partialName) }
    }

    /// - Throws: `cannotCreate` for a file that others have put there.
    private func checkNames(in directory: Directory) throws(TesseraError) {
        let known = state.withLock { state in
            state.others.union((state.parts + state.adopted).map { ExactText($0.name) })
        }
        // NFS keeps a file that is removed while somebody has it open under such a name.
        let isLeft = { (name: String) in FilePath.components(of: name).last?.hasPrefix(".nfs") == true }
        for name in try directory.filesBelow() where !known.contains(ExactText(name)) && !isLeft(name) {
            throw TesseraError(
                .cannotCreate, "the file was put into the output by others while the job ran",
                file: FilePath.join(site.partialPath, name),
                advice: "make sure that nobody else writes there, and submit the job again")
        }
    }

    /// - Throws: `cannotCreate` for a part that others have replaced, removed or cut short.
    private func check(_ directory: Directory, _ parts: [Part]) throws(TesseraError) {
        for part in parts {
            guard let status = directory.status(of: part.name), Int(status.st_size) == part.size,
                directory.identity(of: part.name) == part.identity
            else { throw changed(part.name) }
        }
    }

    private func changed(_ name: String) -> TesseraError {
        TesseraError(
            .cannotCreate, "the part was replaced, removed or cut short by others while the job ran",
            file: FilePath.join(site.partialPath, name),
            advice: "make sure that nobody else writes there, and submit the job again")
    }

    private func giveName(in parent: Directory) throws(TesseraError) {
        if let replaced {
            // In one step, so that the output is the old directory or the new one at every moment.
            let number = calls.exchange(parent, site.partialName, site.name)
            guard number == 0 else { throw .system(number, "replace", site.output) }
            do throws(TesseraError) {
                // Only now nobody finds the old output by its name any more and adds to it.
                try replaced.check(site.partialName, in: parent)
            } catch {
                _ = calls.exchange(parent, site.partialName, site.name)
                throw error
            }
        } else {
            let number = calls.rename(parent, site.partialName, site.name)
            guard number == 0 else {
                throw number == EEXIST
                    ? TesseraError(.cannotCreate, "the output appeared while the job ran", file: site.output)
                    : .system(number, "rename to", site.output)
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
            // A directory that took its place belongs to others.
            if !isRemoved, (try? directory()) != nil, let parent = try? site.parent() { calls.remove(parent, site.partialName) }
            isRemoved = true
        }
    }

    /// The unfinished output's directory.
    ///
    /// - Throws: `cannotCreate` if it is gone, or another directory has its name; `io` if its file system is not mounted.
    private func directory() throws(TesseraError) -> Directory {
        let found: Directory
        do throws(TesseraError) {
            found = try site.parent().directory(site.partialName)
        } catch  where error.code == .inputMissing {
            guard let parent = try? site.parent().identity, parent.isOnFileSystem(of: identity) else {
                throw TesseraError(
                    .io, "the file system of the unfinished output is not mounted", file: site.partialPath,
                    advice: "mount it again")
            }
            throw TesseraError(
                .cannotCreate, "the unfinished output was removed by others while the job ran", file: site.partialPath,
                advice: "make sure that nobody else removes it, and submit the job again")
        }
        guard found.identity == identity else {
            throw TesseraError(
                .cannotCreate, "the unfinished output was replaced by others while the job ran", file: site.partialPath,
                advice: "make sure that nobody else writes there, and submit the job again")
        }
        return found
    }

    /// Whether space is to be reserved file by file. In memory (tmpfs) that would write every page once for nothing, so there the
    /// free space is compared instead.
    ///
    /// - Throws: `io` when there is too little.
    private static func reserves(_ bytes: Int, in directory: Directory) throws(TesseraError) -> Bool {
        let tmpfs = 0x0102_1994
        var status = statfs()
        guard fstatfs(directory.descriptor, &status) == 0, Int(status.f_type) == tmpfs else { return true }
        guard bytes <= Int(clamping: status.f_bavail) * Int(status.f_bsize) else {
            throw .cannotReserve(bytes, for: directory.path, on: directory.descriptor, ENOSPC)
        }
        return false
    }
}

/// Gives a finished file a second name, or copies it where that is not possible.
private func linkOrCopy(_ file: AdoptedFile, into directory: Directory) throws(TesseraError) {
    if let local = try file.files.localFile(file.path) {
        try file.check(size: local.size)
        if directory.link(local, as: file.name) { return }
    }
    let copy = try OutputFile(creating: file.name, in: directory, size: file.size, reserve: true)
    try file.forEachPiece { (bytes, offset) throws(TesseraError) in try copy.write(bytes, at: offset) }
    try copy.sync()
}
