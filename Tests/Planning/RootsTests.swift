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
