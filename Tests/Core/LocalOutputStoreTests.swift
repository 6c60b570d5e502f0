import Core
import Dispatch
import Foundation
import Synchronization
import TestSupport
import Testing

@Suite struct LocalOutputStoreTests {
    private let directory: TemporaryDirectory
    private let out: String
    private static let parts = (0..<3).map { OutputPart(name: "part\($0)", size: 8, header: [1, 2]) }

    init() throws {
        directory = try TemporaryDirectory()
        out = "\(directory.path)/out"
    }

    private func store(_ calls: DirectoryCalls = .system, root: String? = nil) -> LocalOutputStore {
        LocalOutputStore(root: root, ownFiles: Self.ownFiles, calls: calls)
    }

    /// Outputs have a file named `mark`; the user's files are named `mine`.
    private static let ownFiles: LocalOutputStore.OwnFiles = { directory in
        guard let names = try? filesBelow(directory), names.contains("mark") else { return nil }
        return Set(names).subtracting(["mine"])
    }

    private func begin(_ store: LocalOutputStore, overwrite: Bool = false) throws -> any OutputTransaction {
        try store.begin(out, job: "j", overwrite: overwrite)
    }

    private func writeOld() throws {
        try FileManager.default.createDirectory(atPath: out, withIntermediateDirectories: false)
        try directory.write("old", to: "out/mark")
    }

    /// Folders of sentence-transformers.
    @Test(arguments: [true, false])
    func filesInFolders(isCommitted: Bool) throws {
        let output = try begin(store())
        try output.putFile("1_Pooling/deep/config.json", [1])
        try output.putFile("1_Pooling/x", [2])
        try output.putFile("mark", [3])
        #expect(try output.fileNames() == ["1_Pooling/deep/config.json", "1_Pooling/x", "mark"])
        guard isCommitted else {
            output.abort()
            #expect(directory.names == [])
            return
        }
        try output.commit()
        #expect(FileManager.default.contents(atPath: "\(out)/1_Pooling/deep/config.json") == Data([1]))
        // The next output replaces all of it.
        let other = try begin(store(), overwrite: true)
        try other.putFile("mark", [4])
        try other.commit()
        #expect(directory.names == ["out"])
        #expect(try filesBelow(out) == ["mark"])
    }

    /// The probe's own file means nothing to those who read the error.
    @Test func aProbeThatFailsNamesTheOutput() throws {
        let output = try begin(store()), place = "\(out).partial-j"
        try output.probe()
        #expect(try filesBelow(place) == [])
        try FileManager.default.createDirectory(atPath: "\(place)/.tessera-probe", withIntermediateDirectories: false)
        let error = #expect(throws: TesseraError.self) { try output.probe() }
        #expect(error?.file == place, "\(error?.description ?? "")")
        output.abort()
    }

    @Test func filesThatOthersPutThereAreNotPublished() throws {
        let output = try begin(store())
        try output.layOut(Self.parts, adopting: [])
        try output.putFile("mark", [1])
        try directory.write("evil", to: "out.partial-j/evil.py")
        let error = #expect(throws: TesseraError.self) { try output.commit() }
        #expect(error?.code == .cannotCreate && error?.file?.hasSuffix("evil.py") == true)
        output.abort()
        #expect(directory.names == [])
    }

    /// A job's output inside that of another would be published, signed or removed with it.
    @Test func noOutputLiesInAnother() throws {
        try writeOld()
        let unfinished = "run.partial-0123456789abcdef0123456789abcdef"
        for folder in ["out/deep/deeper", unfinished, "x.partial-state", "x.partial-mine"] {
            try FileManager.default.createDirectory(atPath: "\(directory.path)/\(folder)", withIntermediateDirectories: true)
        }
        let store = store(root: directory.path)
        for path in ["out/new", "out/deep/deeper/new", "\(unfinished)/new", "x.partial-state/new"] {
            let error = #expect(throws: TesseraError.self) { try store.resolve(path, workingDirectory: directory.path) }
            #expect(error?.code == .notAllowed, "\(path)")
        }
        for path in [unfinished, "new.partial-state", "a\0b"] {
            let error = #expect(throws: TesseraError.self) { try store.resolve(path, workingDirectory: directory.path) }
            #expect(error?.code == .cannotCreate, "\(path)")
        }
        #expect(try store.resolve("x.partial-mine/new", workingDirectory: directory.path).hasSuffix("mine/new"))
    }

    @Test func whatLiesOutsideTheRootIsNotTold() throws {
        let store = store(root: directory.path)
        for path in ["/etc/out", "/no-such-directory/out", "../no-such-directory/out"] {
            let error = #expect(throws: TesseraError.self) { try store.resolve(path, workingDirectory: directory.path) }
            #expect(error?.code == .notAllowed, "\(path)")
        }
    }

    @Test func aDirectoryThatTookTheOutputsPlaceIsNotRemoved() throws {
        try writeOld()
        let output = try begin(store(), overwrite: true)
        try output.putFile("mark", [1])
        // The old inode stays in use, so that the new directory has another.
        try FileManager.default.moveItem(atPath: out, toPath: "\(directory.path)/elsewhere")
        try writeOld()
        let error = #expect(throws: TesseraError.self) { try output.commit() }
        #expect(error?.code == .cannotCreate && error?.problem == "the output was replaced by others while the job ran")
        output.abort()
        #expect(directory.names == ["elsewhere", "out"])
        #expect(FileManager.default.contents(atPath: "\(out)/mark") == Data("old".utf8))
    }

    @Test func filesOfOthersInAnOutputAreNotRemoved() throws {
        try writeOld()
        let output = try begin(store(), overwrite: true)
        try output.putFile("mark", [1])
        try directory.write("precious", to: "out/mine")
        for body in [{ try output.commit() }, { _ = try begin(store(), overwrite: true) }] {
            let error = #expect(throws: TesseraError.self) { try body() }
            #expect(error?.problem == "the output holds 'mine', which Tessera did not write, so it is not replaced")
        }
        output.abort()
        #expect(directory.names == ["out"])
        #expect(FileManager.default.contents(atPath: "\(out)/mine") == Data("precious".utf8))
    }

    /// Calls that write down their order.
    private final class Journal: Sendable {
        let lines = Mutex<[String]>([])

        func note(_ line: String) { lines.withLock { $0.append(line) } }

        var calls: DirectoryCalls {
            var calls = DirectoryCalls.system
            let system = calls
            calls.sync = { [self] (directory) throws(TesseraError) in
                let name = URL(fileURLWithPath: directory.path).lastPathComponent
                note("sync \(name.hasPrefix("out") ? name : "parent")")
                try system.sync(directory)
            }
            calls.rename = { [self] in
                note("rename \($1) \($2)")
                return system.rename($0, $1, $2)
            }
            calls.exchange = { [self] in
                note("exchange \($1) \($2)")
                return system.exchange($0, $1, $2)
            }
            calls.remove = { [self] in
                note("remove \($1)")
                system.remove($0, $1)
            }
            return calls
        }
    }

    // MARK: Adopted files

    /// A file of this host gets a second name; one of another store is copied.
    @Test func adoptedFilesKeepTheirBytes() throws {
        try directory.write("local", to: "old")
        let local = AdoptedFile(path: "\(directory.path)/old", in: LocalFiles(), size: 5, name: "linked")
        let other = AdoptedFile(path: "/far", in: MemoryFiles(["/far": [1, 2, 3]]), size: 3, name: "copied")
        let output = try begin(store())
        try output.layOut([], adopting: [local, other])
        try output.commit()
        let files = LocalFiles()
        #expect(try files.read("\(out)/copied", maxBytes: 9) == [1, 2, 3])
        #expect(try files.read("\(out)/linked", maxBytes: 9) == Array("local".utf8))
        #expect(try files.status(of: "\(out)/linked") == files.status(of: local.path))
    }

    /// What the manifest does not know is no part of an output.
    @Test func adoptedFilesHaveTheSizeThatWasPromised() throws {
        try directory.write("local", to: "old")
        let memory = MemoryFiles(["/far": [1, 2, 3]])
        for (path, files) in [("\(directory.path)/old", LocalFiles() as any InputFiles), ("/far", memory)] {
            let output = try begin(store())
            let error = #expect(throws: TesseraError.self) {
                try output.layOut([], adopting: [AdoptedFile(path: path, in: files, size: 4, name: "part")])
            }
            #expect(error?.code == .badData && error?.file == path && error?.advice != nil)
            #expect(try output.fileNames() == [])
            output.abort()
            #expect(try LocalFiles().list(directory.path) == ["old"])
        }
        let failure = TesseraError(.io, "cannot read the file", file: "/far")
        memory.add(.failing(at: 1, failure), to: "/far")
        let file = AdoptedFile(path: "/far", in: memory, size: 3, name: "part"), output = try begin(store())
        #expect(#expect(throws: TesseraError.self) { try output.layOut([], adopting: [file]) } == failure)
        #expect(try output.fileNames() == [])
    }

    @Test func anOutputAppearsWhenItIsCommitted() throws {
        let journal = Journal(), output = try begin(store(journal.calls))
        try output.layOut(Self.parts, adopting: [])
        try [7, 8].withUnsafeBytes { try output.put(UnsafeRawBufferPointer(rebasing: $0[..<2]), part: 1, at: 4) }
        try output.putFile("small", [9])
        #expect(try output.fileNames() == ["part0", "part1", "part2", "small"])
        #expect(try output.open("part1").bytes(0..<8) == [1, 2, 0, 0, 7, 0, 0, 0])
        #expect(directory.names == ["out.partial-j"])
        try output.commit()
        #expect(directory.names == ["out"])
        #expect(journal.lines.withLock { $0 } == ["sync out.partial-j", "rename out.partial-j out", "sync parent"])
        output.abort()
        #expect(directory.names == ["out"])
    }

    /// Another process goes on with what one left: parts stay as they are, all else is cleared away.
    @Test func anUnfinishedOutputIsResumed() throws {
        #expect(try store().resume(out, job: "j", overwrite: false) == nil, "nothing was begun")
        do {
            let first = try begin(store())
            try first.layOut(Self.parts, adopting: [])
            try [7, 8].withUnsafeBytes { try first.put(UnsafeRawBufferPointer(rebasing: $0[..<2]), part: 1, at: 4) }
            try first.putFile("config", [9])
        }
        // The header may not have become durable.
        try Data([0, 0, 0, 0, 7, 8, 0, 0]).write(to: URL(fileURLWithPath: "\(out).partial-j/part1"))
        let adopted = try directory.write("from another output", to: "adopted")
        let journal = Journal()
        let output = try #require(try store(journal.calls).resume(out, job: "j", overwrite: false))
        try output.reopen(Self.parts, adopting: [AdoptedFile(path: adopted, in: LocalFiles(), size: 19, name: "taken")])
        #expect(try output.fileNames() == ["part0", "part1", "part2", "taken"])
        #expect(try output.open("part1").bytes(0..<8) == [1, 2, 0, 0, 7, 8, 0, 0])
        try output.sync([1])
        try output.sync([0, 1, 9])
        #expect(journal.lines.withLock { $0 } == ["sync out.partial-j", "sync parent"], "names are made durable once")
        try output.commit()
        #expect(directory.names == ["adopted", "out"])
    }

    @Test func aPartOfAnotherSizeIsNotResumed() throws {
        do { try begin(store()).layOut(Self.parts, adopting: []) }
        try directory.write("short", to: "out.partial-j/part2")
        let output = try #require(try store().resume(out, job: "j", overwrite: false))
        let error = #expect(throws: TesseraError.self) { try output.reopen(Self.parts, adopting: []) }
        #expect(error?.code == .badData && error?.file?.hasSuffix("part2") == true)
        // Another job's directory is nobody else's business.
        try directory.write("x", to: "out.partial-k")
        store().discard(out, job: "j")
        store().discard(out, job: "k")
        #expect(directory.names == ["out.partial-k"])
        #expect(try store().file("mark", of: out) == nil)
        try writeOld()
        #expect(try store().file("mark", of: out) == Array("old".utf8))
        #expect(throws: TesseraError.self) {
            try FileManager.default.createDirectory(atPath: "\(out).partial-l", withIntermediateDirectories: false)
            _ = try store().resume(out, job: "l", overwrite: false)
        }
    }

    /// The old output is removed only once the exchange of the names cannot be undone by a crash.
    @Test func theOldOutputIsRemovedAfterTheExchangeIsDurable() throws {
        try writeOld()
        let journal = Journal(), output = try begin(store(journal.calls), overwrite: true)
        try output.layOut(Self.parts, adopting: [])
        try output.commit()
        #expect(
            journal.lines.withLock { $0 } == [
                "sync out.partial-j", "exchange out.partial-j out", "sync parent", "remove out.partial-j",
            ])
        #expect(directory.names == ["out"])
        #expect(try FileManager.default.contentsOfDirectory(atPath: out).sorted() == ["part0", "part1", "part2"])
    }

    @Test func theOldOutputStaysWhereTheExchangeMayNotBeDurable() throws {
        try writeOld()
        var calls = DirectoryCalls.system
        calls.sync = { [out] (directory) throws(TesseraError) in
            if !directory.path.hasPrefix(out) { throw TesseraError(.io, "cannot sync") }
        }
        let output = try begin(store(calls), overwrite: true)
        try output.layOut(Self.parts, adopting: [])
        #expect(throws: TesseraError.self) { try output.commit() }
        output.abort()
        #expect(directory.names == ["out", "out.partial-j"])
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(out).partial-j") == ["mark"])
    }

    /// A job is cancelled while its output is laid out: whoever comes first, nothing stays.
    @Test func abortWaitsForALayoutAndRemovesItAll() throws {
        let isHalfway = DispatchSemaphore(value: 0), abortCalled = DispatchSemaphore(value: 0)
        var calls = DirectoryCalls.system
        let system = calls
        calls.create = { (directory, name, size, reserve) throws(TesseraError) in
            if name == "part1" {
                isHalfway.signal()
                abortCalled.wait()
                // Time enough to remove everything under the layout's feet.
                usleep(50_000)
            }
            return try system.create(directory, name, size, reserve)
        }
        let output = try begin(store(calls)), done = DispatchGroup()
        DispatchQueue(label: "layout").async(group: done) { try? output.layOut(Self.parts, adopting: []) }
        isHalfway.wait()
        DispatchQueue(label: "abort").async(group: done) {
            abortCalled.signal()
            output.abort()
        }
        done.wait()
        #expect(directory.names == [])
    }

    /// Whoever gives the output up twice is told that it is gone when it is, and blocks that come late wait for nobody.
    @Test func abortReturnsWhenEverythingIsGone() throws {
        let isRemoving = DispatchSemaphore(value: 0), goOn = DispatchSemaphore(value: 0), done = DispatchGroup()
        var calls = DirectoryCalls.system
        let system = calls
        calls.remove = {
            isRemoving.signal()
            goOn.wait()
            system.remove($0, $1)
        }
        let output = try begin(store(calls)), seen = Mutex<[[String]]>([])
        for name in ["first", "second"] {
            DispatchQueue(label: name).async(group: done) { [directory] in
                output.abort()
                seen.withLock { $0.append(directory.names) }
            }
        }
        isRemoving.wait()
        #expect(throws: TesseraError.self) { try [1].withUnsafeBytes { try output.put($0, part: 0, at: 0) } }
        goOn.signal()
        done.wait()
        #expect(seen.withLock { $0 } == [[], []])
    }

    @Test func afterAbortNothingIsLaidOut() throws {
        let output = try begin(store())
        output.abort()
        #expect(#expect(throws: TesseraError.self) { try output.layOut(Self.parts, adopting: []) }?.code == .cancelled)
        #expect(throws: TesseraError.self) { try [1].withUnsafeBytes { try output.put($0, part: 0, at: 0) } }
        #expect(throws: TesseraError.self) { try output.commit() }
        #expect(directory.names == [])
    }

    @Test func aLayoutThatFailsRemovesEverything() throws {
        var calls = DirectoryCalls.system
        let system = calls
        calls.create = { (directory, name, size, reserve) throws(TesseraError) in
            guard name != "part2" else { throw TesseraError(.io, "no space left") }
            return try system.create(directory, name, size, reserve)
        }
        let output = try begin(store(calls)), fewer = Array(Self.parts.dropLast())
        for _ in 1...2 {
            #expect(throws: TesseraError.self) { try output.layOut(Self.parts, adopting: []) }
            #expect(try output.fileNames() == [])
            // Parts may be laid out again, also in the place of others.
            try output.layOut(fewer, adopting: [])
            #expect(try output.fileNames() == fewer.map(\.name))
        }
        output.abort()
        #expect(directory.names == [])
    }

    @Test func onlyOutputsOfTesseraAreReplaced() throws {
        try writeOld()
        #expect(throws: TesseraError.self) { try begin(store()) }
        try FileManager.default.moveItem(atPath: "\(out)/mark", toPath: "\(out)/other")
        #expect(throws: TesseraError.self) { try begin(store(), overwrite: true) }
        #expect(directory.names == ["out"])
    }

    @Test func anOutputThatAppearsMeanwhileIsLeftAlone() throws {
        let output = try begin(store())
        try output.layOut(Self.parts, adopting: [])
        try writeOld()
        #expect(#expect(throws: TesseraError.self) { try output.commit() }?.code == .cannotCreate)
        output.abort()
        #expect(directory.names == ["out"])
    }

    @Test func namesAreAbsoluteAndBelowTheRoot() throws {
        let real = try #require(try LocalFiles().canonicalPath(of: directory.path))
        try FileManager.default.createSymbolicLink(atPath: "\(real)/link", withDestinationPath: real)
        #expect(try store().resolve("link/out", workingDirectory: real) == "\(real)/out")
        #expect(try store(root: real).resolve("\(real)/out", workingDirectory: "/") == "\(real)/out")
        for (path, code) in [("..", TesseraError.Code.cannotCreate), ("none/out", .cannotCreate), ("../out", .notAllowed)] {
            let error = #expect(throws: TesseraError.self) { try store(root: real).resolve(path, workingDirectory: real) }
            #expect(error?.code == code, "\(path)")
            // The user may have thought of another directory.
            if code == .notAllowed { #expect(error?.file == "\(real)/../out" && error?.advice?.contains("\(real)/out") == true) }
        }
        for path in [real, "\(real)/"] {
            let error = #expect(throws: TesseraError.self) { try store(root: real).resolve(path, workingDirectory: "/") }
            #expect(error?.problem == "the output is the output root itself" && error?.file == real)
        }
        let output = try store(root: real).begin("\(real)/out", job: "j", overwrite: false)
        let place = OutputLocation(
            directory: "\(real)/out.partial-j", relative: "out.partial-j", device: try Directory(real).device)
        #expect(output.location == place && place.device != nil)
    }

    // MARK: Attacks

    /// OUT's directory becomes a link that leads out, at every moment of a job.
    @Test(arguments: ["begin", "layOut", "put", "putFile", "commit", "abort"])
    func anOutputIsNotLedOutOfTheRoot(moment: String) throws {
        let real = try #require(try LocalFiles().canonicalPath(of: directory.path)), files = FileManager.default
        for name in ["root/folder", "secret"] {
            try files.createDirectory(atPath: "\(real)/\(name)", withIntermediateDirectories: true)
        }
        let store = store(root: "\(real)/root")
        let name = try store.resolve("\(real)/root/folder/out", workingDirectory: "/")
        func lead() throws {
            try files.moveItem(atPath: "\(real)/root/folder", toPath: "\(real)/root/moved")
            try files.createSymbolicLink(atPath: "\(real)/root/folder", withDestinationPath: "\(real)/secret")
            try files.createDirectory(atPath: "\(real)/secret/out.partial-j", withIntermediateDirectories: false)
            try directory.write("precious", to: "secret/out.partial-j/part0")
        }
        if moment == "begin" { try lead() }
        let error = #expect(throws: TesseraError.self) {
            let output = try store.begin(name, job: "j", overwrite: false)
            if moment == "layOut" { try lead() }
            try output.layOut(Self.parts, adopting: [])
            if moment == "put" { try lead() }
            try [UInt8(7)].withUnsafeBytes { try output.put($0, part: 0, at: 3) }
            if moment == "putFile" { try lead() }
            try output.putFile("folder/small", [1])
            if moment == "commit" { try lead() }
            if moment == "abort" {
                try lead()
                output.abort()
                throw TesseraError(.notAllowed, "as the others")
            }
            try output.commit()
        }
        #expect(error?.code == .notAllowed, "\(error)")
        #expect(try filesBelow("\(real)/secret") == ["out.partial-j/part0"])
        #expect(files.contents(atPath: "\(real)/secret/out.partial-j/part0") == Data("precious".utf8))
    }

    /// A folder inside the output becomes a link, and a small file one.
    @Test func smallFilesAreNotWrittenThroughLinks() throws {
        let real = try #require(try LocalFiles().canonicalPath(of: directory.path)), files = FileManager.default
        try files.createDirectory(atPath: "\(real)/secret", withIntermediateDirectories: false)
        try directory.write("precious", to: "secret/config.json")
        let output = try begin(store(root: real))
        try files.createSymbolicLink(atPath: "\(out).partial-j/folder", withDestinationPath: "\(real)/secret")
        try files.createSymbolicLink(atPath: "\(out).partial-j/config.json", withDestinationPath: "\(real)/secret/config.json")
        for name in ["folder/config.json", "config.json"] {
            #expect(#expect(throws: TesseraError.self) { try output.putFile(name, [1]) }?.code == .notAllowed)
        }
        output.abort()
        #expect(files.contents(atPath: "\(real)/secret/config.json") == Data("precious".utf8))
        #expect(directory.names == ["secret"])
    }

    /// Of a combining mark behind a slash, Swift makes one character.
    @Test func combiningMarksSwallowNoSlash() throws {
        let real = try #require(try LocalFiles().canonicalPath(of: directory.path))
        for path in ["../\u{301}x", "\u{301}/../../\u{301}x", "\(real)/../\u{301}x"] {
            let error = #expect(throws: TesseraError.self) { try store(root: real).resolve(path, workingDirectory: real) }
            #expect(error?.code == .notAllowed || error?.code == .cannotCreate, "\(path)")
        }
        #expect(try store(root: real).resolve("\u{301}x", workingDirectory: real) == "\(real)/\u{301}x")
    }

    /// What was laid out is what is published.
    @Test(arguments: ["truncated", "exchanged", "created again", "removed", "adopted"])
    func aPartThatOthersChangedIsNotPublished(how: String) throws {
        try directory.write("local", to: "old")
        let output = try begin(store()), part = "\(out).partial-j/part1", files = FileManager.default
        let adopted = AdoptedFile(path: "\(directory.path)/old", in: LocalFiles(), size: 5, name: "taken")
        try output.layOut(Self.parts, adopting: [adopted])
        switch how {
        case "truncated": truncate(part, 4)
        case "exchanged":
            try files.moveItem(atPath: part, toPath: "\(directory.path)/kept")
            try directory.write("12345678", to: "out.partial-j/part1")
        case "created again":
            try files.removeItem(atPath: part)
            // Most file systems give the new file the number of the old one; the clock of their stamps has steps.
            usleep(50_000)
            try directory.write("12345678", to: "out.partial-j/part1")
        case "removed": try files.removeItem(atPath: part)
        default:
            try files.removeItem(atPath: "\(out).partial-j/taken")
            try directory.write("other", to: "out.partial-j/taken")
        }
        #expect(throws: TesseraError.self) { try output.commit() }
        #expect(!files.fileExists(atPath: out))
        output.abort()
        #expect(!files.fileExists(atPath: "\(out).partial-j"))
    }

    /// A FIFO would hold whoever opens it for writing, and with it all jobs; a file with a second name is somebody else's.
    @Test func whatOthersPutInTheWayIsNotWrittenTo() throws {
        let output = try begin(store()), partial = "\(out).partial-j"
        try directory.write("mine", to: "kept")
        #expect(link("\(directory.path)/kept", "\(partial)/mark") == 0)
        #expect(mkfifo("\(partial)/card", 0o666) == 0)
        try output.putFile("mark", [1])
        let error = #expect(throws: TesseraError.self) { try output.putFile("card", [2]) }
        #expect(error?.code == .cannotCreate && error?.file?.hasSuffix("/card") == true)
        unlink("\(partial)/card")
        try output.commit()
        #expect(FileManager.default.contents(atPath: "\(out)/mark") == Data([1]))
        #expect(FileManager.default.contents(atPath: "\(directory.path)/kept") == Data("mine".utf8))
    }

    /// A thousand queued jobs must not use up the descriptors of the process.
    @Test func anOutputThatWaitsKeepsNoDescriptors() throws {
        func count() throws -> Int {
            let descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
            return descriptors.filter {
                (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)"))?.hasPrefix(directory.path)
                    == true
            }.count
        }
        let output = try begin(store())
        try output.layOut(Self.parts, adopting: [])
        #expect(try count() == 0)
        try [UInt8(7)].withUnsafeBytes { try output.put($0, part: 0, at: 3) }
        #expect(try count() == 1)
        output.abort()
        #expect(try count() == 0)
    }
}
