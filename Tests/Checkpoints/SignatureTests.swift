import Checkpoints
import Core
import Foundation
import TestSupport
import Testing

/// Models as the model-signing tool (1.1.1 from PyPI) has signed them; Tests/Provenance/check makes the tool itself verify
/// what Tessera signs.
@Suite struct SignatureTests {
    private static let folder = "\(Repository.root)/Tests/Checkpoints/Fixtures/signed"
    private static let names = [".hidden", "a/é.bin", "a.txt", "config.json"]

    /// A copy that may be changed.
    private struct Signed {
        let copy: TemporaryDirectory
        let curve: String
        var model: String { "\(copy.path)/model" }

        init(_ curve: String = "P-256") throws {
            copy = try TemporaryDirectory()
            self.curve = curve
            try FileManager.default.copyItem(atPath: "\(folder)/\(curve)/model", toPath: model)
        }

        func check(key: String? = nil, signature: String? = nil) throws -> [String] {
            let key = try VerificationKey(path: key ?? "\(folder)/\(curve)/sign.pub")
            return try SignatureCheck(directory: model, signature: signature, by: key, in: LocalFiles()).findings()
                .map { "\($0.kind) \($0.file)" }
        }

        func change(_ name: String, _ change: (inout Data) -> Void) throws {
            let url = URL(fileURLWithPath: "\(model)/\(name)")
            var data = try Data(contentsOf: url)
            change(&data)
            try data.write(to: url)
        }

        /// Changes the text of the bundle.
        func edit(_ old: String, _ new: String) throws {
            try change(ModelSignature.fileName) { data in
                let text = String(decoding: data, as: UTF8.self)
                precondition(text.contains(old))
                data = Data(text.replacing(old, with: new).utf8)
            }
        }

        func error(key: String? = nil) -> TesseraError? { #expect(throws: TesseraError.self) { try check(key: key) } }
    }

    @Test(arguments: ["P-256", "P-384", "P-521"])
    func whatTheToolHasSignedIsAccepted(curve: String) throws {
        let signed = try Signed(curve)
        #expect(try signed.check() == [])
        let key = try VerificationKey(path: "\(Self.folder)/\(curve)/sign.pub")
        #expect(try SignatureCheck(directory: signed.model, by: key, in: LocalFiles()).fileCount == Self.names.count)
    }

    @Test(arguments: names)
    func aFlippedBitIsNoticed(name: String) throws {
        let signed = try Signed()
        try signed.change(name) { data in if data.isEmpty { data = Data([0]) } else { data[data.count / 2] ^= 1 } }
        #expect(try signed.check() == ["contents \(name)"])
    }

    @Test func missingAndAddedFilesAreNoticed() throws {
        let signed = try Signed()
        try FileManager.default.removeItem(atPath: "\(signed.model)/a.txt")
        try FileManager.default.createDirectory(atPath: "\(signed.model)/.git", withIntermediateDirectories: false)
        for name in ["a/x.safetensors", ".git/config", ".gitattributes"] {
            try Data().write(to: URL(fileURLWithPath: "\(signed.model)/\(name)"))
        }
        // What hosts of repositories add is nobody's model.
        #expect(try signed.check() == ["extra a/x.safetensors", "missing a.txt"])
    }

    /// The signer has read no links, and says so.
    @Test(arguments: ["a.txt", "a"])
    func linksAreNoSignedFiles(name: String) throws {
        let signed = try Signed()
        try FileManager.default.moveItem(atPath: "\(signed.model)/\(name)", toPath: "\(signed.copy.path)/elsewhere")
        try FileManager.default.createSymbolicLink(
            atPath: "\(signed.model)/\(name)", withDestinationPath: "\(signed.copy.path)/elsewhere")
        #expect(try !signed.check().isEmpty)
    }

    @Test func aSignatureMayLieElsewhere() throws {
        let signed = try Signed()
        let elsewhere = "\(signed.copy.path)/elsewhere.sig"
        try FileManager.default.moveItem(atPath: "\(signed.model)/model.sig", toPath: elsewhere)
        #expect(try signed.check(signature: elsewhere) == [])
        #expect(signed.error()?.code == .inputMissing)
        // The tool leaves out where the signature was made; no file of that name is asked for, and none is looked at.
        try FileManager.default.copyItem(atPath: elsewhere, toPath: "\(signed.model)/model.sig")
        #expect(try signed.check(signature: elsewhere) == [])
    }

    @Test func anotherKeyIsRefused() throws {
        let signed = try Signed(), stranger = try KeyPair()
        let error = signed.error(key: stranger.publicKey)
        #expect(error?.code == .difference && error?.problem.contains("another key") == true)
        // Without the name of the key it is the signature that does not fit.
        let bundle = try String(contentsOfFile: "\(signed.model)/model.sig", encoding: .utf8)
        let hint = try #require(bundle.split(separator: "\"hint\":\"").last?.prefix(64))
        try signed.edit("\"hint\":\"\(hint)\"", "\"hint\":\"\"")
        #expect(try signed.check() == [])
        #expect(signed.error(key: stranger.publicKey)?.problem.contains("by this key") == true)
    }

    /// Every byte of the payload is signed, and every byte of the signature counts.
    @Test func anEditedBundleIsRefused() throws {
        let bundle = try String(contentsOfFile: "\(Self.folder)/P-256/model/model.sig", encoding: .utf8)
        let payload = try #require(bundle.split(separator: "\"payload\":\"").last?.split(separator: "\"").first)
        let data = try #require(Data(base64Encoded: String(payload)))
        for index in stride(from: 0, to: data.count, by: 97) {
            let signed = try Signed()
            var other = data
            other[index] ^= 1
            try signed.edit(String(payload), other.base64EncodedString())
            #expect(signed.error()?.code == .difference, "byte \(index)")
        }
    }

    @Test(arguments: [
        ("bundle.v0.3", "bundle.v0.1", "not a sigstore bundle of version 0.3"), ("in-toto+json", "in-toto+jsom", "does not sign"),
        ("\"signatures\":[", "\"signatures\":[{\"sig\":\"\"},", "has 2 signatures"), ("{\"sig\"", "{\"gis\"", "has 0 signatures"),
        ("\"payload\":\"", "\"payload\":\"*", "base64"),
        ("\"publicKey\"", "\"certificate\"", "signed with a key"),
        ("\"mediaType\"", "\"messageSignature\":{},\"mediaType\"", "a message"),
        ("\"mediaType\"", "\"payload\":1,\"payload\":1,\"mediaType\"", "duplicate"),
    ])
    func whatIsNoSignatureIsRefused(old: String, new: String, words: String) throws {
        let signed = try Signed()
        try signed.edit(old, new)
        let error = signed.error()
        #expect(error?.code == .badData && error?.problem.contains(words) == true, "\(error.map { "\($0)" } ?? "nothing")")
        #expect(error?.file?.hasSuffix("model.sig") == true)
    }

    // MARK: Ours

    private func sign(_ files: [FileDigest], with pair: KeyPair) throws -> [UInt8] {
        try ModelSignature.signing(files, of: "model", with: SigningKey(path: pair.privateKey))
    }

    @Test func whatTesseraSignsIsAccepted() throws {
        let signed = try Signed(), pair = try KeyPair(curve: "P-384")
        let files = try signed.copy.digests(below: "model").filter { $0.name != ModelSignature.fileName }
        #expect(files.count == Self.names.count)
        let bytes = try sign(files, with: pair)
        try Data(bytes).write(to: URL(fileURLWithPath: "\(signed.model)/model.sig"))
        #expect(try signed.check(key: pair.publicKey) == [])
        // The tool's statement of the same files has the same digests in the same order.
        let theirs = try Data(contentsOf: URL(fileURLWithPath: "\(Self.folder)/P-256/model/model.sig"))
        let bundles = try [bytes, Array(theirs)].map { try SignatureBundle($0, file: "model.sig") }
        let statements = try bundles.map { try SignedStatement($0.payload, file: "model.sig") }
        #expect(statements[0].files == statements[1].files && Set(statements[0].ignored) == Set(statements[1].ignored))
    }

    /// A signer's mistake is no way out of the directory.
    @Test(arguments: ["../x", "/etc/passwd", "a//b", "a/./b", "", "a\u{0}b", "a/.."])
    func namesThatLeadOutAreRefused(name: String) throws {
        let pair = try KeyPair()
        let bytes = try sign([FileDigest(name: name, digest: .none)], with: pair)
        let error = #expect(throws: TesseraError.self) {
            try ModelSignature(bytes, file: "model.sig", by: VerificationKey(path: pair.publicKey))
        }
        #expect(error?.code == .badData && error?.problem.contains("is not the path of a file") == true)
    }

    /// Names are bytes: two ways to write é are two files.
    @Test func namesAreBytes() throws {
        let pair = try KeyPair()
        let files = ["e\u{301}", "\u{e9}"].map { FileDigest(name: $0, digest: .none) }
        _ = try ModelSignature(sign(files, with: pair), file: "model.sig", by: VerificationKey(path: pair.publicKey))
        let twice = try sign(files + [files[0]], with: pair)
        let error = #expect(throws: TesseraError.self) {
            try ModelSignature(twice, file: "model.sig", by: VerificationKey(path: pair.publicKey))
        }
        #expect(error?.problem.contains("is named twice") == true)
    }

    private static let statement = #"""
        {"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":"ROOT"}}],
        "predicateType":"https://model_signing/signature/v1.0","predicate":{"serialization":{"method":"files",
        "hash_type":"sha256"},"resources":[{"name":"a","algorithm":"sha256","digest":"DIGEST"}]}}
        """#
        .replacing("DIGEST", with: String(repeating: "0", count: 64))
        .replacing("ROOT", with: "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925")

    @Test(arguments: [
        ("Statement/v1", "Statement/v2", "another type"), ("signature/v1.0", "signature/v2.0", "another type"),
        ("\"files\"", "\"shards\"", "only whole files"), ("_type\":\"sha256", "_type\":\"blake3", "only whole files"),
        ("algorithm\":\"sha256", "algorithm\":\"blake3", "no SHA-256 digest"), ("0000\"", "00\"", "no SHA-256 digest"),
        ("66687", "66688", "does not follow"),
        ("[{\"name\":\"m\",\"digest\":{", "[{},{\"name\":\"m\",\"digest\":{", "not follow"),
        ("]}}", "]}}x", "unexpected data"),
    ])
    func otherStatementsAreRefused(old: String, new: String, words: String) throws {
        #expect(try SignedStatement(Array(Self.statement.utf8), file: "s").files.map(\.name) == ["a"])
        let text = Self.statement.replacing(old, with: new)
        try #require(text != Self.statement)
        let error = #expect(throws: TesseraError.self) { try SignedStatement(Array(text.utf8), file: "s") }
        #expect(error?.code == .badData && error?.problem.contains(words) == true, "\(error.map { "\($0)" } ?? "nothing")")
    }
}
