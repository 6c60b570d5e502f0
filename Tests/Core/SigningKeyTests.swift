import Core
import Foundation
import TestSupport
import Testing

@Suite struct SigningKeyTests {
    private static let message = Array("a model".utf8)

    @Test(arguments: ["P-256", "P-384", "P-521"])
    func whatAKeySignsItsPublicKeyAccepts(curve: String) throws {
        let pair = try KeyPair(curve: curve)
        let key = try SigningKey(path: pair.privateKey), check = try VerificationKey(path: pair.publicKey)
        let signature = try key.sign(Self.message)
        #expect(try check.accepts(signature, of: Self.message))
        #expect(try key.verificationKey.accepts(signature, of: Self.message))
        #expect(try !check.accepts(signature, of: Self.message + [0]))
        #expect(try !check.accepts([], of: Self.message))
        for index in signature.indices {
            var other = signature
            other[index] ^= 1
            #expect(try !check.accepts(other, of: Self.message), "byte \(index)")
        }
        let stranger = try KeyPair(curve: curve), another = try VerificationKey(path: stranger.publicKey)
        #expect(try !another.accepts(signature, of: Self.message))
        let text = try Array(Data(contentsOf: URL(fileURLWithPath: pair.publicKey)))
        #expect(try check.fingerprint() == .sha256(of: text) && key.verificationKey.fingerprint() == .sha256(of: text))
        #expect("\(key)" == "<private key>")
    }

    /// openssl itself takes our signatures, and we take openssl's.
    @Test func opensslAgrees() throws {
        let pair = try KeyPair(curve: "P-384"), folder = pair.directory.path
        let message = try pair.directory.write("a model", to: "message")
        let ours = Data(try SigningKey(path: pair.privateKey).sign(Self.message))
        try ours.write(to: URL(fileURLWithPath: "\(folder)/ours"))
        try openssl(["dgst", "-sha384", "-verify", pair.publicKey, "-signature", "\(folder)/ours", message])
        let theirs = try openssl(["dgst", "-sha384", "-sign", pair.privateKey, message])
        #expect(try VerificationKey(path: pair.publicKey).accepts(Array(theirs), of: Self.message))
    }

    @Test(arguments: [
        (["-algorithm", "RSA"], "the curve P-256, P-384 or P-521"), (["-algorithm", "ED25519"], "the curve P-256"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "the curve P-256"),
    ])
    func otherKeysAreRefused(arguments: [String], words: String) throws {
        let pair = try KeyPair(arguments)
        for error in [
            #expect(throws: TesseraError.self) { try SigningKey(path: pair.privateKey) },
            #expect(throws: TesseraError.self) { try VerificationKey(path: pair.publicKey) },
        ] {
            #expect(error?.code == .badData && error?.problem.contains(words) == true)
        }
    }

    @Test func whatIsNoKeyIsRefused() throws {
        let pair = try KeyPair(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:x"])
        for path in [pair.privateKey, pair.publicKey] {
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
            let error = #expect(throws: TesseraError.self) { try SigningKey(path: path) }
            #expect(error?.code == .badData && error?.problem.contains("without a passphrase") == true)
        }
        let error = #expect(throws: TesseraError.self) { try VerificationKey(path: pair.privateKey) }
        #expect(error?.code == .badData && error?.problem.contains("is not a public key") == true)
    }

    @Test func aKeyThatOthersCanReadIsRefused() throws {
        let pair = try KeyPair()
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: pair.privateKey)
        let error = #expect(throws: TesseraError.self) { try SigningKey(path: pair.privateKey) }
        #expect(error?.code == .notAllowed && error?.advice?.contains("chmod 600") == true)
    }
}
