import Core
import Protocol
import Testing

@testable import TesseraCLI

/// What `status` shows of many jobs and workers.
@Suite struct StatusTextTests {
    private static func job(
        _ number: Int, _ state: JobState = .running, output: String? = nil, error: String? = nil, rate: Double? = nil
    ) throws -> JobStatus {
        let id = "\(String(repeating: "0", count: 8 - "\(number)".count))\(number)" + String(repeating: "0", count: 24)
        var job = JobStatus(
            id: try #require(JobID(id)), state: state, method: "dare_ties", output: output ?? "/data/out-\(number)", plan: .none,
            shards: .init(total: 10, pending: 5, leased: 0, committed: 5), bytesDone: 300, bytesTotal: 1000, bytesOutput: 1000,
            bytesInput: 1000, attempts: 5, submittedAt: Double(number), seconds: 1, error: nil, blockedReason: nil,
            shardDetails: nil)
        job.owner = PeerIdentity.anyone.owner
        job.error = error.map { TesseraError(.badData, $0) }
        job.bytesPerSecond = rate
        return job
    }

    private static func worker(_ name: String) -> WorkerStatus {
        WorkerStatus(
            id: 1, name: name, address: "10.0.0.1:5", build: "1", state: .busy, threads: 8, memory: 1 << 30, leases: 1,
            shardsDone: 3, bytesDone: 5_000_000, bytesDirect: 0, secondsConnected: 9)
    }

    // MARK: Many jobs

    /// As many as have space, the newest of those that have ended, and how many more there are.
    @Test func jobsFitTheTerminal() throws {
        let jobs = try (1...42).map { try Self.job($0, .done) }
        let lines = StatusText(Status(jobs: jobs, workers: [])).lines(width: 79, height: 23)
        #expect(lines.count <= 23 && lines[1].hasSuffix("/data/out-42") && lines[2].hasSuffix("/data/out-41"), "\(lines)")
        let shown = lines.count { $0.contains("/data/out-") }
        #expect(shown >= 15 && lines.contains("and \(42 - shown) more jobs"), "\(lines)")
        let all = StatusText(Status(jobs: jobs, workers: [])).lines(width: 79, height: nil)
        #expect(all.count { $0.contains("/data/out-") } == 42 && !all.contains { $0.contains("more job") })
    }

    @Test func aLimitListsSoManyJobs() throws {
        let jobs = try (1...42).map { try Self.job($0, $0 == 7 ? .running : .done) }
        for height in [nil, 23] {
            let lines = StatusText(Status(jobs: jobs, workers: []), limit: 3).lines(width: 79, height: height)
            let outputs = lines.compactMap { $0.split(separator: "/").last }.filter { $0.hasPrefix("out-") }
            #expect(outputs == ["out-7", "out-42", "out-41"] && lines.contains("and 39 more jobs"), "\(lines)")
        }
    }

    /// Rows that are not listed have no say in which columns have space.
    @Test func hiddenRowsTakeNoSpace() throws {
        let long = "/data/" + String(repeating: "x", count: 200)
        let jobs = try (1...42).map { try Self.job($0, .done, output: $0 <= 5 ? long : nil) }
        let lines = StatusText(Status(jobs: jobs, workers: [])).lines(width: 79, height: 23)
        #expect(["METHOD", "SIZE", "TIME"].allSatisfy { lines[0].contains($0) }, "\(lines)")
        #expect(lines.contains { $0.hasSuffix("/data/out-42") }, "\(lines)")
    }

    @Test func jobsThatAreNotListedHaveNoErrors() throws {
        let old = try (1...5).map { try Self.job($0, .failed, error: "old trouble") }
        let new = try (6...42).map { try Self.job($0, .done) } + [try Self.job(43, .failed, error: "new trouble")]
        let lines = StatusText(Status(jobs: old + new, workers: [])).lines(width: 79, height: 23)
        #expect(lines.count <= 23 && lines.contains("00000043: new trouble") && !lines.joined().contains("old"), "\(lines)")
    }

    @Test func aLongErrorLeavesSpaceForTheJobs() throws {
        let jobs = try (1...20).map { try Self.job($0, .failed, error: String(repeating: "much trouble ", count: 40)) }
        let lines = StatusText(Status(jobs: jobs, workers: [])).lines(width: 79, height: 23)
        #expect(lines.count <= 23 && lines.count { $0.contains("/data/out-") } > 8, "\(lines)")
        #expect(lines.last?.hasSuffix("more lines; 'tessera status JOB' has all about a job") == true, "\(lines)")
    }

    @Test func jobsThatMoveHaveARateAndATimeLeft() throws {
        var waiting = try Self.job(2, rate: 10)
        waiting.blockedReason = "waits for a worker with more memory"
        waiting.activity = .waiting
        let jobs = [try Self.job(1, rate: 10), waiting, try Self.job(3, .done, rate: 10)]
        let lines = StatusText(Status(jobs: jobs, workers: [Self.worker("w")])).lines(width: 79, height: 23)
        #expect(lines[0].contains("LEFT") && lines[0].contains("RATE"), "\(lines)")
        // 700 bytes at 10 a second.
        #expect(lines[1].contains("1 min 10 s") && lines[1].contains("10 B/s"), "\(lines)")
        #expect(lines[2...3].allSatisfy { !$0.contains("B/s") }, "\(lines)")
        let idle = StatusText(Status(jobs: [waiting], workers: [])).lines(width: 79, height: 23)
        #expect(!idle[0].contains("RATE"), "\(idle)")
    }

    @Test func jobsWithoutAnyWorkerSayHowToStartOne() throws {
        var job = try Self.job(1), busy = try Self.job(2)
        job.blockedReason = "waits for workers: none is connected"
        busy.state = .publishing
        let hint = WorkerHint(coordinator: HostPort(host: "head", port: 7070), usesTLS: false)
        let status = Status(jobs: [job, busy], workers: []).saying(hint)
        let words = "waits for workers: none is connected; start one: tessera worker --coordinator head:7070"
        #expect(StatusText(status).lines(width: nil, height: nil).last == "00000001: \(words)")
        #expect(status.jobs[1].blockedReason == nil)
        var log = StatusLog()
        #expect(log.lines(status, at: 0, date: "0").contains { $0.hasSuffix(words) })
        job.blockedReason = "waits for a worker with more memory"
        let other = Status(jobs: [job], workers: [Self.worker("small")])
        #expect(other.saying(hint) == other)
    }

    // MARK: The shards of a job

    @Test func shardsOfAJobThatHasFailedWaitForNothing() throws {
        var job = try Self.job(1, .failed, error: "gone")
        let error = TesseraError(.inputMissing, "no such file", file: "/a", advice: "copy it")
        job.shardDetails = (0..<9).map { index in
            ShardStatus(
                index: index, label: "layers.\(index)", state: index == 0 ? .committed : .pending, workers: [], attempts: 1,
                bytesDone: 0, bytesTotal: 1,
                failures: (1..<7).contains(index)
                    ? [
                        ShardFailure(worker: "w1", address: "h:1", error: error),
                        ShardFailure(worker: "w2", address: "h:2", error: error),
                    ] : nil)
        }
        let lines = StatusText(Status(jobs: [job], workers: [])).lines(width: nil, height: nil)
        #expect(!lines.contains { $0.contains("pending") }, "\(lines)")
        #expect(lines.count { $0.hasPrefix("layers.") && $0.contains(" failed  ") } == 6, "\(lines)")
        #expect(lines.count { $0.contains(" not done ") } == 2 && lines.contains { $0.contains("committed") }, "\(lines)")
        // One line for one reason.
        #expect(
            lines.filter { $0.contains(" failed on ") } == [
                "layers.1, layers.2, layers.3 and 3 more failed on w1 (h:1), w2 (h:2): /a: no such file — copy it"
            ])
        job.state = .running
        #expect(StatusText(Status(jobs: [job], workers: [])).lines(width: nil, height: nil).contains { $0.contains("pending") })
    }

    // MARK: In a pipe

    @Test func aJobThatFailedSaysWhyInTheLog() throws {
        var log = StatusLog()
        _ = log.lines(Status(jobs: [try Self.job(1)], workers: []), at: 0, date: "0")
        let said = log.lines(
            Status(jobs: [try Self.job(1, .failed, error: "tensor 'w' is gone")], workers: []), at: 1, date: "1")
        #expect(said.count == 1 && said[0].hasSuffix("failed after 1.00 s  tensor 'w' is gone"), "\(said)")
        let paused = log.lines(
            Status(jobs: [try Self.job(2, .paused, error: "the disk is full")], workers: []), at: 2, date: "2")
        #expect(paused.count == 1 && paused[0].hasSuffix("paused  the disk is full"), "\(paused)")
        // Of a job that is followed alone, the command says that itself.
        var plain = PlainProgress()
        let line = plain.line(try Self.job(1, .failed, error: "tensor 'w' is gone"), at: 0, date: "0")
        #expect(line?.hasSuffix("failed after 1.00 s") == true, "\(line ?? "")")
    }
}
