import Core
import Foundation
import TestSupport
import Testing

@testable import TesseraCLI

/// What services say to systemd.
@Suite struct ServiceTests {
    @Test func aStatusIsSaidWhenItChangesAndNotTooOften() {
        var notices = ServiceNotices(watchdog: nil)
        // Clocks may begin before zero.
        #expect(notices.tick("idle", at: .seconds(-1)) == "STATUS=idle")
        #expect(notices.tick("idle", at: .seconds(5)) == nil)
        #expect(notices.tick("1 job", at: .seconds(6)) == "STATUS=1 job")
        #expect(notices.tick("2 jobs", at: .seconds(6.5)) == nil)
        #expect(notices.tick("3 jobs\nREADY=1", at: .seconds(7)) == "STATUS=3 jobs\\nREADY=1", "no name forges a line")
    }

    @Test func theWatchdogHearsATickInGoodTime() {
        var notices = ServiceNotices(watchdog: .seconds(20))
        var signs: [Int] = []
        for second in 0...20 where notices.tick("", at: .seconds(second))?.contains("WATCHDOG=1") == true { signs.append(second) }
        #expect(signs == [0, 5, 10, 15, 20])
    }

    @Test(arguments: [false, true])
    func messagesReachTheManagersSocket(isAbstract: Bool) async throws {
        let directory = try TemporaryDirectory(), clock = HandClock()
        let socket = try NotifySocket(isAbstract ? "@\(directory.path)" : "\(directory.path)/notify")
        let environment = ["NOTIFY_SOCKET": socket.name, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "\(getpid())"]
        let manager = try #require(try ServiceManager(environment: environment, time: clock.source))
        manager.isReady()
        manager.tick("1 job")
        #expect(socket.message() == "READY=1")
        #expect(socket.message() == "STATUS=1 job\nWATCHDOG=1")
        manager.tick("1 job")
        #expect(socket.message() == nil)
    }

    @Test(arguments: [["WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"], ["WATCHDOG_USEC": "0"], ["WATCHDOG_USEC": "soon"], [:]])
    func whoIsNotWatchedGivesNoSigns(watchdog: [String: String]) throws {
        let directory = try TemporaryDirectory()
        let socket = try NotifySocket("\(directory.path)/notify")
        let manager = try #require(try ServiceManager(environment: watchdog.merging(["NOTIFY_SOCKET": socket.name]) { $1 }))
        manager.tick("1 job")
        #expect(socket.message() == "STATUS=1 job")
    }

    @Test func withoutAManagerNothingIsSaid() throws {
        #expect(try ServiceManager(environment: [:]) == nil)
        #expect(try ServiceManager(environment: ["NOTIFY_SOCKET": ""]) == nil)
    }

    @Test(arguments: ["notify", "vsock:2:1", "/" + String(repeating: "a", count: 200)])
    func whatIsNoSocketIsRefused(path: String) {
        #expect { try ServiceManager(environment: ["NOTIFY_SOCKET": path]) } throws: {
            ($0 as? TesseraError)?.code == .usage && "\($0)".contains(path)
        }
    }

    /// Nobody listens, or no more: the service goes on.
    @Test func aManagerThatIsGoneIsNoTrouble() throws {
        let manager = try #require(try ServiceManager(environment: ["NOTIFY_SOCKET": "/nonexistent/notify"]))
        manager.isReady()
        manager.tick("1 job")
    }
}
