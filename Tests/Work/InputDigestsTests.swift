import Core
import Foundation
import Synchronization
import TestSupport
import Testing
import Work

/// Digests of input files are computed once for each version of a file.
@Suite struct InputDigestsTests {
    private let directory: TemporaryDirectory
    private let files = MemoryFiles(["/m": Array(repeating: 7, count: 1 << 20)])
    private let reads = Reads()

    private final class Reads: Sendable { let count = Atomic(0) }

    init() throws {
        directory = try TemporaryDirectory()
        let reads = reads
        files.add(.slow { _ in reads.count.add(1, ordering: .relaxed) }, to: "/m")
    }

    private var readCount: Int { reads.count.exchange(0, ordering: .relaxed) }

    private func pin(_ digests: InputDigests, whole: Bool = false) throws -> ContentPin {
        try digests.pin(files.open("/m"), path: "m", readsWhole: whole)
    }

    @Test func aFileIsReadOnce() throws {
        let digests = InputDigests(), sampled = try pin(digests)
        #expect(try sampled == ContentPin(sample: ContentSample.digest(of: files.open("/m"))))
        #expect(readCount > 0)
        #expect(try pin(digests) == sampled && readCount == 0)
        let whole = try pin(digests, whole: true)
        #expect(try whole.sample == sampled.sample && whole.sha256 == .sha256(of: Array(repeating: 7, count: 1 << 20)))
        #expect(readCount > 0)
        #expect(try pin(digests, whole: true) == whole && pin(digests) == sampled && readCount == 0)
    }

    @Test func anotherVersionIsReadAgain() throws {
        let digests = InputDigests(), before = try pin(digests, whole: true)
        files.write(Array(repeating: 8, count: 1 << 20), to: "/m")
        let after = try pin(digests, whole: true)
        #expect(after.sample != before.sample && after.sha256 != before.sha256)
    }

    @Test func otherProcessesNeedNotReadWholeFilesAgain() throws {
        let missing = "\(directory.path)/none/none", places = [missing, directory.path]
        let whole = try pin(InputDigests(directories: places), whole: true)
        #expect(directory.names == [InputDigests.fileName])
        #expect(readCount > 0)
        #expect(try pin(InputDigests(directories: places), whole: true) == whole && readCount == 0)
        // Several processes add to what is there.
        files.write([1], to: "/n")
        _ = try InputDigests(directories: places).pin(files.open("/n"), path: "n", readsWhole: true)
        #expect(try pin(InputDigests(directories: places), whole: true) == whole && readCount == 0)
    }

    /// Whoever could write it could say that a file holds what it does not.
    @Test func aListThatOthersCanWriteIsNotBelieved() throws {
        let whole = try pin(InputDigests(directories: [directory.path]), whole: true),
            list = "\(directory.path)/\(InputDigests.fileName)"
        for breaking in [
            { chmod(list, 0o666) }, { Int32((try? Data("{".utf8).write(to: URL(fileURLWithPath: list))) == nil ? 1 : 0) },
        ] {
            #expect(breaking() == 0)
            _ = readCount
            #expect(try pin(InputDigests(directories: [directory.path]), whole: true) == whole)
            #expect(readCount > 0)
        }
    }

    @Test func anotherCopyMustHoldTheSame() throws {
        let digests = InputDigests(), whole = try pin(digests, whole: true), source = try files.open("/m")
        try digests.check(source, path: "m", against: whole, file: "/m")
        try digests.check(source, path: "m", against: ContentPin(sample: whole.sample), file: "/m")
        let none = Digest.none
        for other in [ContentPin(sample: none), ContentPin(sample: whole.sample, sha256: none)] {
            let error = #expect(throws: TesseraError.self) { try digests.check(source, path: "m", against: other, file: "/m") }
            #expect(error?.code == .inputMissing && error?.file == "/m" && error?.problem.contains("\(none)") == true)
        }
    }
}
