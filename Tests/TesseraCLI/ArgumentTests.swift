import ArgumentParser
import Core
import TestSupport
import Testing

@testable import TesseraCLI

/// What words on the command line mean.
@Suite struct ArgumentTests {
    @Test(arguments: [
        ("1000", 1000), ("2GiB", 2 << 30), ("500MB", 500_000_000), ("5G", 5_000_000_000), ("1.5k", 1500), ("0", 0),
        ("64 MiB", 64 << 20),
    ])
    func byteCountsHaveUnits(text: String, bytes: Int) { #expect(ByteCount(argument: text)?.bytes == bytes) }

    @Test(arguments: ["", "B", "-1", "1XB", "1e30", "9999999999TB", "1.2.3", "\u{0661}MB"])
    func otherByteCountsAreRefused(text: String) { #expect(ByteCount(argument: text) == nil) }

    @Test(arguments: [
        (["--tls-cert", "c"], "belong together"), (["--tls-key", "k"], "belong together"),
        (["--tls-ca", "a", "--tls-pin", "p"], "not both"), (["--token", "t"], "whom to trust"),
        (["--tls-cert", "c", "--tls-key", "k"], "whom to trust"),
    ])
    func credentialsThatMakeNoSenseAreRefused(arguments: [String], words: String) {
        #expect {
            try WorkerCommand.parse(["--coordinator", "h:1"] + arguments)
        } throws: { WorkerCommand.message(for: $0).contains(words) }
    }

    @Test(arguments: [
        (["--tls-cert", "c", "--tls-key", "k"], "whom to admit"), (["--tls-ca", "a"], "need --tls-cert"),
        (["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a", "--token", "t"], "not both"),
        (["--lease-seconds", "9", "--heartbeat-seconds", "5"], "more than twice"),
    ])
    func coordinatorsThatMakeNoSenseAreRefused(arguments: [String], words: String) {
        #expect {
            try CoordinatorCommand.parse(arguments)
        } throws: { CoordinatorCommand.message(for: $0).contains(words) }
    }

    @Test func aTokenIsReadFromAFileThatOthersCannotRead() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write("worker 0123456789abcdef\n", to: "token")
        let command = try WorkerCommand.parse(["--coordinator", "h:1", "--tls-pin", "p", "--token", path])
        #expect(throws: TesseraError.self) { try command.credentials.accessToken() }
    }
}
