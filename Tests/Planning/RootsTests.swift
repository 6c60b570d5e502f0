import Checkpoints
import Core
import Foundation
import TestSupport
import Testing
import Work

@Suite struct RootsTests {
    private let directory: TemporaryDirectory
    private let roots: Roots

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["in/models/a", "other/models/b", "outside"] {
            try FileManager.default.createDirectory(atPath: "\(directory.path)/\(name)", withIntermediateDirectories: true)
        }
        roots = try Roots(["\(directory.path)/in", "\(directory.path)/other"])
    }

    @Test func pathsAreRelativeToTheirRoot() throws {
        #expect(try roots.relativePath(of: "\(directory.path)/in/models/a", workingDirectory: nil) == "models/a")
        #expect(try roots.relativePath(of: "models/b", workingDirectory: nil) == "models/b")
        #expect(try roots.relativePath(of: "a", workingDirectory: "\(directory.path)/in/models") == "models/a")
        #expect(roots.locate("models/b")?.hasSuffix("/other/models/b") == true)
        #expect(roots.locate("models/c") == nil)
    }

    @Test(arguments: ["outside", "in/../outside", "in/link"])
    func nothingLeadsOut(path: String) throws {
        try FileManager.default.createSymbolicLink(
            atPath: "\(directory.path)/in/link", withDestinationPath: "\(directory.path)/outside")
        let error = #expect(throws: TesseraError.self) {
            try roots.relativePath(of: "\(directory.path)/\(path)", workingDirectory: nil)
        }
        #expect(error?.code == .notAllowed)
        #expect(roots.locate("link") == nil)
        #expect(roots.locate("../outside") == nil)
    }

    /// Whoever asks for paths outside learns nothing of what is there.
    @Test(arguments: [
        "/etc/passwd", "/etc/no-such-file", "/proc/1/root/x", "../outside", "../no-such-directory/x", "link", "link/no-such-file",
    ])
    func whatLiesOutsideIsNotTold(path: String) throws {
        try FileManager.default.createSymbolicLink(
            atPath: "\(directory.path)/in/link", withDestinationPath: "\(directory.path)/outside")
        let isLink = path.hasPrefix("link/")
        let error = #expect(throws: TesseraError.self) {
            try roots.relativePath(of: path, workingDirectory: "\(directory.path)/in")
        }
        // A link of the operator's own that leads out tells of what is behind it: nobody else can put one below the root.
        #expect(error?.code == (isLink ? .inputMissing : .notAllowed))
    }

    @Test(arguments: ["models/a\0", "\0", "models/a\0/../../etc"])
    func aZeroByteEndsNoPath(path: String) {
        let error = #expect(throws: TesseraError.self) { try roots.relativePath(of: path, workingDirectory: nil) }
        #expect(error?.code == .inputMissing && error?.problem.contains("zero byte") == true)
    }

    /// What a plan has found becomes a link that leads out before the file is read.
    @Test(arguments: ["file", "folder", "absolute"])
    func aLinkThatAppearsLaterIsNotFollowed(what: String) throws {
        let model = "\(directory.path)/in/models/a", secret = "\(directory.path)/outside"
        try directory.write("secret", to: "outside/config.json")
        try directory.write("{}", to: "in/models/a/config.json")
        let path = try #require(roots.locate("models/a/config.json"))
        #expect(try roots.files.read(path, maxBytes: 10) == Array("{}".utf8))
        try FileManager.default.removeItem(atPath: what == "folder" ? model : path)
        switch what {
        case "file":
            try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "../../../outside/config.json")
        case "absolute": try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "\(secret)/config.json")
        default: try FileManager.default.createSymbolicLink(atPath: model, withDestinationPath: secret)
        }
        for read in [
            { _ = try roots.files.open(path) }, { _ = try roots.files.read(path, maxBytes: 10) },
            { _ = try roots.files.status(of: path) }, { _ = try roots.files.localFile(path) },
            { _ = try roots.files.list(what == "folder" ? model : path) },
        ] { #expect(#expect(throws: TesseraError.self) { try read() }?.code == .notAllowed) }
        #expect(roots.locate("models/a/config.json") == nil)
    }

    /// As in the hub's cache: a snapshot's files are links to blobs beside it.
    @Test func linksInsideTheRootAreFollowed() throws {
        let name = "in/hub/models--o--m"
        for folder in ["blobs", "snapshots/c"] {
            try FileManager.default.createDirectory(
                atPath: "\(directory.path)/\(name)/\(folder)", withIntermediateDirectories: true)
        }
        try directory.write("blob", to: "\(name)/blobs/1")
        let path = "\(directory.path)/\(name)/snapshots/c/config.json"
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "../../blobs/1")
        #expect(try roots.files.read(path, maxBytes: 10) == Array("blob".utf8))
        #expect(try roots.files.status(of: path)?.size == 4)
        #expect(try roots.files.below("\(directory.path)/\(name)") == ["blobs/1", "snapshots/c/config.json"])
        // A store of the whole machine follows the user's links wherever they lead.
        try directory.write("far", to: "outside/far")
        try FileManager.default.createSymbolicLink(
            atPath: "\(directory.path)/in/far", withDestinationPath: "\(directory.path)/outside/far")
        #expect(try Roots.wholeMachine.files.read("\(directory.path)/in/far", maxBytes: 10) == Array("far".utf8))
        #expect(throws: TesseraError.self) { try roots.files.read("\(directory.path)/in/far", maxBytes: 10) }
    }

    @Test func aNeighbourWithTheSameBeginningIsOutside() throws {
        try FileManager.default.createDirectory(atPath: "\(directory.path)/in-secret", withIntermediateDirectories: false)
        #expect(throws: TesseraError.self) { try roots.relativePath(of: "\(directory.path)/in-secret", workingDirectory: nil) }
    }

    @Test func whatIsNotThereIsMissing() {
        #expect(
            #expect(throws: TesseraError.self) { try roots.relativePath(of: "none", workingDirectory: nil) }?.code
                == .inputMissing)
        #expect(#expect(throws: TesseraError.self) { try Roots(["/does/not/exist"]) }?.code == .inputMissing)
    }

    @Test func anotherFileOfTheSameNameIsRefused() throws {
        let path = "\(directory.path)/in/models/a/model.safetensors"
        try Data(TestTensor.encode([("t", TestTensor([1, 2]))])).write(to: URL(fileURLWithPath: path))
        let header = try SafetensorsHeader.read(path: path, in: LocalFiles())
        let file = InputFile(path: "models/a/model.safetensors", size: header.fileSize, headerDigest: header.digest)
        #expect(try roots.find(file)?.hasSuffix("in/models/a/model.safetensors") == true)
        try Data(TestTensor.encode([("u", TestTensor([1, 2]))])).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: TesseraError.self) { try roots.find(file) }
        #expect(error?.code == .inputMissing)
        #expect(error?.problem.contains("not the file of the plan") == true)
    }
}
