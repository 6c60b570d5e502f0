import Checkpoints
import Core
import TestSupport
import Testing

/// The hub's cache names files by what they hold.
@Suite struct HubBlobTests {
    private static let cache = "/hub/models--org--name/blobs/"
    private static let bytes = Array("hello\n".utf8)
    /// As `git hash-object` and `sha256sum` have it.
    private static let id = "ce013625030ba8dba906f756967f9e9ca394464a"
    private static let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

    @Test func namesOfBothKindsAreRead() throws {
        #expect(HubBlob(path: Self.cache + Self.sha256)?.text == "sha256:\(Self.sha256)")
        #expect(HubBlob(path: Self.cache + Self.id)?.text == "git:\(Self.id)")
    }

    @Test(arguments: [
        "/hub/models--org--name/snapshots/\(sha256)", "\(cache)model.safetensors", "\(cache)\(id.dropLast())",
        "\(cache)\(id.dropLast())g", "/models/blobs/\(sha256)", "\(sha256)", "",
    ])
    func otherPathsSayNothing(path: String) { #expect(HubBlob(path: path) == nil) }

    @Test(arguments: [id, sha256])
    func aFileIsWhatItsNameSays(name: String) throws {
        let path = Self.cache + name, blob = try #require(HubBlob(path: path))
        for (bytes, isRight) in [(Self.bytes, true), (Array("hellO\n".utf8), false)] {
            let source = try MemoryFiles([path: bytes]).open(path), sha256 = try Digest.sha256(of: bytes)
            guard !isRight else {
                try blob.check(source, sha256: sha256, file: path)
                continue
            }
            let error = #expect(throws: TesseraError.self) { try blob.check(source, sha256: sha256, file: path) }
            #expect(error?.code == .badData && error?.file == path)
        }
    }
}
