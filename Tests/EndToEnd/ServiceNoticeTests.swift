import Foundation
import TestSupport
import Testing

/// Coordinator and worker as services of systemd.
@Suite struct ServiceNoticeTests {
    @Test func servicesSayWhenTheyAreReadyAndWhatTheyDo() async throws {
        let directory = try TemporaryDirectory()
        let socket = try NotifySocket("\(directory.path)/coordinator")
        let coordinator = try RunningTessera(
            ["coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--state", "\(directory.path)/state"],
            environment: ["NOTIFY_SOCKET": socket.name, "WATCHDOG_USEC": "60000000"])
        let lines = try await socket.lines { $0 == "STATUS=0 jobs, 0 workers" }
        let ready = try #require(lines.firstIndex(of: "READY=1"), "\(lines)")
        let replayed = try #require(lines.firstIndex(of: "STATUS=reads the journal"), "\(lines)")
        #expect(replayed < ready && lines.contains("WATCHDOG=1"))
        // The port listens by then: what is printed once it does is there.
        let line = try await coordinator.waitForOutput("ready: jobs on ")
        let address = String(try #require(line.split(separator: " ").dropFirst(3).first).dropLast())

        let other = try NotifySocket("\(directory.path)/worker")
        let worker = try RunningTessera(
            ["worker", "--coordinator", address], environment: ["NOTIFY_SOCKET": other.name, "WATCHDOG_USEC": "60000000"])
        let said = try await other.lines { $0 == "STATUS=works for \(address): 0 shards" }
        #expect(said.contains("READY=1") && said.contains("WATCHDOG=1"), "\(said)")
        _ = try await socket.lines { $0 == "STATUS=0 jobs, 1 worker" }
        coordinator.signal(SIGKILL)
        _ = try await other.lines { $0 == "STATUS=looks for the coordinator \(address)" }
        #expect(worker.isRunning)
    }
}
