import Foundation
import Logging
import Synchronization
import TestSupport
import Testing

@testable import TesseraCLI

@Suite struct LogTests {
    private final class Lines: Sendable {
        private let lines = Mutex<[String]>([])
        func add(_ line: String) { lines.withLock { $0.append(line) } }
        var all: [String] { lines.withLock { $0 } }
    }

    private func logger(_ format: LogFormat, level: Logger.Level = .info) -> (Logger, Lines) {
        let lines = Lines()
        var log = Logger(label: "x") { _ in
            LineLogHandler(format, now: { Date(timeIntervalSince1970: 1.5) }, write: lines.add)
        }
        log.logLevel = level
        log[metadataKey: "host"] = "h1"
        return (log, lines)
    }

    @Test func linesOfTextSayWhatTheyAreAbout() {
        let (log, lines) = logger(.text)
        log.warning("attempt failed", metadata: ["worker": "n 1", "error": "a \"b\"", "job": "j"])
        log.debug("not said")
        #expect(
            lines.all == [
                #"1970-01-01T00:00:01.500Z WARNING attempt failed  job=j  worker="n 1"  error="a \"b\""  host=h1"#
            ])
    }

    @Test func linesOfJSONAreObjects() throws {
        let (log, lines) = logger(.json, level: .debug)
        log.debug("shard\nfinished", metadata: ["shard": "3", "message": "forged"])
        let line = try #require(lines.all.first)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String])
        #expect(
            object == [
                "time": "1970-01-01T00:00:01.500Z", "level": "debug", "message": "shard\nfinished", "shard": "3", "host": "h1",
            ])
        #expect(!line.contains("\n"))
    }

    /// What is a number in the code is one in JSON; what a peer calls a number is a text.
    @Test func numbersAreNumbers() throws {
        let (log, lines) = logger(.json)
        log.info(
            "shard finished",
            metadata: [
                "shard": .stringConvertible(3), "bytes": .stringConvertible(UInt64.max), "seconds": .stringConvertible(0.25),
                "odd": .stringConvertible(Double.nan), "worker": "7",
            ])
        struct Line: Decodable {
            let shard: Int, bytes: UInt64, seconds: Double, odd: String, worker: String
        }
        let line = try JSONDecoder().decode(Line.self, from: Data(try #require(lines.all.first).utf8))
        #expect(line.shard == 3 && line.bytes == .max && line.seconds == 0.25 && line.odd == "nan" && line.worker == "7")
        let (text, words) = logger(.text)
        text.info("shard finished", metadata: ["shard": .stringConvertible(3), "seconds": .stringConvertible(0.25)])
        #expect(words.all == ["1970-01-01T00:00:01.500Z INFO    shard finished  shard=3  seconds=0.25  host=h1"])
    }

    /// A peer's name must not look like another line.
    @Test func linesCannotBeForged() {
        let (log, lines) = logger(.text)
        log.info("joined\nerror", metadata: ["worker": "x\n1970 ERROR \u{1b}[2J"])
        #expect(lines.all.count == 1 && !lines.all.joined().unicodeScalars.contains { $0.value < 0x20 })
    }
}
