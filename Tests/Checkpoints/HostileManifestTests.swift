import Checkpoints
import Core
import Foundation
import TestSupport
import Testing

/// Manifests that were edited: numbers out of bounds are refused by name, and nothing traps.
@Suite struct HostileManifestTests {
    private let files = MemoryFiles()
    private static let path = "/out/\(Manifest.fileName)"

    /// One part with a tensor of 600 bytes in blocks of 256, and one small file.
    private static func text() throws -> String {
        let layout = try CheckpointLayout(tensors: [NewTensor(name: "t", dtype: .bf16, shape: [30, 10])], maxPartBytes: .max)
        let digest = try Digest.sha256(of: [1])
        let part = try ManifestPart(
            layout: layout.parts[0], blocks: [TensorBlocks(size: 256, digests: [digest, digest, digest])])
        let manifest = Manifest(
            tessera: "test", numericsVersion: 1, recipe: digest, plan: digest, inputs: [], parts: [part],
            files: [ManifestFile(file: "config.json", size: 12, digest: digest)])
        return String(decoding: try manifest.encoded(), as: UTF8.self).filter { !$0.isWhitespace }
    }

    private func problem(_ old: String, _ new: String) throws -> TesseraError? {
        let text = try Self.text()
        #expect(text.contains(old), "\(text)")
        files.write(Array(text.replacingOccurrences(of: old, with: new).utf8), to: Self.path)
        let error = #expect(throws: TesseraError.self, "\(new)") { try Manifest.read(directory: "/out", in: files) }
        #expect(error?.code == .badData && error?.file == Self.path, "\(new)")
        return error
    }

    @Test func isReadAsItWasWritten() throws {
        files.write(Array(try Self.text().utf8), to: Self.path)
        #expect(try Manifest.read(directory: "/out", in: files).parts[0].tensors[0].shape == [30, 10])
    }

    @Test(arguments: ["-1", "\(SizeLimit.total + 1)", "9223372036854775807"])
    func sizesOfFiles(size: String) throws {
        let found = try problem("\"size\":12", "\"size\":\(size)")
        #expect(found?.problem == "says that config.json has \(size) bytes; the manifest is damaged")
    }

    /// Numbers that are none, or that no integer holds.
    @Test(arguments: ["9223372036854775808", "1e30", "1.5", "null", "\"12\""])
    func sizesThatAreNoIntegers(size: String) throws {
        #expect(try problem("\"size\":12", "\"size\":\(size)")?.problem.hasPrefix("is damaged") == true)
    }

    /// Each size is possible, but not all of them together.
    @Test func sizesThatOverflowTogether() throws {
        let file = try #require(try Self.text().firstMatch(of: /\{"digest":"[0-9a-f]+","file":"config.json","size":12\}/)?.0)
        let large = file.replacingOccurrences(of: ":12", with: ":\(SizeLimit.total - 1)")
        let list = (0..<200).map { large.replacingOccurrences(of: "config", with: "config\($0)") }.joined(separator: ",")
        #expect(try problem(String(file), list)?.problem.hasPrefix("says that config") == true)
    }

    @Test(arguments: ["[-30,10]", "[4611686018427387904,4]", "[0,9223372036854775807]", "[281474976710656]", "[300,10]"])
    func shapes(shape: String) throws {
        let found = try problem("[30,10]", shape)
        #expect(found?.tensor == "t" && found?.problem.hasSuffix("the manifest is damaged") == true)
    }

    @Test(arguments: ["0", "-256", "9223372036854775807", "\(TreeDigest.blockSize + 1)"])
    func blockSizes(size: String) throws {
        let found = try problem("\"blockSize\":256", "\"blockSize\":\(size)")
        #expect(found?.tensor == "t" && found?.problem == "has a block size of \(size) bytes; the manifest is damaged")
    }

    /// More or fewer digests than blocks.
    @Test(arguments: ["128", "300", "1"])
    func countsOfBlocks(size: String) throws {
        let found = try problem("\"blockSize\":256", "\"blockSize\":\(size)")
        #expect(found?.tensor == "t" && found?.problem.contains("has 3 digests for") == true)
    }

    @Test(arguments: ["../config.json", "/etc/passwd", ".hidden", "a//b", "a/../b", "a/.hidden", ".."])
    func namesOfFilesElsewhere(name: String) throws {
        #expect(try problem("config.json", name)?.problem.contains("which is not a file beside it") == true)
    }

    @Test(arguments: [0, -1, 2, Int.max])
    func versions(version: Int) throws {
        let found = try problem("\"version\":1", "\"version\":\(version)")
        #expect(found?.problem.contains(version > 1 ? "has format version \(version)" : "is not a Tessera manifest") == true)
    }
}
