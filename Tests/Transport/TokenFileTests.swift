import Core
import Glibc
import Protocol
import TestSupport
import Testing
import Transport

/// Token files that change while they are in use.
@Suite struct TokenFileTests {
    private let directory: TemporaryDirectory
    private let path: String
    private static let secret = "0123456789abcdef"

    init() throws {
        directory = try TemporaryDirectory()
        path = "\(directory.path)/tokens"
    }

    private func write(_ text: String, mode: mode_t = 0o600) throws {
        try directory.write(text, to: "tokens")
        chmod(path, mode)
    }

    private func holder(_ token: String, _ tokens: ServerTokens) throws -> String? {
        try tokens.current.identify(try #require(AccessToken("\(Self.secret)-\(token)")))?.name
    }

    @Test func changedTokensAreTakenIntoUse() throws {
        try write("ann submitter \(Self.secret)-1\n")
        let tokens = try ServerTokens(path: path), version = tokens.version
        #expect(try tokens.reload() == nil && tokens.version == version)
        try write("ann submitter \(Self.secret)-2\nbob viewer \(Self.secret)-3\n")
        #expect(try tokens.reload() == AccessTokens.Changes(added: ["ann", "bob"], removed: ["ann"]))
        #expect(tokens.version != version)
        #expect(try holder("1", tokens) == nil && holder("2", tokens) == "ann" && holder("3", tokens) == "bob")
    }

    @Test(arguments: [
        ("", 0o600, TesseraError.Code.badData), ("ann master \(secret)-2\n", 0o600, .badData),
        ("ann submitter \(secret)-2\n", 0o644, .notAllowed),
    ])
    func aFileThatCannotBeUsedKeepsTheFormerTokens(text: String, mode: mode_t, code: TesseraError.Code) throws {
        try write("ann submitter \(Self.secret)-1\n")
        let tokens = try ServerTokens(path: path), version = tokens.version
        try write(text, mode: mode)
        let error = #expect(throws: TesseraError.self) { _ = try tokens.reload() }
        #expect(error?.code == code && error?.file == path)
        #expect(try holder("1", tokens) == "ann" && tokens.version == version)
        unlink(path)
        #expect(throws: TesseraError.self) { _ = try tokens.reload() }
        #expect(try holder("1", tokens) == "ann")
    }

    @Test func aPeersTokenIsReadEachTime() throws {
        try write("\(Self.secret)-1\n")
        let token = ClientToken(path: path), first = try token.read()
        try write("bob viewer \(Self.secret)-2\n")
        #expect(try token.read() == AccessToken("\(Self.secret)-2") && first == AccessToken("\(Self.secret)-1"))
        try write("short\n")
        #expect(throws: TesseraError.self) { try token.read() }
    }
}
