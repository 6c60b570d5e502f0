import Core
import Logging
import TestSupport
import Testing

@testable import Coordinator

@Suite struct RefusalLogTests {
    @Test func aScannerCannotFloodTheLog() {
        var limit = RefusalLimit(), lines = 0
        for _ in 0..<10_000 where limit.take("a", at: .zero) != nil { lines += 1 }
        #expect(lines == RefusalLimit.perAddress)
        // Another address is heard, and the line says what is missing before it.
        #expect(limit.take("b", at: .zero) == 10_000 - RefusalLimit.perAddress && limit.take("b", at: .zero) == 0)
        // Many addresses together have a limit too.
        for number in 0..<10_000 where limit.take("c\(number)", at: .zero) != nil { lines += 1 }
        #expect(lines + 2 == RefusalLimit.inAll)
        // A minute later there is room again.
        #expect(limit.take("a", at: .seconds(60)) == 10_000 + RefusalLimit.perAddress + 2 - RefusalLimit.inAll)
        #expect(limit.take("a", at: .seconds(61)) == 0)
    }

    @Test func aLineSaysWhoAskedForWhat() throws {
        let lines = RecordedLog(), refusals = RefusalLog(log: lines.logger, time: .system)
        refusals.note(
            .request, address: "10.0.0.9", name: "bob", asked: "to cancel 1", reason: String(repeating: "x", count: 9999))
        let line = try #require(lines.all.first).metadata
        #expect(line["address"] == "10.0.0.9" && line["peer"] == "bob" && line["asked"] == "to cancel 1")
        #expect(line["left_out"] == nil && "\(line["reason"] ?? "")".utf8.count < 400)
    }
}
