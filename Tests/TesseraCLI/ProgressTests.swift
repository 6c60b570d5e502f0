import Core
import Protocol
import Testing

@testable import TesseraCLI

/// What is shown of a job: status in, lines out.
@Suite struct ProgressTests {
    private static func job(
        _ state: JobState = .running, done: Int = 0, of total: Int = 1000, committed: Int = 0, leased: Int = 0,
        seconds: Double = 0, attempts: Int? = nil, blocked: String? = nil, output: String = "/data/out"
    ) throws -> JobStatus {
        var job = JobStatus(
            id: try #require(JobID("00112233445566778899aabbccddeeff")), state: state, method: "ties", output: output,
            plan: .none, shards: .init(total: 10, pending: 10 - committed - leased, leased: leased, committed: committed),
            bytesDone: done, bytesTotal: total, bytesOutput: total, bytesInput: total, attempts: attempts ?? committed + leased,
            submittedAt: 0, seconds: seconds, error: nil, blockedReason: blocked, shardDetails: nil)
        job.activity = blocked.map { _ in .waiting }
        return job
    }

    private static func worker(_ name: String, at address: String = "10.0.0.1:5") -> WorkerStatus {
        WorkerStatus(
            id: 1, name: name, address: address, build: "1", state: .busy, threads: 8, memory: 1 << 30, leases: 1, shardsDone: 3,
            bytesDone: 5_000_000, bytesDirect: 0, secondsConnected: 9)
    }

    private static func plainView() -> JobView { JobView(styled: { text, _ in text }) }

    // MARK: The view

    @Test(arguments: [(80, 24), (160, 50), (40, 10), (24, 5), (20, 2), (10, 1)])
    func theViewFitsTheTerminal(width: Int, height: Int) throws {
        let path = "/a/very/long/path/" + String(repeating: "directory/", count: 20) + "out"
        var job = try Self.job(done: 470, committed: 4, leased: 3, seconds: 20, blocked: "waits for a worker", output: path)
        job.shardDetails = (0..<3).map { index in
            ShardStatus(
                index: index, label: "model.layers.\(index)", state: .leased, workers: ["node-\(index)"], attempts: 1,
                bytesDone: 10, bytesTotal: 100)
        }
        let lost = [LostWorker(name: "node-x", address: "h:1", reason: "gone", secondsAgo: 9, leases: 1)]
        for count in [0, 1, 3, 100] {
            var view = Self.plainView()
            var status = Status(jobs: [job], workers: (0..<count).map { Self.worker("node-\($0)") })
            status.lostWorkers = lost
            let lines = view.lines(status, width: width, height: height)
            #expect(lines.count < max(2, height), "\(lines)")
            #expect(lines.allSatisfy { $0.columns < max(width, 21) }, "\(lines)")
        }
    }

    @Test func theViewTellsBytesRateTimeLeftShardsAndWorkers() throws {
        var view = Self.plainView()
        let workers = ["node-10", "node-9"].map { Self.worker($0) }
        var job = try Self.job(done: 100, committed: 1, seconds: 10)
        _ = view.lines(Status(jobs: [job], workers: workers), width: 80, height: 24)
        job = try Self.job(done: 300, committed: 3, leased: 1, seconds: 20, attempts: 6)
        job.shardDetails = [
            ShardStatus(
                index: 3, label: "layers.3", state: .leased, workers: ["node-9"], attempts: 1, bytesDone: 25, bytesTotal: 100)
        ]
        let lines = view.lines(Status(jobs: [job], workers: workers), width: 80, height: 24)
        #expect(lines[0].hasPrefix("ties → /data/out") && lines[0].hasSuffix("job 00112233"))
        // 200 bytes in ten seconds, and 700 bytes to do.
        #expect(lines[1].hasSuffix("━" + String(repeating: "─", count: 44) + "  30 %  35 s left"), "\(lines[1])")
        #expect(lines[2] == "300 B of 1.00 kB   20 B/s   3 of 10 shards   2 repeated   20 s")
        #expect(lines[3].hasPrefix("WORKER") && lines[4].hasPrefix("node-9 ") && lines[5].hasPrefix("node-10 "))
        #expect(lines[4].hasSuffix("layers.3 25 %"))
    }

    @Test func workersThatHaveNoSpaceAreCounted() throws {
        var view = Self.plainView()
        let status = Status(jobs: [try Self.job()], workers: (0..<100).map { Self.worker("node-\($0)") })
        let lines = view.lines(status, width: 80, height: 10)
        #expect(lines.count == 9 && lines.last == "and 96 more workers", "\(lines)")
    }

    @Test func aRunOnThisMachineNamesItsShards() throws {
        var view = Self.plainView(), job = try Self.job(leased: 1)
        job.shardDetails = [
            ShardStatus(
                index: 3, label: "layers.3", state: .leased, workers: ["local"], attempts: 1, bytesDone: 50, bytesTotal: 100)
        ]
        let lines = view.lines(Status(jobs: [job], workers: [Self.worker("local", at: "local")]), width: 80, height: 24)
        #expect(lines.last == "now: layers.3 50 %")
        #expect(!lines.contains { $0.hasPrefix("WORKER") })
    }

    /// Shards that an earlier process did, or hours in which nobody worked, say nothing about the time left.
    @Test func theRateIsThatOfTheLastHalfMinute() throws {
        var pace = JobPace()
        for second in 3590...3600 { pace.note(try Self.job(done: 500, seconds: Double(second))) }
        #expect(pace.bytesPerSecond == nil, "nothing has been done yet that could be measured")
        pace = JobPace()
        pace.note(try Self.job(done: 500, seconds: 3600))
        #expect(pace.bytesPerSecond == nil)
        for second in 1...100 { pace.note(try Self.job(done: 500 + second, seconds: 3600 + Double(second))) }
        #expect(pace.bytesPerSecond == 1)
        #expect(pace.secondsLeft(of: try Self.job(done: 600, seconds: 3700)) == 400)
        // A restart that lost some of it.
        // One that stands still is slow, and that is known.
        for second in 101...200 { pace.note(try Self.job(done: 600, seconds: 3600 + Double(second))) }
        #expect(pace.bytesPerSecond == 0)
        pace.note(try Self.job(done: 100, seconds: 3801))
        #expect(pace.bytesPerSecond == nil)
    }

    // MARK: Lines that change in place

    @Test func newLinesReplaceThoseThatAreShown() {
        var region = LiveRegion()
        #expect(region.show(["one", "two"], width: 80) == "one\ntwo\n")
        #expect(region.show(["three"], width: 80) == "\u{1b}[2A\r\u{1b}[Jthree\n")
        #expect(region.show([], width: 80) == "\u{1b}[1A\r\u{1b}[J")
        #expect(region.show([], width: 80) == "")
    }

    @Test func notesAppearAboveTheLines() {
        var region = LiveRegion()
        _ = region.show(["bar"], width: 80)
        #expect(region.insert("error: full\n", width: 80) == "\u{1b}[1A\r\u{1b}[Jerror: full\nbar\n")
    }

    @Test func afterTheTerminalBecameNarrowerLinesTakeMoreRows() {
        var region = LiveRegion()
        _ = region.show([Terminal.Style.red.rawValue, String(repeating: "x", count: 50)], width: 80)
        #expect(region.show([], width: 20) == "\u{1b}[4A\r\u{1b}[J")
    }

    // MARK: Without a terminal

    @Test func plainProgressSpeaksAtTheBeginningAtTenthsAndAtTheEnd() throws {
        var progress = PlainProgress()
        var spoken: [String] = []
        for second in 0...1000 {
            let job = try Self.job(second == 1000 ? .done : .running, done: second, seconds: Double(second))
            if let line = progress.line(job, at: Double(second), date: "\(second)") { spoken.append(line) }
        }
        #expect((90...110).contains(spoken.count), "\(spoken.count)")
        #expect(spoken.first == "0    0 %  0 B of 1.00 kB  0 of 10 shards")
        #expect(spoken.last == "1000  100 %  1.00 kB of 1.00 kB  0 of 10 shards  done after 16 min 40 s")
        #expect(spoken[50].contains("1 B/s") && spoken[50].contains(" left"), "\(spoken[50])")
    }

    @Test func plainProgressIsRareWhereNothingHappens() throws {
        var progress = PlainProgress()
        let job = try Self.job(done: 100, seconds: 1, blocked: "waits")
        let spoken = (0..<600).filter { progress.line(job, at: Double($0), date: "") != nil }
        #expect(spoken == [0, 60, 120, 180, 240, 300, 360, 420, 480, 540])
    }

    @Test func eventsAreFewAndSayChangesOnly() throws {
        var events = ProgressEvents(), times: [Int] = []
        for tenth in 0..<100 {
            let moment = Double(tenth) / 10
            // Nothing changes after five seconds.
            let job = try Self.job(done: min(tenth, 50), seconds: moment)
            if events.event(Status(jobs: [job], workers: []), at: moment, date: "") != nil { times.append(tenth) }
        }
        #expect(times == [0, 10, 20, 30, 40, 50])
        let end = Status(jobs: [try Self.job(.done, done: 1000, committed: 10)], workers: [])
        let event = events.event(end, at: 9.95, date: "2026-01-01T00:00:00Z")
        let last = try #require(event)
        let text = JSONLine(last).text
        #expect(text.contains(#""event":"progress""#) && text.contains(#""state":"done""#) && !text.contains("\n"), "\(text)")
        #expect(text.utf8.count < 420)
        let blocked = Status(jobs: [try Self.job(done: 1000, blocked: "waits for workers")], workers: [])
        let waits = events.event(blocked, at: 11, date: "")
        #expect(waits?.state == .running && waits?.activity == "waiting")
    }

    // MARK: What is said once

    @Test func aJobWithoutWorkersSaysHowToStartOne() throws {
        var remarks = JobRemarks(hint: WorkerHint(coordinator: HostPort(host: "head", port: 7070), usesTLS: false))
        let status = Status(jobs: [try Self.job()], workers: [])
        #expect(
            remarks.about(status) == [
                "no worker is connected, so the job waits; start one: tessera worker --coordinator head:7070"
            ])
        #expect(remarks.about(status) == [])
        #expect(remarks.about(Status(jobs: [try Self.job()], workers: [Self.worker("a")])) == [])
        #expect(remarks.about(status).count == 1)
        var protected = JobRemarks(hint: WorkerHint(coordinator: HostPort(host: "head", port: 7070), usesTLS: true))
        #expect(protected.about(status).first?.contains("head:7070, with --tls-ca or --tls-pin") == true)
    }

    @Test func aPausedJobSaysWhyAndThatItGoesOn() throws {
        var remarks = JobRemarks(hint: WorkerHint(coordinator: HostPort(host: "head", port: 7070), usesTLS: false))
        var job = try Self.job(.paused)
        job.error = TesseraError(.io, "the disk is full")
        #expect(remarks.about(Status(jobs: [job], workers: [])) == ["the job is paused: the disk is full"])
        #expect(remarks.about(Status(jobs: [try Self.job()], workers: [Self.worker("a")])) == ["the job goes on"])
    }

    // MARK: Status

    @Test(arguments: [(80, 24), (60, 12), (160, 50)])
    func tablesOfAStatusFitTheTerminal(width: Int, height: Int) throws {
        let jobs = try (0..<50).map {
            try Self.job($0 < 40 ? .done : .running, output: "/data/\(String(repeating: "x", count: 99))")
        }
        let status = Status(jobs: jobs, workers: (0..<50).map { Self.worker("node-with-a-long-name-\($0)") })
        let lines = StatusText(status).lines(width: width, height: height)
        #expect(lines.count <= height && lines.allSatisfy { $0.columns <= width }, "\(lines)")
        #expect(lines.contains { $0.contains("running") } && lines.contains { $0.hasSuffix(" more jobs") }, "\(lines)")
        #expect(lines.contains { $0.hasSuffix(" more workers") })
    }

    /// With long names and owners, at the usual size: a row for each job, cut in the middle and not at its end.
    @Test func rowsWithOwnersAndNamesKeepTheirEnds() throws {
        func job(_ number: Int) throws -> JobStatus {
            var job = try Self.job(.publishing, output: "/data/\(String(repeating: "x", count: 99))/out-\(number)")
            job.owner = "somebody-with-a-long-name@example.org"
            job.name = "nightly-merge-of-all-the-models-\(number)"
            return job
        }
        let lines = StatusText(Status(jobs: try (10..<14).map(job), workers: [])).lines(width: 79, height: 23)
        #expect(lines.allSatisfy { $0.columns <= 79 }, "\(lines)")
        #expect(lines[0].contains("NAME") && lines[0].hasSuffix("OUTPUT") && !lines[0].contains("METHOD"), "\(lines)")
        for (line, number) in zip(lines.dropFirst(), 10..<14) { #expect(line.hasSuffix("\(number)"), "\(line)") }
        let wide = StatusText(Status(jobs: [try job(10)], workers: [])).lines(width: 159, height: 49)
        #expect(wide[0].contains("METHOD") && wide[0].contains("OWNER"), "\(wide)")
    }

    @Test func jobsThatRunComeFirstAndOfTheOthersTheNewest() throws {
        func job(_ state: JobState, submittedAt: Double, output: String) throws -> JobStatus {
            let job = try Self.job(state, output: output)
            return JobStatus(
                id: job.id, state: state, method: job.method, output: output, plan: job.plan, shards: job.shards, bytesDone: 0,
                bytesTotal: 1, bytesOutput: 1, bytesInput: 1, attempts: 0, submittedAt: submittedAt, seconds: 1, error: nil,
                blockedReason: nil, shardDetails: nil)
        }
        let jobs = try [
            job(.done, submittedAt: 1, output: "/oldest"), job(.failed, submittedAt: 2, output: "/old"),
            job(.running, submittedAt: 3, output: "/first"), job(.done, submittedAt: 4, output: "/new"),
            job(.paused, submittedAt: 5, output: "/second"),
        ]
        let lines = StatusText(Status(jobs: jobs, workers: [])).lines(width: 80, height: 7)
        let outputs = lines.compactMap { $0.split(separator: " ").last }.filter { $0.hasPrefix("/") }
        // 7 lines: a title, the workers below an empty line, and how many more there are.
        #expect(outputs.suffix(3) == ["/first", "/second", "/new"], "\(lines)")
        #expect(lines.contains("and 2 more jobs"), "\(lines)")
    }

    @Test func aWatchedClusterIsALogOfWhatHappens() throws {
        var log = StatusLog()
        let ended = (0..<30).map { _ in try? Self.job(.done, done: 1000, committed: 10) }.compactMap(\.self)
        func other(_ state: JobState, done: Int) throws -> JobStatus {
            let job = try Self.job(state, done: done, seconds: Double(done))
            return JobStatus(
                id: try #require(JobID("ffeeddccbbaa99887766554433221100")), state: state, method: "ties", output: "/o",
                plan: .none, shards: job.shards, bytesDone: done, bytesTotal: 1000, bytesOutput: 1, bytesInput: 1, attempts: 0,
                submittedAt: 0, seconds: 1, error: nil, blockedReason: nil, shardDetails: nil)
        }
        var said: [String] = []
        for second in 0...300 {
            let job = try other(second == 300 ? .done : .running, done: second)
            let workers = second < 100 ? ["a", "b"] : ["b"]
            let status = Status(jobs: ended + [job], workers: workers.map { Self.worker($0) })
            said += log.lines(status, at: Double(second), date: "\(second)")
        }
        #expect(said[0] == "0  2 workers are connected" && said[1] == "0  30 jobs have ended", "\(said)")
        #expect(said[2].hasPrefix("0  job ffeeddcc    0 %  0 B of"), "\(said)")
        #expect(said.contains("100  worker a  left"), "\(said)")
        #expect(said.last?.hasPrefix("300  job ffeeddcc   30 %") == true && said.last?.contains("done after") == true, "\(said)")
        #expect(said.count < 50, "\(said)")
    }

    @Test func jobsThatWaitForOneReasonShareALine() throws {
        let first = try Self.job(),
            queued = try (0..<20).map { number in
                var job = try Self.job()
                job.behind = first.id
                job.activity = .queued
                job.blockedReason = "waits behind the job 1a773d8c and \(number) more"
                return job
            }
        var alone = try Self.job()
        alone.activity = .waiting
        alone.blockedReason = "waits for workers: none has been connected for 3 s"
        let lines = StatusText(Status(jobs: [first, alone] + queued, workers: [])).lines(width: 100, height: nil)
        #expect(
            lines.filter { $0.contains("wait behind other jobs") }.count == 1 && lines.contains { $0.contains("and 17 more: ") })
        #expect(lines.contains { $0.hasSuffix("waits for workers: none has been connected for 3 s") })
        #expect(lines.filter { $0.contains(" queued ") }.count == 20 && lines.contains { $0.contains(" waiting ") })
    }

    @Test func aJobThatWaitsHasNoRate() throws {
        var view = Self.plainView(), plain = PlainProgress()
        var last: [String] = [], line: String?
        for seconds in 0..<10 {
            let blocked = seconds == 9 ? "waits for workers" : nil
            let job = try Self.job(done: 10 * seconds, seconds: Double(seconds), blocked: blocked)
            last = view.lines(Status(jobs: [job], workers: []), width: 80, height: 24)
            line = plain.line(job, at: Double(seconds), date: "") ?? line
        }
        #expect(!last.joined().contains("/s") && !last.joined().contains(" left"), "\(last)")
        #expect(line?.contains("waits for workers") == true && line?.contains("/s") == false, "\(line ?? "")")
    }

    /// After a wait of more than a minute the rate and the time left are what they were before.
    @Test func aWaitDoesNotSlowTheRate() throws {
        var pace = JobPace()
        for second in 0...10 { pace.note(try Self.job(done: 10 * second, seconds: Double(second))) }
        for second in 11...80 {
            var job = try Self.job(done: 100, seconds: Double(second), blocked: "waits for workers")
            job.secondsWaited = Double(second - 10)
            pace.note(job)
        }
        var job = try Self.job(done: 120, seconds: 82)
        job.secondsWaited = 70
        pace.note(job)
        #expect(pace.bytesPerSecond(of: job) == 10 && pace.secondsLeft(of: job) == 88)
        // A coordinator that starts again counts its waits anew.
        pace.note(try Self.job(done: 120, seconds: 90))
        #expect(pace.bytesPerSecond == nil)
    }

    /// A job that gets on with most of its shards says what the others lack, and idle workers share a line.
    @Test func whatWaitsBesideTheWorkIsSaid() throws {
        var job = try Self.job(done: 10, committed: 1, leased: 1)
        job.note = "17 shards wait for a worker with more memory"
        var status = Status(jobs: [job], workers: (1...5).map { Self.worker("w\($0)") })
        for index in 0..<4 { status.workers[index].idleReason = "the 17 shards that wait need more memory than it has" }
        var view = Self.plainView()
        for lines in [StatusText(status).lines(width: 100, height: nil), view.lines(status, width: 100, height: 24)] {
            #expect(lines.contains { $0.hasSuffix("17 shards wait for a worker with more memory") }, "\(lines)")
            #expect(
                lines.contains("w1, w2, w3 and 1 more are idle: the 17 shards that wait need more memory than it has"), "\(lines)"
            )
        }
        #expect(StatusText(status).lines(width: 100, height: nil)[1].contains(" running "))
    }

    /// A rate over time in which nobody worked would say nothing.
    @Test func theEndTellsAWaitApart() throws {
        var job = try Self.job(.done, done: 1000, committed: 10, seconds: 26)
        #expect(JobOutcome(job).sentence.contains(" in 26.0 s (76 B/s read and written), plan "), "\(JobOutcome(job).sentence)")
        job.secondsWaited = 16
        #expect(
            JobOutcome(job).sentence.contains(" in 26.0 s (16.0 s of that waiting; 200 B/s read and written), plan "),
            "\(JobOutcome(job).sentence)")
        // What is told by a peer is no reason to divide by nothing.
        job.secondsWaited = 99
        #expect(JobOutcome(job).sentence.contains("26.0 s of that waiting; "), "\(JobOutcome(job).sentence)")
    }

    /// Whoever submits a job chooses the path that others are shown, and a coordinator may be anybody.
    @Test func whatPeersSayIsShownOnOneLine() throws {
        var job = try Self.job(.done, done: 1000, committed: 10, seconds: 26)
        job.output = "/out\u{1b}]0;x\u{7}\nz"
        #expect(JobOutcome(job).sentence.hasPrefix(#"/out\u{1B}]0;x\u{07}\nz: "#), "\(JobOutcome(job).sentence)")
        var worker = Self.worker("a")
        worker.failedInARow = 1
        for seconds in [-1e308, -1e19, 1e308, .infinity] {
            worker.secondsResting = seconds
            #expect(worker.trouble?.contains(", and gets nothing for ") == true)
        }
    }

    @Test func aCoordinatorThatEndsSaysSo() throws {
        var status = Status(jobs: [try Self.job()], workers: [Self.worker("a")]), view = Self.plainView()
        let words = "the coordinator takes no more jobs, and ends after those that it has"
        #expect(!StatusText(status).lines(width: 80, height: nil).contains(words))
        status.draining = true
        #expect(StatusText(status).lines(width: 80, height: nil).contains(words))
        #expect(view.lines(status, width: 80, height: 24).contains(words))
    }

    @Test func aLostWorkerStaysInSight() throws {
        var status = Status(jobs: [], workers: [])
        status.lostWorkers = [LostWorker(name: "n1", address: "h:1", reason: "no heartbeat", secondsAgo: 61, leases: 2)]
        let lines = StatusText(status).lines(width: 80, height: nil)
        #expect(lines.contains { $0.hasPrefix("n1") && $0.contains("lost") })
        #expect(lines.last == "n1 (h:1) was lost 1 min 1 s ago, while it worked on 2 shards: no heartbeat")
    }

    @Test func timesAreNoNews() throws {
        var changes = StatusChanges()
        var workers = [Self.worker("a")]
        #expect(changes.isNew(Status(jobs: [try Self.job(seconds: 1)], workers: workers), at: 0))
        workers[0].secondsSinceHeard = 0.3
        #expect(!changes.isNew(Status(jobs: [try Self.job(done: 5, seconds: 2)], workers: workers), at: 100))
        #expect(changes.isNew(Status(jobs: [try Self.job(committed: 1, seconds: 3)], workers: workers), at: 101))
        #expect(changes.isNew(Status(jobs: [try Self.job(committed: 1, seconds: 3)], workers: []), at: 200))
        // Shards come quickly, and states are told at once.
        #expect(!changes.isNew(Status(jobs: [try Self.job(committed: 2)], workers: []), at: 201))
        #expect(changes.isNew(Status(jobs: [try Self.job(.done, committed: 10)], workers: []), at: 202))
    }
}
