import Checkpoints
import Core
import TestSupport
import Testing
import Work

@testable import Coordinator

@Suite struct FetchSourceTests {
    /// A plan knows an input relative to a root; with several roots, its user has to be told which one has it.
    @Test func aChangedInputIsNamedAsThisHostHasIt() throws {
        let first = try TemporaryDirectory(), second = try TemporaryDirectory()
        try TestTensor.writeCheckpoint("\(second.path)/m", [("w", TestTensor([1]))])
        let roots = try Roots([first.path, second.path]), path = "m/model.safetensors"
        let source = FetchSource(roots: roots), full = try #require(roots.locate(path))
        #expect(full == "\(roots.directories[1])/\(path)")
        let header = try SafetensorsHeader.read(path: full, in: roots.files)
        let file = InputFile(path: path, size: header.fileSize, headerDigest: header.digest)
        #expect(try source.read(file, 0..<8).count == 8)
        let replaced = InputFile(path: path, size: header.fileSize, headerDigest: .none)
        let changed = #expect(throws: TesseraError.self) { try source.read(replaced, 0..<8) }
        #expect(changed?.file == full && changed?.code == .badData)
        let missing = InputFile(path: "m/other.safetensors", size: 1, headerDigest: .none)
        let error = #expect(throws: TesseraError.self) { try source.read(missing, 0..<1) }
        #expect(
            error?.file == "m/other.safetensors" && error?.problem.hasSuffix(roots.directories.joined(separator: ", ")) == true)
    }
}
